//! The embedded driver: the log in one SQLite file, for one process.
//!
//! It owns the file, the lock that keeps other processes out, one thread that writes and one for
//! each reader. It offers no more than the seam: several members of a group, transactions and
//! several processes need Kafka.
//!
//! Invariants, and the modules that keep them:
//! - An acknowledged record is on the disk: `insert` commits with `synchronous=FULL` before
//!   `writer` answers.
//! - Offsets of a partition are 0, 1, 2 and so on, in the order of the appends. `retention` removes
//!   records and never reuses their offsets: the file's `start_offset` keeps them.
//! - A reader sees every committed record in order, at once: the writer wakes it through `topics`,
//!   it reads a snapshot of its own in `driver`, and neither blocks the other.
//! - A group's committed offsets are in the file: `progress`.
//! - Damage of the write-ahead log that SQLite would pass over is reported: `wal`.
//! - Memory is bounded: `queue` by records and bytes, a reader by its row buffer.
//!
//! The file needs a local disk: SQLite's write-ahead log does not work over a network.

mod open;
mod wal;
mod schema;
mod topics;
mod queue;
mod writer;
mod headers;
mod insert;
mod retention;
mod progress;
mod driver;

use std::{
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{mpsc::UnboundedReceiver, oneshot},
    time::timeout,
};

pub use open::OpenError;
pub use queue::{EmbeddedAck, EmbeddedWriter};

use crate::{
    LogUnreachable, PartitionHandler, Topic, TopicError,
    assigned_partitions::AssignedPartitions,
    commits::start_workers,
    dlq::DlqWriter,
    offset_tracker::OffsetTracker,
    reader::{Follower, FollowerCommand, Reader, ReaderStatus},
};
use driver::EmbeddedDriver;
use open::FileLock;
use progress::FileOffsets;
use queue::WriterRequest;
use topics::{TopicState, Topics};
use writer::WriterThread;

/// How often a reader looks for a topic that does not exist.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a stop of a group member waits for the last copies and commits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// A log in one SQLite file. A cheap handle, to be cloned; the file is open until
/// [`close`](Self::close), or until the last handle, writer and reader is dropped.
#[derive(Clone)]
pub struct Embedded(Arc<SharedLog>);

struct SharedLog {
    path: PathBuf,
    topics: Arc<Topics>,
    writer: EmbeddedWriter,
    /// The writer and each reader hold it.
    lock: Weak<FileLock>,
}

impl Embedded {
    /// Opens the log, or creates it and its folder.
    pub async fn open(path: &Path) -> Result<Self, OpenError> {
        let lock = Arc::new(FileLock::acquire(path)?);
        wal::report_damage(path);
        let failed = |error| OpenError::from_sqlite(path, error);
        let mut file = schema::connect_to_write(path).await.map_err(failed)?;
        schema::migrate_file(path, &mut file).await?;
        let topics = Arc::new(Topics::default());
        topics.load_topics(&mut file).await.map_err(failed)?;
        let (writer, requests) = EmbeddedWriter::new(Arc::clone(&topics));
        let held = Arc::downgrade(&lock);
        WriterThread::new(path.to_owned(), Arc::clone(&topics), file)
            .spawn_thread(requests, lock)
            .map_err(|error| OpenError::Failed {
                path: path.to_owned(),
                reason: error.to_string(),
            })?;
        Ok(Self(Arc::new(SharedLog { path: path.to_owned(), topics, writer, lock: held })))
    }

