//! The inboxes of one partition behind one lock, and whether they may answer.
//!
//! The lock is `parking_lot`'s. It is held while one record is applied or one page's handles are
//! cloned, never across an await, and writers of one partition never stop readers of another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use event_log::{RecordAnchor, StartAt, Watermarks};
use model::{Receipt, UserId};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{
    inbox::Totals,
    inboxes::Inboxes,
    rebuild::{Rebuild, RebuildProgress, SourceTopic},
    watchers::{Watcher, Watchers},
};

/// One partition of the view.
#[derive(Debug)]
pub struct PartitionView {
    assignment: RwLock<Assignment>,
    /// Notified after every change that a reader may wait for, if a reader waits.
    changed: watch::Sender<()>,
    watchers: Arc<Watchers>,
    /// Entries that were evicted, and that expired, during earlier assignments.
    earlier_evictions: [AtomicU64; 2],
}

/// Counts of a partition, live or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PartitionTotals {
    /// Users with an inbox.
    pub users: usize,
    /// Counts of their inboxes. Evictions are counted since the process began.
    pub inboxes: Totals,
}

/// The result of applying a record.
pub(crate) struct Applied<R> {
    pub(crate) result: R,
    /// True if the partition is live, so that a reader may have waited for the record.
    pub(crate) is_live: bool,
}

/// The inboxes of a partition that was revoked.
pub(crate) struct RevokedInboxes {
    pub(crate) inboxes: Inboxes,
    /// True if the partition was live, so that these have every record of the log.
    pub(crate) is_complete: bool,
}

#[derive(Debug, Default)]
enum Assignment {
    /// Not assigned to this instance.
    #[default]
    Unowned,
    /// Assigned, and being read. No reader is answered from it.
    Rebuilding(Rebuild, Inboxes),
    /// Assigned, and read to the log's end.
    Live(Inboxes),
}

/// Why a partition cannot answer now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotLive {
    /// It is not assigned to this instance.
    #[error("partition {partition}, where this inbox lives, is not owned by this instance")]
    Unowned {
        /// The partition.
        partition: i32,
    },
    /// It is being rebuilt.
    #[error("partition {partition}, where this inbox lives, is being rebuilt")]
    Rebuilding {
        /// The partition.
        partition: i32,
        /// How far the rebuild is.
        progress: RebuildProgress,
    },
    /// It has not caught up to the offset that the request needs.
    #[error(
        "partition {partition}, where this inbox lives, has not caught up to the requested cursor"
    )]
    Behind {
        /// The partition.
        partition: i32,
        /// Offset of its last record applied.
        position: i64,
    },
}

/// The state of a partition, for people and probes.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum PartitionStatus {
    /// Not assigned to this instance.
    Unowned,
    /// Being read.
    Rebuilding(RebuildProgress),
    /// Answering.
    Live {
        /// Users with an inbox.
        users: usize,
        /// Offset of the last record applied; −1 before any.
        position: i64,
    },
}

impl Default for PartitionView {
    fn default() -> Self {
        Self {
            assignment: RwLock::default(),
            changed: watch::Sender::new(()),
            watchers: Arc::default(),
            earlier_evictions: Default::default(),
        }
    }
}

impl PartitionView {
    /// The state of the partition.
    #[must_use]
    pub fn status(&self) -> PartitionStatus {
        match &*self.assignment.read() {
            Assignment::Unowned => PartitionStatus::Unowned,
            Assignment::Rebuilding(rebuild, _) => PartitionStatus::Rebuilding(rebuild.progress()),
            Assignment::Live(inboxes) => PartitionStatus::Live {
                users: inboxes.user_count(),
                position: inboxes.last_offset(),
            },
        }
    }

    /// Counts of the partition. Takes the same time however many entries there are.
    #[must_use]
    pub fn totals(&self) -> PartitionTotals {
        let assignment = self.assignment.read();
        let mut totals = match &*assignment {
            Assignment::Unowned => PartitionTotals::default(),
            Assignment::Rebuilding(_, inboxes) | Assignment::Live(inboxes) => {
                PartitionTotals { users: inboxes.user_count(), inboxes: inboxes.totals() }
            }
        };
        totals.inboxes.evicted += self.earlier_evictions[0].load(Ordering::Relaxed);
        totals.inboxes.expired += self.earlier_evictions[1].load(Ordering::Relaxed);
        totals
    }

