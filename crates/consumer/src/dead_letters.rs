//! `consumer dlq`: what was set aside, shown to an operator and put back.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use event_log::{
    Log, NewRecord, PartitionHandler, Position, Record, RecordOutcome, StartAt, Watermarks,
};
use model::{Cursor, Partitioner, TopicNames, headers};
use parking_lot::Mutex;
use tokio::{sync::Notify, time::timeout};

/// How long reading the whole topic, or one acknowledgement, may take.
const DEADLINE: Duration = Duration::from_secs(60);
/// As much of a value as a line shows.
const SHOWN: usize = 100;

/// A record that was set aside, and why.
#[derive(Debug, Clone)]
pub struct DeadLetter {
    /// Where it is now.
    pub at: Cursor,
    /// Where it was: topic, partition and offset.
    pub from: String,
    /// Its id if it has none of its own: where it was.
    place: String,
    /// Why it was set aside.
    pub reason: String,
    key: Vec<u8>,
    value: Vec<u8>,
    headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// The dead letters cannot be read or put back.
#[derive(Debug, thiserror::Error)]
pub enum DeadLetterError {
    /// The log is away, or has no such topic.
    #[error(transparent)]
    Log(#[from] event_log::LogUnreachable),
    /// It did not put everything back.
    #[error(
        "{done} were put back, then the log did not acknowledge: {error}. Doing it again is safe"
    )]
    Append {
        /// How many were acknowledged.
        done: usize,
        /// What the log said.
        error: event_log::AppendError,
    },
    /// Standard output is gone.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// Every dead letter, by place.
///
/// # Errors
/// [`DeadLetterError::Log`], when they cannot be read within a minute.
pub async fn read(
    log: &Log,
    topic: &str,
    partitions: u32,
) -> Result<Vec<DeadLetter>, DeadLetterError> {
    log.ping(Duration::from_secs(10)).await?;
    let found = Arc::new(Found::default());
    let follower = log.follow_topic(topic, Collect(Arc::clone(&found)))?;
    let all = i32::try_from(partitions).unwrap_or(i32::MAX);
    (0..all).for_each(|partition| follower.assign(partition));
    let complete = async {
        while found.live.lock().len() < partitions as usize {
            found.more.notified().await;
        }
    };
    let read = timeout(DEADLINE, complete).await;
    follower.stop().await;
    if read.is_err() {
        let text =
            format!("topic {topic} could not be read: is it there, with {partitions} partitions?");
        return Err(event_log::LogUnreachable(text).into());
    }
    let mut letters = std::mem::take(&mut *found.letters.lock());
    letters.sort_by_key(|letter| letter.at);
    Ok(letters)
}

/// Writes a line for each.
///
/// # Errors
/// [`DeadLetterError::Output`].
pub fn list(letters: &[DeadLetter], out: &mut impl Write) -> Result<(), DeadLetterError> {
    for letter in letters {
        let value = String::from_utf8_lossy(&letter.value);
        let shown: String =
            value.chars().take(SHOWN).map(|c| if c.is_control() { ' ' } else { c }).collect();
        writeln!(out, "{}\tfrom {}\t{}\t{shown}", letter.at, letter.from, letter.reason)?;
    }
    writeln!(out, "{} dead letters", letters.len())?;
    Ok(())
}

/// Puts these back into the notifications' topic. A record that has no id gets its first place as
/// one, so that putting it back twice shows it once.
///
/// # Errors
/// [`DeadLetterError::Append`].
pub async fn replay(
    log: &Log,
    names: &TopicNames,
    partitioner: Partitioner,
    partitions: u32,
    letters: &[DeadLetter],
) -> Result<(), DeadLetterError> {
    let writer = log.writer();
    for (done, letter) in letters.iter().enumerate() {
        let mut headers = letter.headers.clone();
        if !headers.iter().any(|(name, _)| *name == headers::CE_ID) {
            headers.push((headers::CE_ID, letter.place.clone().into_bytes().into()));
        }
        let record = NewRecord {
            partition: partitioner.partition_for(&letter.key, partitions),
            key: letter.key.clone(),
            value: letter.value.clone(),
            headers,
        };
        let appended = match writer.append(&names.notifications, record) {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        let Position { partition, offset } =
            appended.map_err(|error| DeadLetterError::Append { done, error })?;
        tracing::info!(dead_letter = %letter.at, at = %Cursor::new(partition, offset), "put back");
    }
    Ok(())
}

#[derive(Default)]
struct Found {
    letters: Mutex<Vec<DeadLetter>>,
    live: Mutex<HashSet<i32>>,
    more: Notify,
}

struct Collect(Arc<Found>);

impl PartitionHandler for Collect {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let said = |name: &str| {
            let value =
                record.headers.iter().find(|(key, _)| *key == name).map(|(_, value)| *value);
            String::from_utf8_lossy(value.unwrap_or(b"?")).into_owned()
        };
        let known = |(name, value): &(&str, &[u8])| {
            Some((headers::find_name(name)?, value.to_vec().into()))
        };
        let place = format!("{}-{}", said("dlq.partition"), said("dlq.offset"));
        self.0.letters.lock().push(DeadLetter {
            at: Cursor::new(record.partition, record.offset),
            from: format!("{} {place}", said("dlq.topic")),
            place,
            reason: said("dlq.reason"),
            key: record.key.unwrap_or_default().to_vec(),
            value: record.value.unwrap_or_default().to_vec(),
            headers: record.headers.iter().filter_map(known).collect(),
        });
        RecordOutcome::Applied
    }

    fn on_live(&mut self, partition: i32) {
        self.0.live.lock().insert(partition);
        self.0.more.notify_one();
    }

    fn on_revoked(&mut self, _: i32) {}
}
