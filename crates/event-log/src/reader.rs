//! The fold and the threads that drive it.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use crate::metrics::DEAD_LETTERS;
use metrics::counter;
use parking_lot::Mutex;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

use crate::{Record, RecordAnchor};

/// What becomes of the records of some partitions. Called by one thread, the driver's own, so
/// that nothing here needs a lock for order's sake; none of it may block.
///
/// For each partition the calls come in this order:
/// `assigned`, then any number of `record` (offsets grow) with one `extent` and one `live`
/// somewhere among them, then `revoked`. The same partition may be assigned again later. Between
/// `void` and `revoked` there is nothing more of that partition.
pub trait PartitionHandler: Send + 'static {
    /// The partition is ours from now on. Its records follow from where this says. After a
    /// [`void`](Self::void) it must say [`Start::Beginning`].
    fn on_assigned(&mut self, partition: i32) -> StartAt;

    /// How much there is to read until the partition is live. Known a moment after the
    /// assignment, and told again should it turn out otherwise.
    fn on_watermarks(&mut self, partition: i32, extent: Watermarks);

    /// The next record, and what it was.
    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome;

    /// Every record that was there at the assignment has been given to [`record`](Self::record).
    fn on_live(&mut self, partition: i32);

    /// The partition is ours no longer: whoever asks must not be answered from it any more when
    /// this returns. Memory is to be freed elsewhere.
    fn on_revoked(&mut self, partition: i32);

    /// What the fold has of this partition is not what the log holds, for this reason (for
    /// people): it began after a record that is not there, or the log is another one now. Followed
    /// by `revoked` and `assigned`, for a start from the beginning.
    fn on_reset(&mut self, partition: i32, why: &str) {
        let _ = (partition, why);
    }

    /// A partition of which the fold itself has found out, elsewhere, that what it has of it is
    /// void: it is started over. Asked several times a second.
    fn take_invalidated(&mut self) -> Option<i32> {
        None
    }

    /// The assignment still holds, as far as can be known. Said at least every 100 ms or so, busy
    /// or not; a fold that has not heard it for longer, because its process was stopped, must not
    /// answer from what it remembers.
    fn renew_lease(&mut self) {}
}

/// Where the records of a partition begin for a fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the first that the log still has.
    Beginning,
    /// After this one, which the fold has from an earlier time. It is looked for first: where the
    /// log does not have it, or something else in its place, or where the group has not been told
    /// of all records up to it, the partition is [`void`](Fold::void) and starts over.
    After(RecordAnchor),
}

impl StartAt {
    /// After this one, if there is one.
    #[must_use]
    pub fn from_anchor(mark: Option<RecordAnchor>) -> Self {
        mark.map_or(Self::Beginning, Self::After)
    }

    pub(crate) fn anchor(self) -> Option<RecordAnchor> {
        match self {
            Self::Beginning => None,
            Self::After(mark) => Some(mark),
        }
    }
}

/// What a fold says of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RecordOutcome {
    /// It was understood.
    Applied,
    /// It never will be, for this reason (for people). A member of a group sets it aside, in the
    /// dead-letter topic; a [`Follower`] only passes it over.
    Poison(String),
}

/// The offsets of a partition at its assignment: those from `low` up to, not including, `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Watermarks {
    /// The first offset that the log still has.
    pub low: i64,
    /// One beyond the last.
    pub high: i64,
}

/// A running member of a group. It ends when it is told to, when it is dropped, and not before: a
/// log that is away is waited for.
#[derive(Debug)]
pub struct Reader {
    thread: Thread,
    signs: Arc<ReaderStatus>,
}

impl Reader {
    pub(crate) fn spawn(
        name: &str,
        signs: &Arc<ReaderStatus>,
        run: impl FnOnce(&AtomicBool) + Send + 'static,
    ) -> Self {
        Self { thread: Thread::spawn(name, run), signs: Arc::clone(signs) }
    }

