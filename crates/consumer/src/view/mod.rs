//! The view: every inbox of the partitions that this instance owns, in memory. A pure function of
//! the log, so it can be thrown away and made again at any time.
//!
//! It is written by the folds, on the log's own threads, and read by HTTP handlers. It names
//! neither Kafka, SQL nor HTTP.
//!
//! - [`fold`]: what a record of the log does to all of this;
//! - [`partition`]: the inboxes of one partition, behind one lock;
//! - [`rebuild`]: a partition on its way to being live;
//! - [`inboxes`]: all inboxes of a partition, and the questions that are asked of them;
//! - [`inbox`]: one user's entries, bounded;
//! - [`entry`]: one notification as it is kept: ready-to-send JSON;
//! - [`page`]: what a reader asks for and takes away;
//! - [`feed`]: what a reader who stays is told;
//! - [`snapshot`]: a partition on a disk, for the next process;
//! - `watchers`: who is to be woken by what.

pub mod fold;
pub mod partition;
pub mod rebuild;
pub mod inboxes;
pub mod inbox;
pub mod entry;
pub mod page;
pub mod feed;
pub mod snapshot;
mod watchers;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use event_log::{Record, RecordAnchor};
use jiff::Timestamp;
use model::{Action, NotificationId, Partitioner, UserId};

pub use feed::Feed;
pub use inbox::Limits;
pub use inboxes::Selector;
pub use page::{Page, Query, Since};
pub use partition::{Held, NotLive, Partition};
pub use snapshot::SnapshotManager;

/// How long after the log's thread last said that its assignment holds the view still answers:
/// half of the group's session (10 s), after which another instance may own the partitions. A
/// process that was stopped for longer must not answer from what it remembers.
const LEASE: Duration = Duration::from_secs(5);

/// All partitions of the topic; those that another instance owns are empty here.
#[derive(Debug)]
pub struct View {
    partitions: Box<[Partition]>,
    partitioner: Partitioner,
    limits: Limits,
    counters: Counters,
    started: Instant,
    /// When the assignment was last known to hold, in milliseconds since `started`.
    assured_ms: AtomicU64,
    /// None: no snapshots are kept.
    keeping: OnceLock<Arc<SnapshotManager>>,
    /// A snapshot had notifications in a partition that is not their recipient's home.
    strays: AtomicBool,
}

/// What happened since the start; only ever grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Notifications folded into their recipient's home, replays included.
    pub folded: AtomicU64,
    /// Notifications whose id their inbox already held.
    pub duplicates: AtomicU64,
    /// Notifications set aside because their Idempotency-Key was used before for something else.
    pub conflicts: AtomicU64,
    /// Records that were no notifications.
    pub poison: AtomicU64,
    /// Notifications folded into a partition that is not their recipient's home.
    pub misplaced: AtomicU64,
    /// Receipts folded, replays included.
    pub receipts: AtomicU64,
    /// Records that should have been receipts, and were not.
    pub poison_receipts: AtomicU64,
}

impl View {
    /// An empty view of a topic of `partitions` partitions, none of them owned.
    #[must_use]
    pub fn new(partitions: u32, partitioner: Partitioner, limits: Limits) -> Self {
        Self {
            partitions: (0..partitions.max(1)).map(|_| Partition::default()).collect(),
            partitioner,
            limits,
            counters: Counters::default(),
            started: Instant::now(),
            assured_ms: AtomicU64::new(0),
            keeping: OnceLock::new(),
            strays: AtomicBool::new(false),
        }
    }

    /// From now on snapshots are kept. To be said before anything is folded.
    pub fn keep(&self, keeping: Arc<SnapshotManager>) {
        let _ = self.keeping.set(keeping);
    }

    /// Who keeps snapshots, if anybody does.
    #[must_use]
    pub fn keeping(&self) -> Option<&Arc<SnapshotManager>> {
        self.keeping.get()
    }

    /// The partition in which this user's inbox lives.
    #[must_use]
    pub fn home(&self, user: UserId) -> i32 {
        let partitions = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        self.partitioner.partition_for(user.record_key().as_bytes(), partitions)
    }

