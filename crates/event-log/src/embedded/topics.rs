//! The topics of the file, read once and kept in memory. The writer moves the ends of their
//! partitions and wakes the readers.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use parking_lot::{Mutex, RwLock};
use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::watch;

use crate::{LogUnreachable, Topic, TopicError, topic::Cleanup};

/// The low bits of a row's place hold the offset: enough for a million records a second for twelve
/// days, in each of eight million partitions.
const OFFSET_BITS: u32 = 40;

const MAX_PARTITIONS: u32 = 10_000;

/// The topics by name.
#[derive(Default)]
pub(super) struct Topics(RwLock<HashMap<String, Arc<TopicState>>>);

pub(super) struct TopicState {
    /// Tells this log from another one with the same topics.
    pub(super) epoch: u32,
    pub(super) partitions: Vec<Arc<EmbeddedPartition>>,
    /// Wakes the readers when the end of a partition has moved.
    pub(super) moved: Arc<watch::Sender<()>>,
    /// `None` until this process has ensured the topic.
    cleanup: Mutex<Option<Cleanup>>,
}

pub(super) struct EmbeddedPartition {
    pub(super) id: i64,
    pub(super) number: i32,
    /// The topic's.
    pub(super) epoch: u32,
    start: AtomicI64,
    end: AtomicI64,
    /// The same as the topic's.
    moved: Arc<watch::Sender<()>>,
}

impl EmbeddedPartition {
    /// The key of the row that holds this offset.
    pub(super) fn row_place(&self, offset: i64) -> i64 {
        (self.id << OFFSET_BITS) + offset
    }

    pub(super) fn offset_from_place(place: i64) -> i64 {
        place & ((1 << OFFSET_BITS) - 1)
    }

    /// Retention removed every offset below this one.
    pub(super) fn start_offset(&self) -> i64 {
        self.start.load(Ordering::Acquire)
    }

    /// One beyond the last durable offset.
    pub(super) fn end_offset(&self) -> i64 {
        self.end.load(Ordering::Acquire)
    }

    /// To be called once everything below `start` is deleted.
    pub(super) fn set_start_offset(&self, start: i64) {
        self.start.fetch_max(start, Ordering::AcqRel);
    }

    /// To be called once everything below `end` is durable;
    /// [`wake_readers`](Self::wake_readers) follows. An end never moves back, because offsets are
    /// never given twice.
    pub(super) fn set_end_offset(&self, end: i64) {
        self.end.fetch_max(end, Ordering::AcqRel);
    }

    pub(super) fn wake_readers(&self) {
        self.moved.send_replace(());
    }
}

impl TopicState {
    pub(super) fn find_partition(&self, number: i32) -> Option<Arc<EmbeddedPartition>> {
        usize::try_from(number).ok().and_then(|number| self.partitions.get(number)).cloned()
    }
}

impl Topics {
    pub(super) fn find_topic(&self, name: &str) -> Option<Arc<TopicState>> {
        self.0.read().get(name).cloned()
    }

    /// The partition, or the reason why it does not exist.
    pub(super) fn find_partition(
        &self,
        topic: &str,
        number: i32,
    ) -> Result<Arc<EmbeddedPartition>, String> {
        let known =
            self.find_topic(topic).ok_or_else(|| format!("topic {topic} does not exist"))?;
        known.find_partition(number).ok_or_else(|| {
            let count = known.partitions.len();
            format!("topic {topic} has {count} partitions and no partition {number}")
        })
    }

    /// The partitions of all topics that have a cleanup, with that cleanup.
    pub(super) fn list_cleanups(&self) -> Vec<(Arc<EmbeddedPartition>, Cleanup)> {
        let topics = self.0.read();
        let topics = topics.values().filter_map(|topic| Some((topic, (*topic.cleanup.lock())?)));
        topics
            .flat_map(|(topic, cleanup)| {
                topic.partitions.iter().map(move |p| (Arc::clone(p), cleanup))
            })
            .collect()
    }

