//! All partitions of the topic, the lease under which they may answer, and the reads that name a
//! user instead of a partition.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use event_log::Position;
use jiff::Timestamp;
use model::{Action, Cursor, Partitioner, UserId};
use tokio::sync::watch;

use super::{
    inbox::Limits,
    inboxes::Inboxes,
    page::{GapReason, Page, PageQuery, Selector, Since},
    partition::PartitionView,
    query::WouldChange,
    rebuild::SourceTopic,
    status::{BehindSince, NotLive, PartitionStatus},
    watchers::Wakeups,
};

/// All partitions of the topic. Those that another instance owns are empty here.
#[derive(Debug)]
pub struct View {
    partitions: Box<[PartitionView]>,
    wakeups: Arc<Wakeups>,
    pub(crate) partitioner: Partitioner,
    pub(crate) limits: Limits,
    pub(crate) counters: Counters,
    started_at: Instant,
    /// The instant until which the view may answer, in microseconds since `started_at`. Until then
    /// the group cannot have assigned the partitions to another instance.
    lease_until_us: AtomicU64,
    /// Notified when a lease begins after another one has ended.
    lease_began: watch::Sender<()>,
    /// True once a partition has held a notification whose recipient's home is another partition.
    pub(crate) has_misplaced: AtomicBool,
}

/// Counts of records since the process began.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// Notifications applied in their recipient's home partition, replays included.
    pub(crate) applied: AtomicU64,
    /// Notifications whose id their inbox had already.
    pub(crate) duplicates: AtomicU64,
    /// Notifications with a reused Idempotency-Key, which went to the dead-letter queue.
    pub(crate) conflicts: AtomicU64,
    pub(crate) poison: AtomicU64,
    /// Notifications applied in another partition than their recipient's home.
    pub(crate) misplaced: AtomicU64,
    /// Receipts applied, replays included.
    pub(crate) receipts: AtomicU64,
    pub(crate) poison_receipts: AtomicU64,
}

impl View {
    /// An empty view of a topic with this many unassigned partitions.
    /// Its readers are woken while [`deliver_wakeups`](Self::deliver_wakeups) runs.
    pub fn new(partitions: u32, partitioner: Partitioner, limits: Limits) -> Self {
        let wakeups = Arc::<Wakeups>::default();
        let partition = |_| PartitionView::new(Arc::clone(&wakeups));
        Self {
            partitions: (0..partitions.max(1)).map(partition).collect(),
            wakeups,
            partitioner,
            limits,
            counters: Counters::default(),
            started_at: Instant::now(),
            lease_until_us: AtomicU64::new(0),
            lease_began: watch::Sender::new(()),
            has_misplaced: AtomicBool::new(false),
        }
    }

    /// Wakes the readers of inboxes that changed, for ever. To be spawned once.
    pub async fn deliver_wakeups(self: Arc<Self>) {
        self.wakeups.deliver().await;
    }

    /// The partition with this user's inbox.
    pub fn home_partition(&self, user: UserId) -> i32 {
        let partitions = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        self.partitioner.partition_for(user.record_key().as_bytes(), partitions)
    }

