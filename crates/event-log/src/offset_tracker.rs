//! Tracks how far each assigned partition is applied and which poison records wait to be copied.
//!
//! The reading thread reports; the committing thread (`commits`), the thread that renews the member's
//! lease (`kafka::membership`) and the thread of the dead-letter queue (`dlq`) ask what to do next and
//! report the result. It owns the bounded backlog and never does I/O; its rule
//! for committed offsets is in `partition_offsets`.

use std::{
    collections::{HashMap, HashSet},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use metrics::counter;
use parking_lot::{Condvar, Mutex};

use crate::{
    Record,
    metrics::DEAD_LETTERS,
    partition_offsets::{AssignmentEpoch, PartitionOffsets, PendingCopies},
    poison::PoisonRecord,
    reader::ReaderStatus,
};

/// Bounds of the backlog of poison records.
const MAX_BACKLOG_RECORDS: usize = 10_000;
const MAX_BACKLOG_BYTES: usize = 32 << 20;
/// How many copies of one partition are under way at most.
const MAX_COPIES: usize = 100;
/// How long the reading thread waits for room in a full backlog: well below Kafka's
/// `max.poll.interval.ms`, 60 s.
const BACKLOG_TIMEOUT: Duration = Duration::from_secs(4);
/// How long a revocation waits for a commit that is under way, so that it cannot arrive after a
/// commit of the next owner.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failure; it doubles up to the second.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3);

/// Shared by the threads of one group member.
pub(crate) struct OffsetTracker {
    topic: String,
    group: String,
    /// The group has a dead-letter queue.
    has_dlq: bool,
    status: Arc<ReaderStatus>,
    state: Mutex<TrackerState>,
    changed: Condvar,
}

#[derive(Default)]
struct TrackerState {
    partitions: HashMap<i32, PartitionOffsets>,
    backlog_records: usize,
    backlog_bytes: usize,
    /// A wait for room has timed out. Until there is room again, the reading thread does not wait.
    overflowing: bool,
    /// The partitions of the commits that are under way. No partition is in two of them, so that
    /// the later offset is never overwritten with the earlier one.
    committing: HashSet<i32>,
    closing: bool,
    running: HashSet<Worker>,
}

/// Offsets to commit.
pub(crate) type CommitBatch = Vec<(AssignmentEpoch, i64)>;
/// Poison records to copy; those of one partition in the order of their offsets.
pub(crate) type CopyBatch = Vec<(AssignmentEpoch, Arc<PoisonRecord>)>;

/// The committing thread's next task.
pub(crate) enum CommitTask {
    /// Ask the log for the committed offsets of these assignments.
    FetchCommitted(Vec<AssignmentEpoch>),
    /// Commit; [`OffsetTracker::finish_commit`] must follow.
    Commit(CommitBatch),
}

/// The threads that work for a tracker.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Worker {
    Committer,
    Lease,
    Dlq,
}

impl TrackerState {
    fn assigned(&mut self, assignment: AssignmentEpoch) -> Option<&mut PartitionOffsets> {
        let partition = self.partitions.get_mut(&assignment.partition);
        partition.filter(|offsets| offsets.assignment == assignment)
    }

    fn is_full_for(&self, bytes: usize) -> bool {
        self.backlog_records >= MAX_BACKLOG_RECORDS
            || (self.backlog_records > 0 && self.backlog_bytes + bytes > MAX_BACKLOG_BYTES)
    }

    fn shrink_backlog(&mut self, removed: &PendingCopies) {
        self.backlog_records -= removed.len();
        self.backlog_bytes -= removed.values().map(|poison| poison.size_bytes()).sum::<usize>();
    }
}

impl OffsetTracker {
    pub(crate) fn new(topic: &str, group: &str, has_dlq: bool, status: Arc<ReaderStatus>) -> Self {
        let (topic, group) = (topic.to_owned(), group.to_owned());
        let (state, changed) = (Mutex::default(), Condvar::new());
        Self { topic, group, has_dlq, status, state, changed }
    }

    // Called by the reading thread.

    /// The partition is read from the offset `start`, or from its beginning.
    pub(crate) fn begin_assignment(&self, assignment: AssignmentEpoch, start: Option<i64>) {
        self.status.committed.lock().remove(&assignment.partition);
        let mut state = self.state.lock();
        let offsets = PartitionOffsets::new(assignment, start);
        if let Some(replaced) = state.partitions.insert(assignment.partition, offsets) {
            state.shrink_backlog(&replaced.poison);
        }
        self.changed.notify_all();
    }