    /// Reads the topics and the start and end of each partition from the file. Known partitions are
    /// moved forward to these.
    pub(super) async fn load_topics(&self, file: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let rows: Vec<(String, u32, i64, i32, i64, Option<i64>)> = sqlx::query_as(
            "SELECT topics.name, topics.epoch, partitions.id, partitions.number, start_offset,
                    (SELECT max(place) FROM records
                     WHERE place >= partitions.id << 40 AND place < (partitions.id + 1) << 40)
             FROM partitions JOIN topics ON topics.id = topic_id
             ORDER BY topics.id, partitions.number",
        )
        .fetch_all(file)
        .await?;
        let mut read: HashMap<String, TopicState> = HashMap::new();
        for (topic, epoch, id, number, start, last) in rows {
            let end = last
                .map_or(start, |last| start.max(EmbeddedPartition::offset_from_place(last) + 1));
            if let Ok(known) = self.find_partition(&topic, number) {
                known.set_start_offset(start);
                if end > known.end_offset() {
                    known.set_end_offset(end);
                    known.wake_readers();
                }
                continue;
            }
            let state = read.entry(topic).or_insert_with(|| TopicState {
                epoch,
                partitions: Vec::new(),
                moved: Arc::default(),
                cleanup: Mutex::new(None),
            });
            let (start, end) = (AtomicI64::new(start), AtomicI64::new(end));
            let moved = Arc::clone(&state.moved);
            let partition = EmbeddedPartition { id, number, epoch, start, end, moved };
            state.partitions.push(Arc::new(partition));
        }
        self.0.write().extend(read.into_iter().map(|(topic, state)| (topic, Arc::new(state))));
        Ok(())
    }

    /// Creates the topic, or checks the existing one.
    pub(super) async fn ensure_topic(
        &self,
        file: &mut SqliteConnection,
        topic: &Topic,
    ) -> Result<(), TopicError> {
        check_topic(topic)?;
        if self.find_topic(&topic.name).is_none() {
            create_topic(file, topic).await.map_err(|error| unreachable_error(&error))?;
            self.load_topics(file).await.map_err(|error| unreachable_error(&error))?;
        }
        let Some(known) = self.find_topic(&topic.name) else {
            return Err(unreachable_error(&sqlx::Error::RowNotFound));
        };
        topic.check_partition_count(known.partitions.len() as u32)?;
        *known.cleanup.lock() = Some(topic.cleanup);
        Ok(())
    }
}

fn unreachable_error(error: &sqlx::Error) -> TopicError {
    TopicError::Unreachable(LogUnreachable(error.to_string()))
}

/// Applies Kafka's rules, so that a topic of the embedded log is valid in Kafka too.
fn check_topic(topic: &Topic) -> Result<(), TopicError> {
    let refuse = |reason: &str| {
        Err(TopicError::Refused { topic: topic.name.clone(), reason: reason.to_owned() })
    };
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if !(1..=249).contains(&topic.name.len()) || !topic.name.bytes().all(allowed) {
        return refuse("a name has 1 to 249 of the characters a-z A-Z 0-9 . _ -");
    }
    if !(1..=MAX_PARTITIONS).contains(&topic.partitions) {
        return refuse("an embedded topic has 1 to 10000 partitions");
    }
    Ok(())
}

async fn create_topic(file: &mut SqliteConnection, topic: &Topic) -> Result<(), sqlx::Error> {
    let mut transaction = file.begin().await?;
    let id: i64 = sqlx::query_scalar(
        "INSERT INTO topics (name, epoch) VALUES (?, random() & 0xffffffff) RETURNING id",
    )
    .bind(&topic.name)
    .fetch_one(&mut *transaction)
    .await?;
    for number in 0..topic.partitions {
        sqlx::query("INSERT INTO partitions (topic_id, number) VALUES (?, ?)")
            .bind(id)
            .bind(number)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await
}