    /// Returns true if the partition answers.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(&*self.assignment.read(), Assignment::Live(_))
    }

    /// Returns true if the partition is assigned to this instance, live or not.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        !matches!(&*self.assignment.read(), Assignment::Unowned)
    }

    /// Reads the inboxes if the partition is live now.
    pub fn read_if_live<R>(&self, read: impl FnOnce(&Inboxes) -> R) -> Option<R> {
        match &*self.assignment.read() {
            Assignment::Live(inboxes) => Some(read(inboxes)),
            Assignment::Unowned | Assignment::Rebuilding(..) => None,
        }
    }

    /// Waits until the partition is live and `read` returns something.
    ///
    /// # Errors
    /// [`NotLive`] after `timeout`.
    pub async fn read_when<R>(
        &self,
        number: i32,
        timeout: Duration,
        read: impl Fn(&Inboxes) -> Option<R>,
    ) -> Result<R, NotLive> {
        let found = self.wait_until(|| self.read_if_live(&read).flatten());
        tokio::time::timeout(timeout, found).await.map_err(|_| self.not_live(number))
    }

    /// Waits until the partition is assigned to this instance, live or not.
    pub async fn wait_until_owned(&self) {
        self.wait_until(|| self.is_owned().then_some(())).await;
    }

    /// Watches this user; see [`Watchers::watch_user`].
    pub(super) fn watch_user(&self, user: UserId) -> Watcher {
        self.watchers.watch_user(user)
    }

    async fn wait_until<R>(&self, check: impl Fn() -> Option<R>) -> R {
        if let Some(found) = check() {
            return found;
        }
        // Subscribed before the next check, so that no change goes unnoticed between the two.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = check() {
                return found;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn not_live(&self, partition: i32) -> NotLive {
        match &*self.assignment.read() {
            Assignment::Unowned => NotLive::Unowned { partition },
            Assignment::Rebuilding(rebuild, _) => {
                NotLive::Rebuilding { partition, progress: rebuild.progress() }
            }
            Assignment::Live(inboxes) => {
                NotLive::Behind { partition, position: inboxes.last_offset() }
            }
        }
    }

    /// Assigns the partition to this instance, with inboxes that are empty or restored with
    /// `entries` notifications. Returns where the reader of the notifications must start.
    pub(crate) fn assign(&self, inboxes: Inboxes, entries: u64) -> StartAt {
        self.set_assignment(Assignment::Rebuilding(Rebuild::new(entries), inboxes));
        self.start_topic(SourceTopic::Notifications)
    }

    /// Notes that the reader of this topic has started on this assignment. Returns where it must
    /// start.
    pub(crate) fn start_topic(&self, source: SourceTopic) -> StartAt {
        match &mut *self.assignment.write() {
            Assignment::Rebuilding(rebuild, inboxes) => {
                let start = inboxes.start_at(source);
                let offset = match start {
                    StartAt::Beginning => 0,
                    StartAt::After(anchor) => anchor.offset + 1,
                };
                rebuild.start_topic(source, offset);
                start
            }
            Assignment::Live(_) | Assignment::Unowned => StartAt::Beginning,
        }
    }

    /// Marks the inboxes as contradicting the log: they must not go live, and the partition must
    /// start over. Returns true if they were restored. Ignores a report about an earlier
    /// assignment.
    pub(crate) fn invalidate(&self, source: SourceTopic) -> bool {
        match &mut *self.assignment.write() {
            Assignment::Rebuilding(rebuild, _) if !rebuild.has_started(source) => false,
            Assignment::Rebuilding(_, inboxes) | Assignment::Live(inboxes) => {
                inboxes.is_invalid = true;
                inboxes.is_restored
            }
            Assignment::Unowned => false,
        }
    }

    /// Returns true if the partition must start over.
    pub(crate) fn is_invalid(&self) -> bool {
        match &*self.assignment.read() {
            Assignment::Rebuilding(_, inboxes) | Assignment::Live(inboxes) => inboxes.is_invalid,
            Assignment::Unowned => false,
        }
    }

    /// Notes which offsets the log has of this topic.
    pub(crate) fn set_watermarks(&self, source: SourceTopic, watermarks: Watermarks) {
        match &mut *self.assignment.write() {
            Assignment::Rebuilding(rebuild, inboxes) => {
                rebuild.set_watermarks(source, watermarks);
                inboxes.set_low_watermark(source, watermarks.low);
            }
            Assignment::Live(inboxes) => inboxes.set_low_watermark(source, watermarks.low),
            Assignment::Unowned => {}
        }
    }

    /// Applies the record at this offset with `apply`. Returns `None` if the partition is not
    /// assigned to this instance, or if the record was read for an earlier assignment.
    pub(crate) fn apply_record<R>(
        &self,
        source: SourceTopic,
        offset: i64,
        anchor: Option<RecordAnchor>,
        apply: impl FnOnce(&mut Inboxes) -> R,
    ) -> Option<Applied<R>> {
        let applied = match &mut *self.assignment.write() {
            Assignment::Rebuilding(rebuild, inboxes) if rebuild.has_started(source) => {
                rebuild.advance_to(source, offset);
                let applied = Applied { result: apply(inboxes), is_live: false };
                inboxes.advance_to(source, offset, anchor);
                applied
            }
            Assignment::Live(inboxes) => {
                let applied = Applied { result: apply(inboxes), is_live: true };
                inboxes.advance_to(source, offset, anchor);
                applied
            }
            Assignment::Rebuilding(..) | Assignment::Unowned => return None,
        };
        self.notify_changed();
        Some(applied)
    }

    /// Wakes the readers that watch this user.
    pub(crate) fn wake_readers(&self, user: UserId) {
        self.watchers.wake_readers(user);
    }

    /// Hands the receipt at this offset to the readers that watch its user.
    pub(crate) fn push_receipt(&self, receipt: Receipt, offset: i64) {
        self.watchers.push_receipt(receipt, offset);
    }

    /// Changes the inboxes of a live partition without a record.
    pub(super) fn update_if_live(&self, update: impl FnOnce(&mut Inboxes)) {
        if let Assignment::Live(inboxes) = &mut *self.assignment.write() {
            update(inboxes);
        }
    }

    /// Notes that this topic's reader has reached the end that the log had at the assignment. If
    /// both have, the partition goes live: returns how long its rebuild took.
    pub(crate) fn mark_caught_up(&self, source: SourceTopic) -> Option<Duration> {
        let mut assignment = self.assignment.write();
        let (next, took) = match std::mem::take(&mut *assignment) {
            Assignment::Rebuilding(mut rebuild, mut inboxes) => {
                if rebuild.has_started(source) {
                    inboxes.mark_caught_up(source);
                }
                if rebuild.mark_caught_up(source) && !inboxes.is_invalid {
                    (Assignment::Live(inboxes), Some(rebuild.started_at.elapsed()))
                } else {
                    (Assignment::Rebuilding(rebuild, inboxes), None)
                }
            }
            other @ (Assignment::Unowned | Assignment::Live(_)) => (other, None),
        };
        *assignment = next;
        drop(assignment);
        if took.is_some() {
            self.notify_changed();
        }
        took
    }

    /// Takes the partition from this instance. No reader is answered from it once this returns. The
    /// caller frees the inboxes, which may take long.
    pub(crate) fn revoke(&self) -> Option<RevokedInboxes> {
        let revoked = match self.set_assignment(Assignment::Unowned) {
            Assignment::Unowned => None,
            Assignment::Rebuilding(_, inboxes) => {
                Some(RevokedInboxes { inboxes, is_complete: false })
            }
            Assignment::Live(inboxes) => {
                Some(RevokedInboxes { is_complete: !inboxes.is_invalid, inboxes })
            }
        };
        self.watchers.end_all();
        revoked
    }

    fn set_assignment(&self, next: Assignment) -> Assignment {
        let mut assignment = self.assignment.write();
        let previous = std::mem::replace(&mut *assignment, next);
        if let Assignment::Rebuilding(_, inboxes) | Assignment::Live(inboxes) = &previous {
            // Under the lock, so that the sum never decreases.
            let Totals { evicted, expired, .. } = inboxes.totals();
            self.earlier_evictions[0].fetch_add(evicted, Ordering::Relaxed);
            self.earlier_evictions[1].fetch_add(expired, Ordering::Relaxed);
        }
        drop(assignment);
        self.notify_changed();
        previous
    }

    fn notify_changed(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }
}
