//! The partition handler and the threads that drive it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{Record, RecordAnchor};

/// Applies the records of some partitions. The driver calls it from one thread, its own, so it
/// needs no lock to keep an order. It must not block.
///
/// For each partition the driver calls `on_assigned`, then `on_record` any number of times with
/// growing offsets, `on_live` once among them and `on_watermarks` at least once if the log answers,
/// then `on_revoked`. It may assign the same partition again later. After `on_reset` the next calls
/// for that partition are `on_revoked` and `on_assigned`.
pub trait PartitionHandler: Send + 'static {
    /// The topic's epoch: the same for as long as the topic exists, and another one for a topic that
    /// was deleted and created again. `None` if the log has no epochs or does not tell them. Called
    /// before any partition becomes live, and again when the epoch changes; after a change every
    /// partition is reset.
    fn on_topic_epoch(&mut self, epoch: Option<u32>) {
        let _ = epoch;
    }

    /// This reader owns the partition from now on. Its records follow from the returned start.
    /// After [`on_reset`](Self::on_reset) that must be [`StartAt::Beginning`].
    fn on_assigned(&mut self, partition: i32) -> StartAt;

    /// How much there is to read until the partition is live. Called a moment after the
    /// assignment, once the log has answered.
    fn on_watermarks(&mut self, partition: i32, watermarks: Watermarks);

    /// The next record.
    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome;

    /// The handler was given every record that the log held at the assignment.
    fn on_live(&mut self, partition: i32);

    /// This reader no longer owns the partition. No request may be answered from it once this has
    /// returned. Memory is to be freed on another thread.
    fn on_revoked(&mut self, partition: i32);

    /// The log contradicts what the handler holds of this partition: its start record is missing,
    /// or the log is another one now. `reason` is for people. `on_revoked` and `on_assigned`
    /// follow, and the partition is read from its beginning.
    fn on_reset(&mut self, partition: i32, reason: &str) {
        let _ = (partition, reason);
    }

    /// A partition that the handler itself has found to be invalid, for the driver to reset. The
    /// driver asks several times a second.
    fn take_invalidated(&mut self) -> Option<i32> {
        None
    }

    /// True if the driver has to tell when a partition is [behind](Self::on_behind) its log. The
    /// Kafka driver then asks the brokers for the ends of the partitions once a second.
    fn wants_behind(&self) -> bool {
        false
    }

    /// The partition is behind its log, for this time and cause; `None`: it follows its log again.
    /// It is called with each change. An assignment or a reset begins without it.
    fn on_behind(&mut self, partition: i32, behind: Option<&Behind>) {
        let _ = (partition, behind);
    }

    /// The log lost records below `next` before they were read. The handler was not given them, and
    /// never will be.
    fn on_lost_records(&mut self, partition: i32, next: i64) {
        let _ = (partition, next);
    }

    /// The handler may answer from memory until this instant, and not after it: by then another
    /// member may own the partitions. The driver calls this at least every 100 ms, also to shorten
    /// the lease. A paused process is not called, so its lease ends.
    fn renew_lease(&mut self, until: Instant) {
        let _ = until;
    }
}

/// How long a handler may answer after its reading thread last ran: a thread that is stuck applies
/// no records and no revocation.
pub(crate) const READING_LEASE_TTL: Duration = Duration::from_secs(5);

/// The place in a partition at which a handler begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// At the first record that the log still has.
    Beginning,
    /// After this record, which the handler holds from an earlier run. The driver verifies it
    /// first. It [resets](PartitionHandler::on_reset) the partition if the log does not have the
    /// record or has another one at its offset, or if the group's committed offset is not beyond it.
    After(RecordAnchor),
}

impl StartAt {
    /// After the anchor, or at the beginning without one.
    #[must_use]
    pub fn from_anchor(anchor: Option<RecordAnchor>) -> Self {
        anchor.map_or(Self::Beginning, Self::After)
    }

    pub(crate) fn anchor(self) -> Option<RecordAnchor> {
        match self {
            Self::Beginning => None,
            Self::After(anchor) => Some(anchor),
        }
    }
}

/// The handler's verdict on a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordOutcome {
    /// The handler decoded it.
    Applied,
    /// The handler can never decode it, for this reason (for people). A member of a group copies it
    /// to the dead-letter queue; a [`Follower`] skips it.
    Poison(String),
}

/// A partition that cannot follow its log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Behind {
    /// The last moment at which the reader is known to have had everything that the log held.
    pub since: SystemTime,
    /// For people, without a driver's own text.
    pub cause: String,
}

/// The offsets of a partition at its assignment: from `low` up to, not including, `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that the log still has.
    pub low: i64,
    /// One beyond the last offset.
    pub high: i64,
}

/// A running member of a group. It ends only when it is stopped or dropped; while the log is away,
/// it waits.
#[derive(Debug)]
pub struct Reader {
    thread: ReaderThread,
    status: Arc<ReaderStatus>,
}