    /// Every partition with its number.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &PartitionView)> {
        (0..).zip(&self.partitions)
    }

    /// The partition that has been behind its log for the longest time.
    pub fn find_behind(&self) -> Option<(i32, BehindSince)> {
        let behind = self.partitions().filter_map(|(number, partition)| match partition.status() {
            PartitionStatus::Behind { behind, .. } => Some((number, behind)),
            _ => None,
        });
        behind.min_by_key(|(_, behind)| behind.since)
    }

    /// The partition with this number.
    pub fn partition(&self, number: i32) -> Option<&PartitionView> {
        usize::try_from(number).ok().and_then(|index| self.partitions.get(index))
    }

    /// Answers a query about this user's inbox. Waits for at most `wait_timeout` until its partition
    /// is live and has caught up to the query's cursors, then for at most the query's own `wait`
    /// until there is an entry.
    pub async fn read_page(
        &self,
        user: UserId,
        query: &PageQuery,
        wait_timeout: Duration,
    ) -> Result<Page, NotLive> {
        let (home, partition, wait_timeout) = self.find_home(user, wait_timeout).await?;
        let read = |inboxes: &Inboxes| inboxes.read_page(home, user, query, self.oldest_ms());
        let mut page = partition
            .read_when(home, wait_timeout, |inboxes| match query.at_least {
                Some(at_least) if !inboxes.is_same_log(at_least) => {
                    Some(Err(NotLive::OtherLog(at_least)))
                }
                Some(at_least) if inboxes.last_offset() < at_least.offset => None,
                Some(_) | None => Some(Ok(read(inboxes))),
            })
            .await??;
        // The cursor of an answer to a send may be a moment ahead of the view.
        let is_ahead = |page: &Page| {
            let is_unknown = page.gap.is_some_and(|gap| gap.reason == GapReason::Unknown);
            let is_here =
                |cursor: Cursor| cursor.partition == home && cursor.is_of_log(page.cursor.epoch);
            is_unknown && matches!(query.since, Since::Cursor(cursor) if is_here(cursor))
        };
        if is_ahead(&page) {
            let caught_up = |inboxes: &Inboxes| Some(read(inboxes)).filter(|page| !is_ahead(page));
            page = partition.read_when(home, wait_timeout, caught_up).await.unwrap_or(page);
        }
        if page.items.is_empty() && page.gap.is_none() && !query.wait.is_zero() {
            let waited = tokio::time::timeout(query.wait, async {
                let mut watcher = partition.watch_user(user);
                loop {
                    let next =
                        partition.read_if_live(read).ok_or_else(|| partition.not_live(home))?;
                    if !next.items.is_empty() {
                        return Ok(next);
                    }
                    if !watcher.wait_for_change().await {
                        return Err(partition.not_live(home));
                    }
                }
            });
            page = match waited.await {
                Ok(page) => page?,
                Err(_) => partition.read_if_live(read).ok_or_else(|| partition.not_live(home))?,
            };
        }
        if self.has_misplaced.load(Ordering::Relaxed) {
            self.add_misplaced(user, home, query, &mut page);
        }
        // Checked again after all waiting: the lease must cover the moment of the read.
        self.check_lease(home)?;
        Ok(page)
    }

    /// This user's selected entries that an action would change.
    pub async fn would_change(
        &self,
        user: UserId,
        action: Action,
        selector: &Selector,
        wait_timeout: Duration,
    ) -> Result<WouldChange, NotLive> {
        let (home, partition, wait_timeout) = self.find_home(user, wait_timeout).await?;
        let read = |inboxes: &Inboxes| match selector {
            Selector::Through(cursor) if !inboxes.is_same_log(*cursor) => {
                Err(NotLive::OtherLog(*cursor))
            }
            _ => Ok(inboxes.would_change(user, action, selector, self.oldest_ms())),
        };
        let targets =
            partition.read_when(home, wait_timeout, |inboxes| Some(read(inboxes))).await??;
        self.check_lease(home)?;
        Ok(targets)
    }

    /// Waits until the receipt at this position of this user's partition is applied.
    pub async fn wait_for_receipt(
        &self,
        user: UserId,
        at: Position,
        wait_timeout: Duration,
    ) -> Result<(), NotLive> {
        let (home, partition, wait_timeout) = self.find_home(user, wait_timeout).await?;
        let applied = |inboxes: &Inboxes| {
            // A topic that was created again may have another record at this offset.
            let epoch = inboxes.topic_epochs[SourceTopic::Receipts as usize];
            let is_same_log = at.epoch.is_none() || at.epoch == epoch;
            (is_same_log && inboxes.last_receipt_offset() >= at.offset).then_some(())
        };
        partition.read_when(home, wait_timeout, applied).await
    }

    /// Waits until the notification record at this offset of a partition is applied.
    pub async fn wait_for_offset(
        &self,
        number: i32,
        offset: i64,
        wait_timeout: Duration,
    ) -> Result<(), NotLive> {
        let partition = self.partition(number).ok_or(NotLive::Unowned(number))?;
        let applied = |inboxes: &Inboxes| (inboxes.last_offset() >= offset).then_some(());
        partition.read_when(number, wait_timeout, applied).await
    }

    /// Evicts entries that are too old, in every live partition.
    pub fn expire_entries(&self) {
        let now_ms = Timestamp::now().as_millisecond();
        for (_, partition) in self.partitions() {
            partition.update_if_live(|inboxes| inboxes.expire_entries(self.limits, now_ms));
        }
    }

    /// The view may answer until this instant, see [`PartitionHandler::renew_lease`].
    ///
    /// [`PartitionHandler::renew_lease`]: event_log::PartitionHandler::renew_lease
    pub(crate) fn renew_lease(&self, until: Instant) {
        let had_ended = !self.holds_lease();
        let us = until.saturating_duration_since(self.started_at).as_micros();
        self.lease_until_us.store(u64::try_from(us).unwrap_or(u64::MAX), Ordering::Release);
        if had_ended && self.holds_lease() {
            self.lease_began.send_replace(());
        }
    }

    /// Returns true if no other instance can own this instance's partitions now.
    pub(crate) fn holds_lease(&self) -> bool {
        let until = Duration::from_micros(self.lease_until_us.load(Ordering::Acquire));
        self.started_at.elapsed() < until
    }

    /// Fails if the lease has ended, so that another instance may own this partition by now.
    pub(super) fn check_lease(&self, partition: i32) -> Result<(), NotLive> {
        if self.holds_lease() { Ok(()) } else { Err(NotLive::Unconfirmed(partition)) }
    }

    /// Waits while the lease has ended.
    pub(super) async fn await_lease(&self) {
        // Subscribed before the check, so that no change goes unnoticed between the two.
        let mut began = self.lease_began.subscribe();
        while !self.holds_lease() {
            // Fails only if the sender is gone, and `self` has that.
            let _ = began.changed().await;
        }
    }

    /// The partition with this user's inbox. Waits for the lease for at most `wait_timeout`, and
    /// returns what is left of that.
    pub(super) async fn find_home(
        &self,
        user: UserId,
        wait_timeout: Duration,
    ) -> Result<(i32, &PartitionView, Duration), NotLive> {
        let home = self.home_partition(user);
        let partition = self.partition(home).ok_or(NotLive::Unowned(home))?;
        if self.holds_lease() {
            return Ok((home, partition, wait_timeout));
        }
        let asked_at = Instant::now();
        if tokio::time::timeout(wait_timeout, self.await_lease()).await.is_ok() {
            return Ok((home, partition, wait_timeout.saturating_sub(asked_at.elapsed())));
        }
        let is_owned = partition.is_owned();
        Err(if is_owned { NotLive::Unconfirmed(home) } else { NotLive::Unowned(home) })
    }

    /// Adds this user's entries in other partitions, as far as this instance owns those. Cursors
    /// are offsets of the home partition, so a page that begins at a cursor omits them.
    fn add_misplaced(&self, user: UserId, home: i32, query: &PageQuery, page: &mut Page) {
        if matches!(query.since, Since::Cursor(_)) {
            return;
        }
        for (number, partition) in self.partitions().filter(|(number, _)| *number != home) {
            let misplaced = partition
                .read_if_live(|inboxes| inboxes.read_page(number, user, query, self.oldest_ms()));
            if let Some(misplaced) = misplaced {
                page.merge_page(misplaced);
            }
        }
    }

    /// The time before which an entry is too old now.
    pub(super) fn oldest_ms(&self) -> i64 {
        self.limits.oldest_ms(Timestamp::now().as_millisecond())
    }
}