    /// Every partition with its number.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Partition)> {
        (0..).zip(&self.partitions)
    }

    /// The partition of this number.
    #[must_use]
    pub fn partition(&self, number: i32) -> Option<&Partition> {
        usize::try_from(number).ok().and_then(|index| self.partitions.get(index))
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Answers a query about this user's inbox. Waits for at most `patience` until its partition is
    /// live and has come as far as the query asks for, and for as long as the query says until
    /// there is something.
    ///
    /// # Errors
    /// [`NotLive`], when nobody can say what the inbox holds.
    pub async fn read(
        &self,
        user: UserId,
        query: &Query,
        patience: Duration,
    ) -> Result<Page, NotLive> {
        let (home, partition) = self.at_home(user)?;
        let page = |inboxes: &inboxes::Inboxes| inboxes.page(home, user, query, self.oldest());
        let reached = query.at_least.map_or(-1, |cursor| cursor.offset);
        let mut found = partition
            .when(home, patience, |inboxes| (inboxes.last() >= reached).then(|| page(inboxes)))
            .await?;
        // A cursor from the answer to a send may be a moment ahead of the view.
        let ahead =
            |page: &Page| page.gap.is_some_and(|gap| gap.reason == page::GapReason::Unknown);
        if matches!(query.since, Since::Cursor(cursor) if cursor.partition == home) && ahead(&found)
        {
            let caught_up = |inboxes: &inboxes::Inboxes| Some(page(inboxes)).filter(|p| !ahead(p));
            found = partition.when(home, patience, caught_up).await.unwrap_or(found);
        }
        if found.items.is_empty() && found.gap.is_none() && !query.wait.is_zero() {
            let waited = tokio::time::timeout(query.wait, async {
                let mut watch = partition.watch(user);
                loop {
                    let now = partition.if_live(page).ok_or_else(|| partition.not_live(home))?;
                    if !now.items.is_empty() {
                        return Ok(now);
                    }
                    if !watch.changed().await {
                        return Err(partition.not_live(home));
                    }
                }
            });
            found = match waited.await {
                Ok(found) => found?,
                Err(_) => partition.if_live(page).unwrap_or(found),
            };
        }
        if self.counters.misplaced.load(Ordering::Relaxed) > 0
            || self.strays.load(Ordering::Relaxed)
        {
            self.add_misplaced(user, home, query, &mut found);
        }
        // Asked again after all waiting: what was read must have been ours to answer.
        self.assured(home)?;
        Ok(found)
    }

    /// The ids of the entries of this user for which an action would change something, and the
    /// partition in which they live.
    ///
    /// # Errors
    /// [`NotLive`], when nobody can say what the inbox holds.
    pub async fn would_change(
        &self,
        user: UserId,
        action: Action,
        which: &Selector,
        patience: Duration,
    ) -> Result<Vec<NotificationId>, NotLive> {
        let (home, partition) = self.at_home(user)?;
        let look = |inboxes: &inboxes::Inboxes| {
            Some(inboxes.would_change(user, action, which, self.oldest()))
        };
        partition.when(home, patience, look).await
    }

    /// Waits until the receipt at this offset of this user's partition is folded.
    ///
    /// # Errors
    /// [`NotLive`], when it is not after `patience`.
    pub async fn receipt_shown(
        &self,
        user: UserId,
        offset: i64,
        patience: Duration,
    ) -> Result<(), NotLive> {
        let (home, partition) = self.at_home(user)?;
        let folded = |inboxes: &inboxes::Inboxes| (inboxes.last_receipt() >= offset).then_some(());
        partition.when(home, patience, folded).await
    }

    /// Waits until what the log has up to this offset is in the view, for at most `patience`.
    ///
    /// # Errors
    /// [`NotLive`], when it is not.
    pub async fn reaches(
        &self,
        number: i32,
        offset: i64,
        patience: Duration,
    ) -> Result<(), NotLive> {
        let partition = self.partition(number).ok_or(NotLive::Unowned { partition: number })?;
        let folded = |inboxes: &inboxes::Inboxes| (inboxes.last() >= offset).then_some(());
        partition.when(number, patience, folded).await
    }

    /// Forgets what is too old, in every partition that is live.
    pub fn expire(&self) {
        let now_ms = Timestamp::now().as_millisecond();
        for (_, partition) in self.partitions() {
            partition.tidy(|inboxes| inboxes.expire(self.limits, now_ms));
        }
    }

    /// The record as it is to be known again, where snapshots are kept.
    fn mark(&self, record: &Record<'_>) -> Option<RecordAnchor> {
        self.keeping.get().map(|_| record.anchor())
    }

    /// Notes that the assignment holds now.
    fn assure(&self) {
        let ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.assured_ms.store(ms, Ordering::Release);
    }

    /// Whether what this instance remembers of its partitions can still be believed.
    fn assured(&self, partition: i32) -> Result<(), NotLive> {
        let assured = Duration::from_millis(self.assured_ms.load(Ordering::Acquire));
        if self.started.elapsed().saturating_sub(assured) <= LEASE {
            return Ok(());
        }
        Err(NotLive::Unowned { partition })
    }

    fn at_home(&self, user: UserId) -> Result<(i32, &Partition), NotLive> {
        let home = self.home(user);
        let partition = self.partition(home).ok_or(NotLive::Unowned { partition: home })?;
        self.assured(home)?;
        Ok((home, partition))
    }

    /// Adds what another client wrote to a partition that is not this user's home, as far as this
    /// instance owns those partitions. A cursor speaks of the home alone, so what is asked for by
    /// cursor has none of these.
    fn add_misplaced(&self, user: UserId, home: i32, query: &Query, page: &mut Page) {
        if matches!(query.since, Since::Cursor(_)) {
            return;
        }
        for (number, partition) in self.partitions().filter(|(number, _)| *number != home) {
            let stray =
                partition.if_live(|inboxes| inboxes.page(number, user, query, self.oldest()));
            if let Some(stray) = stray {
                page.merge(stray);
            }
        }
    }

    fn oldest(&self) -> i64 {
        self.limits.oldest(Timestamp::now().as_millisecond())
    }
}