    /// Whether its thread runs. It should, until [`stop`](Self::stop).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.is_running()
    }

    /// How many records this member has copied to the dead-letter topic.
    #[must_use]
    pub fn dlq_copied(&self) -> u64 {
        self.signs.quarantined.load(Ordering::Relaxed)
    }

    /// How many poison records found no room on their way to the dead-letter topic. The group's
    /// progress stays before the first of each partition, so the next replay copies them.
    #[must_use]
    pub fn dlq_skipped(&self) -> u64 {
        self.signs.unquarantined.load(Ordering::Relaxed)
    }

    /// How far its group has been told, to be asked from elsewhere.
    #[must_use]
    pub fn committed_offsets(&self) -> CommittedOffsets {
        CommittedOffsets(Arc::clone(&self.signs))
    }

    /// What a person has to mend, such as a topic that was given more partitions.
    #[must_use]
    pub fn trouble(&self) -> Option<String> {
        self.signs.trouble.lock().clone()
    }

    /// Revokes everything, leaves the group and waits for the thread's end.
    pub async fn stop(self) {
        self.thread.stop().await;
    }
}

/// What a reader wants known about itself.
#[derive(Debug, Default)]
pub(crate) struct ReaderStatus {
    pub(crate) quarantined: AtomicU64,
    pub(crate) unquarantined: AtomicU64,
    pub(crate) trouble: Mutex<Option<String>>,
    /// How far the group is known to be, by partition.
    pub(crate) settled: Mutex<HashMap<i32, i64>>,
}

/// Knows how far a [`Reader`]'s group is. A cheap handle, to be cloned.
#[derive(Debug, Clone)]
pub struct CommittedOffsets(Arc<ReaderStatus>);

impl CommittedOffsets {
    /// Up to which offset of this partition, not including it, the group has been told that
    /// everything is folded and all poison copied; none while that is not known.
    #[must_use]
    pub fn committed(&self, partition: i32) -> Option<i64> {
        self.0.settled.lock().get(&partition).copied()
    }
}

impl ReaderStatus {
    /// So many more records were copied to the dead-letter topic.
    pub(crate) fn set_aside(&self, records: usize) {
        let records = records as u64;
        self.quarantined.fetch_add(records, Ordering::Relaxed);
        counter!(DEAD_LETTERS).increment(records);
    }
}

/// A running reader of partitions that it is told, in no group. It ends when it is told to, when
/// it is dropped, and not before: a log that is away is waited for.
#[derive(Debug)]
pub struct Follower {
    thread: Thread,
    assigner: Assigner,
}

impl Follower {
    pub(crate) fn spawn(
        name: &str,
        run: impl FnOnce(&AtomicBool, UnboundedReceiver<Command>) + Send + 'static,
    ) -> Self {
        let (commands, told) = mpsc::unbounded_channel();
        Self {
            thread: Thread::spawn(name, move |stop| run(stop, told)),
            assigner: Assigner(commands),
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

    /// A handle that tells it what to read.
    #[must_use]
    pub fn assigner(&self) -> Assigner {
        self.assigner.clone()
    }

    /// Whether its thread runs. It should, until [`stop`](Self::stop).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.is_running()
    }

    /// Revokes everything and waits for the thread's end.
    pub async fn stop(self) {
        self.thread.stop().await;
    }
}

/// Tells a [`Follower`] what to read. A cheap handle, to be cloned; it never blocks, and does
/// nothing once the follower has ended.
#[derive(Debug, Clone)]
pub struct Assigner(UnboundedSender<Command>);

impl Assigner {
    /// Has the partition read, from where the fold says; nothing new if it is being read already.
    pub fn assign(&self, partition: i32) {
        let _ = self.0.send(Command::Assign(partition));
    }

    /// Has the partition not read any longer.
    pub fn revoke(&self, partition: i32) {
        let _ = self.0.send(Command::Revoke(partition));
    }
}

/// What a follower is told, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Command {
    Assign(i32),
    Revoke(i32),
}

/// A thread that is told to stop, and told so too when this is dropped.
#[derive(Debug)]
struct Thread {
    stop: Arc<AtomicBool>,
    handle: Option<JoinHandle<()>>,
}

impl Thread {
    fn spawn(name: &str, run: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let handle = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&seen));
        if let Err(error) = &handle {
            tracing::error!(%error, "no thread for the reader of the log");
        }
        Self { stop, handle: handle.ok() }
    }

    fn is_running(&self) -> bool {
        self.handle.as_ref().is_some_and(|handle| !handle.is_finished())
    }

    async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(handle) = self.handle.take() {
            // Joining blocks for as long as the broker takes to answer the goodbye.
            let _ = tokio::task::spawn_blocking(move || handle.join()).await;
        }
    }
}

impl Drop for Thread {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
