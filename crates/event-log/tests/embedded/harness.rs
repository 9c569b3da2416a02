//! A folder, a handler that records its calls, and waiting for a condition.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::{
    Behind, NewRecord, PartitionHandler, Position, Reader, Record, RecordOutcome, StartAt, Topic,
    Watermarks,
    embedded::{Embedded, EmbeddedWriter},
    topic::Cleanup,
};
use parking_lot::Mutex;
use sqlx::{ConnectOptions as _, SqliteConnection, sqlite::SqliteConnectOptions};

/// Longer than anything here takes, on a busy machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

pub(crate) const TOPIC: &str = "notifications";
pub(crate) const GROUP: &str = "notifications-group";
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
        // In a folder that does not exist yet, nor the one above it.
        self.folder.path().join("data").join("here").join("log.db")
    }

    /// Opens the log with one topic.
    pub(crate) async fn open(&self, partitions: u32, cleanup: Cleanup) -> Embedded {
        open(&self.path(), partitions, cleanup).await
    }

    /// Does something to the file behind the log's back.
    pub(crate) async fn shell(&self, sql: &'static str) {
        let mut file = self.raw().await;
        sqlx::raw_sql(sql).execute(&mut file).await.expect(sql);
        sqlx::Connection::close(file).await.expect("closed");
    }

    /// A connection to the file behind the log's back.
    pub(crate) async fn raw(&self) -> SqliteConnection {
        SqliteConnectOptions::new().filename(self.path()).connect().await.expect("a connection")
    }
}

pub(crate) async fn open(path: &Path, partitions: u32, cleanup: Cleanup) -> Embedded {
    let log = Embedded::open(path).await.expect("the log opens");
    log.ensure_topics(&[topic(partitions, cleanup)]).await.expect("the topic is there");
    log
}

/// Reads the topic's every partition.
pub(crate) fn join(log: &Embedded, handler: impl PartitionHandler) -> Reader {
    log.join_group(TOPIC, GROUP, None, handler)
}

pub(crate) fn topic(partitions: u32, cleanup: Cleanup) -> Topic {
    Topic { name: TOPIC.to_owned(), partitions, replication: 1, cleanup }
}

pub(crate) fn record(partition: i32, key: &str, value: &str) -> NewRecord {
    NewRecord { partition, key: key.into(), value: value.into(), headers: Vec::new() }
}

/// Appends and waits for the acknowledgement.
pub(crate) async fn append(writer: &EmbeddedWriter, record: NewRecord) -> Position {
    writer.append(TOPIC, record).expect("queued").await.expect("acknowledged")
}

/// Appends, and does not wait.
pub(crate) fn push(writer: &EmbeddedWriter, record: NewRecord) {
    drop(writer.append(TOPIC, record).expect("queued"));
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

/// A call of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Assigned(i32),
    Watermarks(i32, Watermarks),
    Record(Seen),
    Live(i32),
    Revoked(i32),
    /// The cause; `None`: it follows its log again.
    Behind(i32, Option<String>),
    RenewLease,
}

/// A handler that records its calls, in order.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<Call>>>);

impl Memory {
    /// Without the renewals of the lease.
    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().iter().filter(|call| **call != Call::RenewLease).cloned().collect()
    }

    pub(crate) fn has(&self, wanted: &Call) -> bool {
        self.0.lock().contains(wanted)
    }

    pub(crate) fn renewals(&self) -> usize {
        self.0.lock().iter().filter(|call| **call == Call::RenewLease).count()
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().iter().filter(|call| matches!(call, Call::Record(_))).count()
    }

    pub(crate) fn records(&self) -> Vec<Seen> {
        let record = |call| if let Call::Record(seen) = call { Some(seen) } else { None };
        self.calls().into_iter().filter_map(record).collect()
    }

    /// What was read of a partition: offsets and values, in order.
    pub(crate) fn of(&self, partition: i32) -> Vec<(i64, String)> {
        let records = self.records().into_iter().filter(|seen| seen.partition == partition);
        records.map(|seen| (seen.offset, seen.value)).collect()
    }
}

impl PartitionHandler for Memory {
    fn on_assigned(&mut self, partition: i32) -> StartAt {
        self.0.lock().push(Call::Assigned(partition));
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, partition: i32, watermarks: Watermarks) {
        self.0.lock().push(Call::Watermarks(partition, watermarks));
    }

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let seen = Seen {
            partition: record.partition,
            offset: record.offset,
            timestamp_ms: record.timestamp_ms,
            key: record.key.map_or_else(String::new, text),
            value: record.value.map_or_else(String::new, text),
            headers: record
                .headers
                .iter()
                .map(|(name, value)| ((*name).to_owned(), value.to_vec()))
                .collect(),
        };
        let poison = seen.value.contains("poison");
        self.0.lock().push(Call::Record(seen));
        if poison { RecordOutcome::Poison("it is poison".into()) } else { RecordOutcome::Applied }
    }

    fn on_live(&mut self, partition: i32) {
        self.0.lock().push(Call::Live(partition));
    }

    fn on_revoked(&mut self, partition: i32) {
        self.0.lock().push(Call::Revoked(partition));
    }

    fn on_behind(&mut self, partition: i32, behind: Option<&Behind>) {
        self.0.lock().push(Call::Behind(partition, behind.map(|behind| behind.cause.clone())));
    }

    fn renew_lease(&mut self, _: Instant) {
        self.0.lock().push(Call::RenewLease);
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
