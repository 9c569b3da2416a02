//! A folder, a fold that remembers what it was told, and waiting for a condition.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use notification_log::{
    Extent, Fold, NewRecord, Record, Topic, embedded::Embedded, topic::Cleanup,
};
use parking_lot::Mutex;

/// Longer than anything here takes, on a busy machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const TOPIC: &str = "notifications";
pub(crate) const FOREVER: Cleanup = Cleanup::After(Duration::from_secs(30 * 24 * 3600));

/// A folder of its own for each test, and the log in it.
pub(crate) struct World {
    folder: tempfile::TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().expect("a folder") }
    }

    pub(crate) fn path(&self) -> PathBuf {
        // One that does not exist yet, two levels deep.
        self.folder.path().join("data").join("here").join("log.db")
    }

    /// Opens the log with one topic.
    pub(crate) async fn open(&self, partitions: u32, cleanup: Cleanup) -> Embedded {
        open(&self.path(), partitions, cleanup).await
    }
}

pub(crate) async fn open(path: &Path, partitions: u32, cleanup: Cleanup) -> Embedded {
    let log = Embedded::open(path).await.expect("the log opens");
    log.ensure_topics(&[topic(partitions, cleanup)]).await.expect("the topic is there");
    log
}

pub(crate) fn topic(partitions: u32, cleanup: Cleanup) -> Topic {
    Topic { name: TOPIC.to_owned(), partitions, replication: 1, cleanup }
}

pub(crate) fn record(partition: i32, key: &str, value: &str) -> NewRecord {
    NewRecord { partition, key: key.into(), value: value.into(), headers: Vec::new() }
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) timestamp_ms: i64,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

/// What a fold was told, in this order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Told {
    Assigned(i32),
    Extent(i32, Extent),
    Record(Seen),
    Live(i32),
    Revoked(i32),
    Idle,
}

/// A fold that remembers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<Told>>>);

impl Memory {
    pub(crate) fn told(&self) -> Vec<Told> {
        self.0.lock().clone()
    }

    pub(crate) fn records(&self) -> Vec<Seen> {
        let told = self.0.lock();
        let records = told.iter().filter_map(|told| match told {
            Told::Record(seen) => Some(seen.clone()),
            _ => None,
        });
        records.collect()
    }

    /// The values of a partition, in order.
    pub(crate) fn values(&self, partition: i32) -> Vec<String> {
        let records = self.records();
        records.into_iter().filter(|seen| seen.partition == partition).map(|seen| seen.value).collect()
    }

    pub(crate) fn count(&self, wanted: impl Fn(&Told) -> bool) -> usize {
        self.0.lock().iter().filter(|told| wanted(told)).count()
    }
}

impl Fold for Memory {
    fn assigned(&mut self, partition: i32) {
        self.0.lock().push(Told::Assigned(partition));
    }

    fn extent(&mut self, partition: i32, extent: Extent) {
        self.0.lock().push(Told::Extent(partition, extent));
    }

    fn record(&mut self, record: &Record<'_>) {
        let text = |bytes: Option<&[u8]>| String::from_utf8_lossy(bytes.unwrap_or(b"-")).into_owned();
        self.0.lock().push(Told::Record(Seen {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: text(record.key),
            value: text(record.value),
            headers: record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect(),
        }));
    }

    fn live(&mut self, partition: i32) {
        self.0.lock().push(Told::Live(partition));
    }

    fn revoked(&mut self, partition: i32) {
        self.0.lock().push(Told::Revoked(partition));
    }

    fn idle(&mut self) {
        self.0.lock().push(Told::Idle);
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