impl Reader {
    pub(crate) fn spawn(
        name: &str,
        status: &Arc<ReaderStatus>,
        run: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Self {
        Self { thread: ReaderThread::spawn(name, run), status: Arc::clone(status) }
    }

    /// True while its thread runs. It should, until [`stop`](Self::stop).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.is_running()
    }

    /// How many records this member has copied to the dead-letter queue.
    #[must_use]
    pub fn dlq_copied(&self) -> u64 {
        self.status.dlq_copied.load(Ordering::Relaxed)
    }

    /// How many poison records found no room on their way to the dead-letter queue. The group's
    /// committed offset stays before the first of each partition, so the next replay copies them.
    #[must_use]
    pub fn dlq_skipped(&self) -> u64 {
        self.status.dlq_skipped.load(Ordering::Relaxed)
    }

    /// A handle to the group's committed offsets.
    #[must_use]
    pub fn committed_offsets(&self) -> CommittedOffsets {
        CommittedOffsets(Arc::clone(&self.status))
    }

    /// A problem that a person has to solve, such as a topic that was given more partitions.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.status.trouble.lock().clone()
    }

    /// Revokes everything, leaves the group and waits for the thread's end.
    pub async fn stop(self) {
        self.thread.stop().await;
    }
}

/// Reports of a reader's threads, for its handles.
#[derive(Debug, Default)]
pub(crate) struct ReaderStatus {
    pub(crate) dlq_copied: AtomicU64,
    pub(crate) dlq_skipped: AtomicU64,
    pub(crate) trouble: Mutex<Option<String>>,
    /// The group's committed offsets, by partition.
    pub(crate) committed: Mutex<HashMap<i32, i64>>,
}

impl ReaderStatus {
    /// Logs a trouble once.
    pub(crate) fn report_trouble(&self, topic: &str, trouble: String) {
        let mut reported = self.trouble.lock();
        if reported.as_ref() != Some(&trouble) {
            tracing::error!(kafka.topic = topic, "{trouble}");
            *reported = Some(trouble);
        }
    }
}

/// The committed offsets of a [`Reader`]'s group. A cheap handle, to be cloned.
#[derive(Debug, Clone)]
pub struct CommittedOffsets(Arc<ReaderStatus>);

impl CommittedOffsets {
    /// The offset that the group has committed: every record below it was applied, and every poison
    /// record below it copied. `None` until it is known.
    #[must_use]
    pub fn committed(&self, partition: i32) -> Option<i64> {
        self.0.committed.lock().get(&partition).copied()
    }
}

/// A running reader of the partitions that its caller assigns, outside any group. It ends only when
/// it is stopped or dropped; while the log is away, it waits.
#[derive(Debug)]
pub struct Follower {
    thread: ReaderThread,
    assigner: Assigner,
}

impl Follower {
    pub(crate) fn spawn(
        name: &str,
        run: impl FnOnce(&AtomicBool, UnboundedReceiver<FollowerCommand>) + Send + 'static,
    ) -> Self {
        let (sender, commands) = mpsc::unbounded_channel();
        Self {
            thread: ReaderThread::spawn(name, move |stop| run(stop, commands)),
            assigner: Assigner(sender),
        }
    }

    /// See [`Assigner::assign`].
    pub fn assign(&self, partition: i32) {
        self.assigner.assign(partition);
    }

    /// See [`Assigner::revoke`].
    pub fn revoke(&self, partition: i32) {
        self.assigner.revoke(partition);
    }

    /// A handle that assigns partitions to it.
    #[must_use]
    pub fn assigner(&self) -> Assigner {
        self.assigner.clone()
    }

    /// True while its thread runs. It should, until [`stop`](Self::stop).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.is_running()
    }

    /// Revokes everything and waits for the thread's end.
    pub async fn stop(self) {
        self.thread.stop().await;
    }
}

/// Assigns partitions to a [`Follower`]. A cheap handle, to be cloned. It never blocks, and has no
/// effect once the follower has ended.
#[derive(Debug, Clone)]
pub struct Assigner(UnboundedSender<FollowerCommand>);

impl Assigner {
    /// Starts reading the partition where the handler says. No effect while it is assigned.
    pub fn assign(&self, partition: i32) {
        let _ = self.0.send(FollowerCommand::Assign(partition));
    }

    /// Stops reading the partition.
    pub fn revoke(&self, partition: i32) {
        let _ = self.0.send(FollowerCommand::Revoke(partition));
    }
}

/// A command to a follower's thread; it obeys them in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FollowerCommand {
    Assign(i32),
    Revoke(i32),
}

/// A thread with a flag that asks it to stop. Dropping this sets the flag too.
#[derive(Debug)]
struct ReaderThread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl ReaderThread {
    fn spawn(name: &str, run: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&stop);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&flag));
        if let Err(error) = &handle {
            tracing::error!(%error, "cannot start a reader thread");
        }
        Self { stop, handle: handle.ok() }
    }

    fn is_running(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !handle.is_finished())
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.take() {
            // Joining blocks while the client leaves the group.
            let _ = tokio::task::spawn_blocking(move || handle.join()).await;
        }
    }
}

impl Drop for ReaderThread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