    /// Creates the topics that are missing, checks those that exist, and starts their cleanup: now,
    /// and once an hour.
    pub async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), TopicError> {
        let (answer, answered) = oneshot::channel();
        let request = WriterRequest::Ensure(topics.to_vec(), answer);
        self.0.writer.send_request(request).map_err(LogUnreachable)?;
        answered.await.map_err(|_| closed_error())?
    }

    /// A handle to append with.
    #[must_use]
    pub fn writer(&self) -> EmbeddedWriter {
        self.0.writer.clone()
    }

    /// Reads all partitions of the topic, each from where the handler says, on a thread of its own.
    /// A missing topic is waited for. This reader is the group's only member; poison records are
    /// copied to the topic `dlq`, see [`Log::join_group`](crate::Log::join_group).
    pub fn join_group<H: PartitionHandler>(
        &self,
        topic: &str,
        group: &str,
        dlq: Option<&str>,
        handler: H,
    ) -> Reader {
        let status = Arc::new(ReaderStatus::default());
        let tracker = OffsetTracker::new(topic, group, dlq.is_some(), Arc::clone(&status));
        let tracker = Arc::new(tracker);
        let offsets = FileOffsets {
            group: group.to_owned(),
            topic: topic.to_owned(),
            topics: Arc::clone(&self.0.topics),
            writer: self.writer(),
        };
        let dlq = dlq.map(|topic| DlqWriter::new(self.writer(), topic));
        let source = self.topic_source(topic);
        Reader::spawn("embedded-reader", &status, move |stop| {
            if let Err(error) = start_workers(&tracker, offsets, dlq) {
                tracing::error!(%error, "cannot start the threads that commit offsets and copy poison records");
            }
            source.run_driver(handler, Some(Arc::clone(&tracker)), None, stop);
            tracker.close(CLOSE_TIMEOUT);
        })
    }

    /// Reads those partitions of the topic that the follower is assigned, on a thread of its own. A
    /// missing topic is waited for.
    pub fn follow_topic<H: PartitionHandler>(&self, topic: &str, handler: H) -> Follower {
        let source = self.topic_source(topic);
        Follower::spawn("embedded-follower", move |stop, commands| {
            source.run_driver(handler, None, Some(commands), stop);
        })
    }

    pub(crate) fn fetch_end_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
    ) -> Result<Vec<i64>, LogUnreachable> {
        let topics = &self.0.topics;
        let ends =
            partitions.iter().map(|number| Ok(topics.find_partition(topic, *number)?.end_offset()));
        ends.collect::<Result<_, _>>().map_err(LogUnreachable)
    }

    fn topic_source(&self, topic: &str) -> TopicSource {
        let SharedLog { path, topics, lock, .. } = &*self.0;
        let (path, topics, topic) = (path.clone(), Arc::clone(topics), topic.to_owned());
        TopicSource { path, topics, lock: lock.upgrade(), topic }
    }

    /// Checks that the file answers within `deadline`. While appends fail, the check is a write.
    pub async fn ping(&self, deadline: Duration) -> Result<(), LogUnreachable> {
        let (answer, answered) = oneshot::channel();
        self.0.writer.send_request(WriterRequest::Ping(answer)).map_err(LogUnreachable)?;
        match timeout(deadline, answered).await {
            Ok(Ok(answer)) => answer.map_err(LogUnreachable),
            Ok(Err(_)) => Err(closed_error()),
            Err(_) => Err(LogUnreachable("the log's disk does not answer in time".into())),
        }
    }

    /// Writes the queued records, moves the write-ahead log into the file and closes it. Stop the
    /// readers first: the file is in use while one runs. Later appends are rejected.
    pub async fn close(&self) {
        let (done, closed) = oneshot::channel();
        if self.0.writer.send_request(WriterRequest::Close(done)).is_ok() {
            let _ = closed.await;
        }
    }
}

fn closed_error() -> LogUnreachable {
    LogUnreachable("the log was closed".into())
}

/// The topic to read, and the file that holds it.
struct TopicSource {
    path: PathBuf,
    topics: Arc<Topics>,
    /// Keeps the file locked while the reader runs.
    lock: Option<Arc<FileLock>>,
    topic: String,
}

impl TopicSource {
    /// A group member has a tracker and reads every partition. A follower has commands, which assign
    /// partitions to it.
    fn run_driver<H: PartitionHandler>(
        self,
        handler: H,
        tracker: Option<Arc<OffsetTracker>>,
        commands: Option<UnboundedReceiver<FollowerCommand>>,
        stop: &AtomicBool,
    ) {
        // A runtime of its own: the handler keeps the thread busy, and other tasks must not wait.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = await_topic(&self.topics, &self.topic, stop).await {
                    let partitions = AssignedPartitions::new(&self.topic, handler, tracker);
                    EmbeddedDriver::new(self.path, state, partitions, commands, stop).run().await;
                }
            }),
            Err(error) => tracing::error!(%error, "cannot start a runtime for a reader"),
        }
        // Only now may another process open the file.
        drop(self.lock);
    }
}

/// Waits until the topic exists. `None` if the reader is stopped before.
async fn await_topic(topics: &Topics, name: &str, stop: &AtomicBool) -> Option<Arc<TopicState>> {
    let mut logged = false;
    while !stop.load(Ordering::Acquire) {
        if let Some(topic) = topics.find_topic(name) {
            return Some(topic);
        }
        if !logged {
            tracing::warn!(log.topic = name, "the topic does not exist; waiting for it");
            logged = true;
        }
        tokio::time::sleep(TOPIC_CHECK_INTERVAL).await;
    }
    None
}
