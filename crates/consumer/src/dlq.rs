//! `consumer dlq`: lists the records of the dead-letter queue, and appends them to their topic
//! again. It reads the queue once, in no group, and commits nothing.

use std::{
    borrow::Cow,
    collections::HashSet,
    io::{self, Write},
    sync::Arc,
    time::Duration,
};

use event_log::{
    AppendError, Log, LogUnreachable, NewRecord, PartitionHandler, PoisonOrigin, Position, Record,
    RecordOutcome, StartAt, Watermarks,
};
use model::{Cursor, Partitioner, TopicNames, headers};
use parking_lot::Mutex;
use service::ops::printable::printable;
use tokio::{sync::watch, time::timeout};

const PING_TIMEOUT: Duration = Duration::from_secs(10);
/// For the whole queue.
const READ_TIMEOUT: Duration = Duration::from_secs(60);
const MAX_SHOWN_CHARS: usize = 100;
const MAX_REASON_CHARS: usize = 200;

/// The copy of a poison record.
#[derive(Debug, Clone)]
pub struct DlqRecord {
    /// The position of the copy.
    pub at: Cursor,
    /// The original's place, as the copying consumer noted it. `None` if no consumer copied the record.
    origin: Option<PoisonOrigin>,
    value: Vec<u8>,
    /// The original's own headers, as far as a notification has them.
    headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// An append failed, after `done` appends were acknowledged.
#[derive(Debug, thiserror::Error)]
#[error(
    "{done} records were replayed, then the log did not acknowledge: {error}. It is safe to retry"
)]
pub struct ReplayError {
    done: usize,
    error: AppendError,
}

/// Reads the queue, in the order of positions. Copies are at least once: of several copies of one
/// record, only the first is returned.
///
/// # Errors
/// [`LogUnreachable`] if they cannot be read within a minute.
pub async fn read_records(
    log: &Log,
    topic: &str,
    partitions: u32,
) -> Result<Vec<DlqRecord>, LogUnreachable> {
    log.ping(PING_TIMEOUT).await?;
    let found = Arc::new(Found::default());
    let follower = log.follow_topic(topic, Collector(Arc::clone(&found)))?;
    let all = i32::try_from(partitions).unwrap_or(i32::MAX);
    (0..all).for_each(|partition| follower.assign(partition));
    let mut live = found.live.subscribe();
    let complete = live.wait_for(|live| live.len() >= partitions as usize);
    let is_complete = timeout(READ_TIMEOUT, complete).await.is_ok();
    follower.stop().await;
    if !is_complete {
        let text =
            format!("topic {topic} could not be read: is it there, with {partitions} partitions?");
        return Err(LogUnreachable(text));
    }
    let mut records = std::mem::take(&mut *found.records.lock());
    records.sort_by_key(|record| record.at);
    // The value too: a topic that was created again has other records at the same offsets.
    let mut seen = HashSet::new();
    records.retain(|record| {
        let Some(origin) = &record.origin else { return true };
        let place = (origin.topic.clone(), origin.partition, origin.offset);
        seen.insert((place, record.value.clone()))
    });
    Ok(records)
}

/// Writes a line for each record. Whatever a record holds, it is one line of four columns, and
/// nothing in it controls the terminal.
pub fn write_list(records: &[DlqRecord], out: &mut impl Write) -> io::Result<()> {
    for DlqRecord { at, origin, value, .. } in records {
        let value = printable(&String::from_utf8_lossy(value), MAX_SHOWN_CHARS);
        match origin {
            Some(PoisonOrigin { topic, partition, offset, reason, .. }) => {
                let topic = printable(topic, MAX_SHOWN_CHARS);
                let reason = printable(reason, MAX_REASON_CHARS);
                writeln!(out, "{at}\tfrom {topic} {partition}-{offset}\t{reason}\t{value}")?;
            }
            None => writeln!(out, "{at}\tfrom ?\tnot copied here by a consumer\t{value}")?,
        }
    }
    writeln!(out, "{} records in the dead-letter queue", records.len())
}

/// Appends the records to the notifications' topic, with their original keys. A record without an
/// id gets its original position as one, so that a second replay does not show it twice. Records
/// that no consumer copied are left out. Returns how many were appended.
pub async fn replay_records(
    log: &Log,
    names: &TopicNames,
    partitioner: Partitioner,
    partitions: u32,
    records: &[DlqRecord],
) -> Result<usize, ReplayError> {
    let writer = log.writer();
    let mut done = 0;
    for record in records {
        let Some(origin) = &record.origin else {
            let message = "not replayed: this record was not copied here by a consumer";
            tracing::warn!(dlq.position = %record.at, message);
            continue;
        };
        let place = format!("{}-{}", origin.partition, origin.offset);
        let key = origin.key.clone().unwrap_or_default();
        let mut headers = record.headers.clone();
        if !headers.iter().any(|(name, _)| *name == headers::CE_ID) {
            headers.push((headers::CE_ID, place.into_bytes().into()));
        }
        let replayed = NewRecord {
            partition: partitioner.partition_for(&key, partitions),
            key,
            value: record.value.clone(),
            headers,
        };
        let appended = async { writer.append(&names.notifications, replayed)?.await }.await;
        let Position { partition, offset, .. } =
            appended.map_err(|error| ReplayError { done, error })?;
        tracing::info!(dlq.position = %record.at, position = %Cursor::new(partition, offset), "replayed");
        done += 1;
    }
    Ok(done)
}

