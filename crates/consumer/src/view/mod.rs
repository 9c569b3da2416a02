//! The view: every inbox of the partitions that this instance owns, in memory. A pure function of
//! the log, so it can be thrown away and made again at any time.
//!
//! It is written by the fold, on the log's own thread, and read by HTTP handlers. It names neither
//! Kafka, SQL nor HTTP.
//!
//! - [`entry`]: one notification as it is kept: ready-to-send JSON;
//! - [`inbox`]: one user's entries, bounded;
//! - [`partition`]: the inboxes of one partition, behind one lock;
//! - [`page`]: what a reader takes away;
//! - [`fold`]: what a record of the log does to all of this.

pub mod entry;
pub mod inbox;
pub mod partition;
pub mod page;
pub mod fold;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use model::{Partitioner, UserId};

pub use inbox::Limits;
pub use page::Page;
pub use partition::{NotLive, Partition, Progress};

/// All partitions of the topic; those that another instance owns are empty here.
#[derive(Debug)]
pub struct View {
    partitions: Box<[Partition]>,
    partitioner: Partitioner,
    limits: Limits,
    counters: Counters,
}

/// What happened since the start; only ever grows.
#[derive(Debug, Default)]
pub struct Counters {
    /// Notifications folded, replays included.
    pub folded: AtomicU64,
    /// Notifications whose id their inbox already held.
    pub duplicates: AtomicU64,
    /// Records that were no notifications.
    pub poison: AtomicU64,
    /// Notifications found in a partition that is not their recipient's home.
    pub misplaced: AtomicU64,
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
        }
    }

    /// The partition in which this user's inbox lives.
    #[must_use]
    pub fn home(&self, user: UserId) -> i32 {
        let partitions = u32::try_from(self.partitions.len()).unwrap_or(u32::MAX);
        self.partitioner.partition(user.key().as_bytes(), partitions)
    }

    /// Every partition with its number.
    pub fn partitions(&self) -> impl Iterator<Item = (i32, &Partition)> {
        (0..).zip(&self.partitions)
    }

    /// What happened since the start.
    #[must_use]
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The whole inbox of this user. If its partition is not live, waits for that for at most
    /// `patience`.
    ///
    /// # Errors
    /// [`NotLive`], when the partition still is not live then: nobody can say what the inbox holds.
    pub async fn inbox(&self, user: UserId, patience: Duration) -> Result<Page, NotLive> {
        let home = self.home(user);
        let partition = self.partition(home).ok_or(NotLive::Unowned { partition: home })?;
        let mut page = partition.when_live(home, patience, |inboxes| inboxes.page(home, user)).await?;
        if self.counters.misplaced.load(Ordering::Relaxed) > 0 {
            self.add_misplaced(user, home, &mut page);
        }
        Ok(page)
    }

    /// Adds what another client wrote to a partition that is not this user's home, as far as this
    /// instance owns those partitions.
    fn add_misplaced(&self, user: UserId, home: i32, page: &mut Page) {
        for (number, partition) in self.partitions().filter(|(number, _)| *number != home) {
            if let Some(stray) = partition.if_live(|inboxes| inboxes.page(number, user)) {
                page.merge(stray);
            }
        }
    }

    fn partition(&self, number: i32) -> Option<&Partition> {
        usize::try_from(number).ok().and_then(|index| self.partitions.get(index))
    }
}
