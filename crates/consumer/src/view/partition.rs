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
    rebuild::{Rebuild, SourceTopic},
    status::{BehindSince, NotLive, PartitionStatus},
    watchers::{Wakeups, Watcher, Watchers},
};

/// One partition of the view.
#[derive(Debug)]
pub struct PartitionView {
    /// `None` if the partition is not assigned to this instance.
    assignment: RwLock<Option<AssignedInboxes>>,
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

/// The inboxes of an assigned partition.
#[derive(Debug)]
pub(crate) struct AssignedInboxes {
    pub(crate) inboxes: Inboxes,
    /// Set until both topics are read to their ends. Meanwhile no reader is answered from the inboxes.
    rebuild: Option<Rebuild>,
    /// Set while a topic's reader cannot follow its log. No new request is answered from the inboxes
    /// then, because they may lack what was acknowledged.
    behind: [Option<BehindSince>; 2],
}

impl AssignedInboxes {
    fn behind(&self) -> Option<&BehindSince> {
        self.behind.iter().flatten().min_by_key(|behind| behind.since)
    }

    /// Returns true if this topic's reader has started on this assignment. A record or an end that
    /// it reports earlier belongs to the previous one.
    fn has_started(&self, source: SourceTopic) -> bool {
        self.rebuild.as_ref().is_none_or(|rebuild| rebuild.has_started(source))
    }

    /// Returns true if these have every record of the log.
    pub(crate) fn is_complete(&self) -> bool {
        self.rebuild.is_none() && !self.inboxes.is_invalid
    }
}

impl PartitionView {
    pub(super) fn new(wakeups: Arc<Wakeups>) -> Self {
        Self {
            assignment: RwLock::default(),
            changed: watch::Sender::default(),
            watchers: Arc::new(Watchers::new(wakeups)),
            earlier_evictions: Default::default(),
        }
    }

    /// The state of the partition.
    pub fn status(&self) -> PartitionStatus {
        match &*self.assignment.read() {
            None => PartitionStatus::Unowned,
            Some(assigned) if let Some(behind) = assigned.behind() => PartitionStatus::Behind {
                behind: behind.clone(),
                position: assigned.inboxes.last_offset(),
            },
            Some(AssignedInboxes { rebuild: Some(rebuild), .. }) => {
                PartitionStatus::Rebuilding(rebuild.progress())
            }
            Some(AssignedInboxes { inboxes, .. }) => PartitionStatus::Live {
                users: inboxes.users.len(),
                position: inboxes.last_offset(),
            },
        }
    }

    /// Counts of the partition. Takes the same time however many entries there are.
    pub fn totals(&self) -> PartitionTotals {
        let assignment = self.assignment.read();
        let mut totals = PartitionTotals::default();
        if let Some(AssignedInboxes { inboxes, .. }) = &*assignment {
            totals = PartitionTotals { users: inboxes.users.len(), inboxes: inboxes.totals };
        }
        totals.inboxes.evicted += self.earlier_evictions[0].load(Ordering::Relaxed);
        totals.inboxes.expired += self.earlier_evictions[1].load(Ordering::Relaxed);
        totals
    }

    /// The epoch of the notifications' log; `None` if it is not known, or not assigned here.
    pub fn log_epoch(&self) -> Option<u32> {
        let assignment = self.assignment.read();
        assignment.as_ref()?.inboxes.topic_epochs[SourceTopic::Notifications as usize]
    }

    /// Returns true if the partition is assigned to this instance, live or not.
    pub fn is_owned(&self) -> bool {
        self.assignment.read().is_some()
    }

    /// Reads the inboxes if the partition is live now.
    pub fn read_if_live<R>(&self, read: impl FnOnce(&Inboxes) -> R) -> Option<R> {
        match &*self.assignment.read() {
            Some(AssignedInboxes { inboxes, rebuild: None, behind: [None, None] }) => {
                Some(read(inboxes))
            }
            _ => None,
        }
    }

    /// Reads the inboxes if the partition is live, or was before it fell behind its log. What they
    /// have is right, but more may have been acknowledged: for readers that wait for what comes.
    pub fn read_if_complete<R>(&self, read: impl FnOnce(&Inboxes) -> R) -> Option<R> {
        match &*self.assignment.read() {
            Some(AssignedInboxes { inboxes, rebuild: None, .. }) => Some(read(inboxes)),
            _ => None,
        }
    }

    /// Waits until the partition is live and `read` returns something.
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