    /// Forgets the partition: its next owner copies the poison records that are left. Returns the
    /// offset that the caller should still commit; `None` if there is none, or if an earlier commit
    /// did not end in time.
    pub(crate) fn end_assignment(&self, partition: i32, next: Option<i64>) -> Option<i64> {
        let mut state = self.state.lock();
        let mut offsets = state.partitions.remove(&partition)?;
        state.shrink_backlog(&offsets.poison);
        self.changed.notify_all();
        let is_committing = |state: &mut TrackerState| state.committing.contains(&partition);
        if self.changed.wait_while_for(&mut state, is_committing, COMMIT_TIMEOUT).timed_out() {
            return None;
        }
        if let Some(next) = next {
            offsets.set_next(next);
        }
        offsets.commit_position()
    }

    /// Reports one above the last applied offset of each partition, to be committed soon.
    pub(crate) fn record_progress(&self, partitions: impl Iterator<Item = (i32, i64)>) {
        let mut state = self.state.lock();
        for (partition, next) in partitions {
            if let Some(offsets) = state.partitions.get_mut(&partition) {
                offsets.set_next(next);
            }
        }
        self.changed.notify_all();
    }

    /// A partition that began above the committed offset and must be reset, if there is one.
    pub(crate) fn next_behind(&self) -> Option<i32> {
        let state = self.state.lock();
        state.partitions.iter().find(|(_, offsets)| offsets.behind).map(|(number, _)| *number)
    }