#[derive(Default)]
struct Found {
    records: Mutex<Vec<DlqRecord>>,
    /// Partitions that are read to their end.
    live: watch::Sender<HashSet<i32>>,
}

struct Collector(Arc<Found>);

impl PartitionHandler for Collector {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let origin = PoisonOrigin::from_copy(record);
        let own_headers = origin.as_ref().map_or(0, |origin| origin.own_headers);
        let known = |(name, value): &(&str, &[u8])| {
            Some((headers::find_name(name)?, value.to_vec().into()))
        };
        self.0.records.lock().push(DlqRecord {
            at: Cursor::new(record.partition, record.offset),
            origin,
            value: record.value.unwrap_or_default().to_vec(),
            headers: record.headers.iter().take(own_headers).filter_map(known).collect(),
        });
        RecordOutcome::Applied
    }

    fn on_live(&mut self, partition: i32) {
        self.0.live.send_modify(|live| _ = live.insert(partition));
    }

    fn on_revoked(&mut self, _: i32) {}
}

#[cfg(test)]
mod tests {
    use event_log::{Topic, embedded::Embedded, topic::Cleanup};

    use super::*;

    fn copy(partition: i32, offset: &'static str, value: &str) -> NewRecord {
        let headers = [
            ("dlq.topic", "notifications"),
            ("dlq.partition", "0"),
            ("dlq.offset", offset),
            ("dlq.reason", "it is poison"),
            ("dlq.group", "g"),
            ("dlq.time", "0"),
            ("dlq.key", "1"),
        ];
        NewRecord {
            partition,
            key: format!("notifications/0/{offset}").into_bytes(),
            value: value.as_bytes().to_vec(),
            headers: headers.map(|(name, text)| (name, text.as_bytes().into())).to_vec(),
        }
    }

    #[tokio::test]
    async fn a_record_that_was_copied_twice_is_listed_once_and_replayed_once_with_its_own_key() {
        const PARTITIONS: u32 = 8;
        let folder = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(&folder.path().join("log.db")).await.expect("the log opens");
        let log = Log::Embedded(log);
        let names = TopicNames::from_notifications("notifications");
        let topics = [&names.dlq, &names.notifications].map(|name| {
            let cleanup = Cleanup::After(Duration::from_secs(3600));
            Topic { name: name.clone(), partitions: PARTITIONS, replication: 1, cleanup }
        });
        log.ensure_topics(&topics).await.expect("the topics are there");
        for (offset, value) in [("5", "a"), ("6", "b"), ("5", "a"), ("6", "b"), ("5", "new")] {
            let ack = log.writer().append(&names.dlq, copy(0, offset, value)).expect("queued");
            ack.await.expect("acknowledged");
        }

        let records = read_records(&log, &names.dlq, PARTITIONS).await.expect("read");
        let mut list = Vec::new();
        write_list(&records, &mut list).expect("written");
        let expected = "0-0\tfrom notifications 0-5\tit is poison\ta\n\
                        0-1\tfrom notifications 0-6\tit is poison\tb\n\
                        0-4\tfrom notifications 0-5\tit is poison\tnew\n\
                        3 records in the dead-letter queue\n";
        assert_eq!(String::from_utf8(list).expect("text"), expected);

        let partitioner = Partitioner::default();
        let replayed = replay_records(&log, &names, partitioner, PARTITIONS, &records[..2]).await;
        assert_eq!(replayed.expect("replayed"), 2);
        let home = partitioner.partition_for(b"1", PARTITIONS);
        let ends = log.fetch_end_offsets(&names.notifications, &[home], READ_TIMEOUT).await;
        assert_eq!(ends.expect("the end"), [2]);
    }

    #[test]
    fn a_list_is_a_harmless_line_for_each_record_and_nothing_foreign_is_replayed() {
        let hostile =
            "\u{1b}]0;owned\u{7}a\n0-9\tfrom notifications 0-9\tforged\r\u{202e}x\u{2028}";
        let origin = PoisonOrigin {
            topic: hostile.into(),
            partition: 0,
            offset: 5,
            reason: hostile.repeat(100),
            key: None,
            own_headers: 0,
        };
        let record = |origin| DlqRecord {
            at: Cursor::new(0, 1),
            origin,
            value: [hostile.as_bytes(), b"\xff"].concat(),
            headers: Vec::new(),
        };
        let mut list = Vec::new();
        write_list(&[record(Some(origin)), record(None)], &mut list).expect("written");
        let list = String::from_utf8(list).expect("text");
        let lines: Vec<_> = list.lines().collect();
        assert_eq!(lines.len(), 3, "{list}");
        for line in &lines[..2] {
            assert_eq!(line.split('\t').count(), 4, "{line}");
            let is_plain =
                |c: char| c == '\t' || !c.is_control() && !"\u{202e}\u{2028}".contains(c);
            assert!(line.chars().all(is_plain) && line.chars().count() < 500, "{line:?}");
        }
        assert!(lines[1].contains("from ?\tnot copied here by a consumer"), "{list}");
    }
}