    /// See [`Watchers::watch_user`].
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
            // Fails only if the sender is gone, and `self` has that.
            let _ = changed.changed().await;
        }
    }

    pub(super) fn not_live(&self, number: i32) -> NotLive {
        match self.status() {
            PartitionStatus::Unowned => NotLive::Unowned(number),
            PartitionStatus::Rebuilding(progress) => NotLive::Rebuilding(number, progress),
            PartitionStatus::Behind { behind, .. } => NotLive::Behind(number, behind),
            PartitionStatus::Live { position, .. } => NotLive::NotCaughtUp(number, position),
        }
    }

    /// Assigns the partition to this instance, with inboxes that are empty or restored with
    /// `entries` notifications. Returns where the reader of the notifications must start.
    pub(crate) fn assign(&self, inboxes: Inboxes, entries: u64) -> StartAt {
        let rebuild = Some(Rebuild::new(entries));
        let behind = [None, None];
        self.set_assignment(Some(AssignedInboxes { inboxes, rebuild, behind }));
        self.start_topic(SourceTopic::Notifications)
    }

    /// Notes that the reader of this topic has started on this assignment. Returns where it must
    /// start.
    pub(crate) fn start_topic(&self, source: SourceTopic) -> StartAt {
        match &mut *self.assignment.write() {
            Some(AssignedInboxes { inboxes, rebuild: Some(rebuild), .. }) => {
                let start = inboxes.start_at(source);
                let offset = match start {
                    StartAt::Beginning => 0,
                    StartAt::After(anchor) => anchor.offset + 1,
                };
                rebuild.start_topic(source, offset);
                start
            }
            _ => StartAt::Beginning,
        }
    }

    /// Notes the epoch of a topic of this partition.
    pub(crate) fn set_topic_epoch(&self, source: SourceTopic, epoch: Option<u32>) {
        if let Some(AssignedInboxes { inboxes, .. }) = &mut *self.assignment.write() {
            inboxes.set_topic_epoch(source, epoch);
        }
    }

    /// Marks the inboxes as contradicting the log: they must not go live, and the partition must
    /// start over. Returns true if they were restored. Ignores a report about an earlier
    /// assignment.
    pub(crate) fn invalidate(&self, source: SourceTopic) -> bool {
        match &mut *self.assignment.write() {
            Some(assigned) if assigned.has_started(source) => {
                assigned.inboxes.is_invalid = true;
                assigned.inboxes.is_restored
            }
            _ => false,
        }
    }

    /// Returns true if the partition must start over.
    pub(crate) fn is_invalid(&self) -> bool {
        self.assignment.read().as_ref().is_some_and(|assigned| assigned.inboxes.is_invalid)
    }

    /// Notes which offsets the log has of this topic.
    pub(crate) fn set_watermarks(&self, source: SourceTopic, watermarks: Watermarks) {
        if let Some(AssignedInboxes { inboxes, rebuild, .. }) = &mut *self.assignment.write() {
            if let Some(rebuild) = rebuild {
                rebuild.topics[source as usize].watermarks = Some(watermarks);
            }
            inboxes.set_low_watermark(source, watermarks.low);
        }
    }

    /// Notes that this topic's reader cannot follow its log, or can again.
    pub(crate) fn set_behind(&self, source: SourceTopic, behind: Option<BehindSince>) {
        match &mut *self.assignment.write() {
            Some(assigned) if assigned.has_started(source) => {
                assigned.behind[source as usize] = behind;
            }
            _ => return,
        }
        self.notify_changed();
    }

    /// Notes that the log lost this topic's records below `next` before they were read.
    pub(crate) fn note_lost_records(&self, source: SourceTopic, next: i64) {
        match &mut *self.assignment.write() {
            Some(assigned) if assigned.has_started(source) => {
                assigned.inboxes.note_lost_records(source, next);
            }
            _ => return,
        }
        self.notify_changed();
        self.watchers.wake_all();
    }

    /// Applies the record at this offset with `apply`. Returns its result, and true if the partition
    /// is live. Returns `None` if the partition is not assigned to this instance, or if the record
    /// was read for an earlier assignment.
    pub(crate) fn apply_record<R>(
        &self,
        source: SourceTopic,
        offset: i64,
        anchor: Option<RecordAnchor>,
        apply: impl FnOnce(&mut Inboxes) -> R,
    ) -> Option<(R, bool)> {
        let mut assignment = self.assignment.write();
        let assigned = assignment.as_mut().filter(|assigned| assigned.has_started(source))?;
        let AssignedInboxes { inboxes, rebuild, .. } = assigned;
        let result = apply(inboxes);
        inboxes.advance_to(source, offset, anchor);
        if let Some(rebuild) = rebuild {
            rebuild.topics[source as usize].last_offset = Some(offset);
        }
        let is_live = rebuild.is_none();
        drop(assignment);
        self.notify_changed();
        Some((result, is_live))
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
        if let Some(AssignedInboxes { inboxes, rebuild: None, .. }) = &mut *self.assignment.write()
        {
            update(inboxes);
        }
    }

    /// Notes that this topic's reader has reached the end that the log had at the assignment. If
    /// both have, the partition goes live: returns how long its rebuild took.
    pub(crate) fn mark_caught_up(&self, source: SourceTopic) -> Option<Duration> {
        let mut assignment = self.assignment.write();
        let AssignedInboxes { inboxes, rebuild, .. } = assignment.as_mut()?;
        let rebuilding = rebuild.as_mut()?;
        if rebuilding.has_started(source) {
            inboxes.mark_caught_up(source);
        }
        if !rebuilding.mark_caught_up(source) || inboxes.is_invalid {
            return None;
        }
        let took = rebuilding.started_at.elapsed();
        *rebuild = None;
        drop(assignment);
        self.notify_changed();
        Some(took)
    }

    /// Takes the partition from this instance. No reader is answered from it once this returns. The
    /// caller frees the inboxes, which may take long.
    pub(crate) fn revoke(&self) -> Option<AssignedInboxes> {
        let revoked = self.set_assignment(None);
        self.watchers.end_all();
        revoked
    }

    fn set_assignment(&self, next: Option<AssignedInboxes>) -> Option<AssignedInboxes> {
        let mut assignment = self.assignment.write();
        let previous = std::mem::replace(&mut *assignment, next);
        if let Some(AssignedInboxes { inboxes, .. }) = &previous {
            // Under the lock, so that the sum never decreases.
            let Totals { evicted, expired, .. } = inboxes.totals;
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