    /// Queues the copy of a poison record, unless it is known to be copied already. Waits up to
    /// [`BACKLOG_TIMEOUT`] if the backlog is full.
    pub(crate) fn add_poison(&self, record: &Record<'_>, reason: &str) {
        let (partition, offset) = (record.partition, record.offset);
        let mut state = self.state.lock();
        if !self.has_dlq || !state.partitions.get(&partition).is_some_and(|p| p.wants_copy(offset))
        {
            return;
        }
        let poison = PoisonRecord::new(record, &self.topic, &self.group, reason);
        let bytes = poison.size_bytes();
        let must_wait = |state: &mut TrackerState| {
            let wants = |p: &PartitionOffsets| p.skipped.is_none() && p.wants_copy(offset);
            let full = state.is_full_for(bytes) && !state.overflowing;
            full && state.partitions.get(&partition).is_some_and(wants)
        };
        let waited = self.changed.wait_while_for(&mut state, must_wait, BACKLOG_TIMEOUT);
        let full = state.is_full_for(bytes);
        state.overflowing |= waited.timed_out() && full;
        let Some(offsets) = state.partitions.get_mut(&partition) else { return };
        if !offsets.wants_copy(offset) {
            return;
        }
        if !full && offsets.skipped.is_none() {
            offsets.poison.insert(offset, Arc::new(poison));
            state.backlog_records += 1;
            state.backlog_bytes += bytes;
            state.overflowing = false;
            self.changed.notify_all();
            return;
        }
        self.status.dlq_skipped.fetch_add(1, Ordering::Relaxed);
        if offsets.skipped.is_none() {
            offsets.skipped = Some(offset);
            tracing::error!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                kafka.offset = offset,
                "the backlog of poison records is full: the dead-letter queue does not accept \
                 records. The group's committed offset stays at this record; the next start copies \
                 this record and the poison records above it",
            );
        }
    }

    /// Lets the threads finish their work, and waits for them for at most `timeout`.
    pub(crate) fn close(&self, timeout: Duration) {
        let mut state = self.state.lock();
        state.closing = true;
        self.changed.notify_all();
        let commits = |state: &mut TrackerState| {
            [Worker::Committer, Worker::Lease].iter().any(|worker| state.running.contains(worker))
        };
        self.changed.wait_while_for(&mut state, commits, timeout);
    }

    // Called by the committing thread.

    /// Waits for the next task. `None`: the tracker closes and all is committed.
    pub(crate) fn next_commit(&self) -> Option<CommitTask> {
        let mut state = self.state.lock();
        loop {
            let partitions = state.partitions.values();
            let unknown = partitions.clone().filter(|offsets| offsets.committed.is_none());
            let unknown: Vec<_> = unknown.map(|offsets| offsets.assignment).collect();
            if !unknown.is_empty() {
                return Some(CommitTask::FetchCommitted(unknown));
            }
            let batch: CommitBatch = partitions
                .filter(|offsets| !state.committing.contains(&offsets.assignment.partition))
                .filter_map(|offsets| Some((offsets.assignment, offsets.commit_position()?)))
                .collect();
            if !batch.is_empty() {
                state.committing.extend(batch.iter().map(|(assignment, _)| assignment.partition));
                return Some(CommitTask::Commit(batch));
            }
            if state.closing && !state.running.contains(&Worker::Dlq) {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The log says that the group has committed this offset.
    pub(crate) fn set_committed(&self, assignment: AssignmentEpoch, committed: i64) {
        let mut state = self.state.lock();
        if let Some(offsets) = state.assigned(assignment) {
            let removed = offsets.set_committed(committed);
            state.shrink_backlog(&removed);
            self.status.committed.lock().insert(assignment.partition, committed);
        }
        self.changed.notify_all();
    }

    /// The commit has ended. After a failure the next one commits at least as much.
    pub(crate) fn finish_commit(&self, batch: &CommitBatch, committed: bool) {
        if committed {
            for (assignment, position) in batch {
                self.set_committed(*assignment, *position);
            }
        }
        let mut state = self.state.lock();
        for (assignment, _) in batch {
            state.committing.remove(&assignment.partition);
        }
        self.changed.notify_all();
    }

    // Called by the thread that renews the lease.

    /// Waits until `not_before`, and until a partition is assigned whose committed offset is known.
    /// Returns the offset to commit there: a higher one if there is progress, otherwise the same
    /// again. [`finish_commit`](Self::finish_commit) must follow. `None`: the tracker closes.
    pub(crate) fn next_renewal(&self, not_before: Instant) -> Option<CommitBatch> {
        let mut state = self.state.lock();
        while !state.closing {
            if Instant::now() < not_before {
                self.changed.wait_until(&mut state, not_before);
                continue;
            }
            let mut partitions = state.partitions.values();
            let renewal = partitions.find_map(|offsets| {
                let is_free = !state.committing.contains(&offsets.assignment.partition);
                let position = offsets.commit_position().or(offsets.committed);
                Some((offsets.assignment, position.filter(|_| is_free)?))
            });
            if let Some((assignment, position)) = renewal {
                state.committing.insert(assignment.partition);
                return Some(vec![(assignment, position)]);
            }
            self.changed.wait(&mut state);
        }
        None
    }

    // Called by the thread of the dead-letter queue.

    /// Waits for poison records to copy; [`finish_copies`](Self::finish_copies) must follow.
    /// `None`: the tracker closes and all are copied.
    pub(crate) fn next_copies(&self) -> Option<CopyBatch> {
        let mut state = self.state.lock();
        loop {
            let copies = state.partitions.values().flat_map(|offsets| {
                let copies = offsets.copyable().take(MAX_COPIES);
                copies.map(|poison| (offsets.assignment, Arc::clone(poison)))
            });
            let batch: CopyBatch = copies.collect();
            if !batch.is_empty() {
                return Some(batch);
            }
            if state.closing
                && (state.backlog_records == 0 || !state.running.contains(&Worker::Committer))
            {
                return None;
            }
            self.changed.wait(&mut state);
        }
    }

    /// The dead-letter queue has acknowledged these copies.
    pub(crate) fn finish_copies(&self, copied: &CopyBatch) {
        self.status.dlq_copied.fetch_add(copied.len() as u64, Ordering::Relaxed);
        counter!(DEAD_LETTERS).increment(copied.len() as u64);
        let mut state = self.state.lock();
        for (assignment, poison) in copied {
            if let Some(offsets) = state.assigned(*assignment)
                && offsets.remove_copied(poison.offset).is_some()
            {
                state.backlog_records -= 1;
                state.backlog_bytes -= poison.size_bytes();
            }
        }
        self.changed.notify_all();
    }

    // Called by all three.

    /// Starts a thread that repeats `step` until it returns `None`. After an error it waits before
    /// it repeats the step; once the tracker closes, an error ends it. Only the first of
    /// consecutive errors is logged, as `failure`.
    pub(crate) fn spawn_worker(
        self: &Arc<Self>,
        worker: Worker,
        failure: &'static str,
        step: impl FnMut() -> Option<Result<(), String>> + Send + 'static,
    ) -> std::io::Result<()> {
        let name = match worker {
            Worker::Committer => "offset-commits",
            Worker::Lease => "group-lease",
            Worker::Dlq => "dlq",
        };
        self.state.lock().running.insert(worker);
        let tracker = Arc::clone(self);
        let spawned = std::thread::Builder::new().name(name.into()).spawn(move || {
            tracker.repeat_step(failure, step);
            tracker.end_worker(worker);
        });
        if spawned.is_err() {
            self.end_worker(worker);
        }
        spawned.map(drop)
    }

    fn repeat_step(&self, failure: &str, mut step: impl FnMut() -> Option<Result<(), String>>) {
        let (mut delay, mut failing) = (MIN_RETRY_DELAY, false);
        while let Some(outcome) = step() {
            if let Err(error) = outcome {
                if !failing {
                    tracing::warn!(kafka.topic = self.topic, error, "{failure}; retrying");
                }
                failing = true;
                let mut state = self.state.lock();
                self.changed.wait_while_for(&mut state, |state| !state.closing, delay);
                if state.closing {
                    return;
                }
                delay = (delay * 2).min(MAX_RETRY_DELAY);
            } else {
                if failing {
                    tracing::info!(kafka.topic = self.topic, "succeeded after: {failure}");
                }
                (delay, failing) = (MIN_RETRY_DELAY, false);
            }
        }
    }

    fn end_worker(&self, worker: Worker) {
        self.state.lock().running.remove(&worker);
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
