//! What a record of the log does to the view. Runs on the log's own thread.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering},
};

use jiff::Timestamp;
use log::{Extent, Fold, Record};
use model::{Cursor, record};
use tokio::runtime::Handle;

use super::{View, entry::Entry, inbox::Added, partition::Partition};

/// Folds the notifications' topic into a view.
pub struct Notifications {
    view: Arc<View>,
    topic: String,
    /// Where memory is freed, so that the polling thread need not.
    runtime: Handle,
    /// Partitions in which a misplaced record was found, so that each is said once.
    misplaced: HashSet<i32>,
}

impl Notifications {
    /// To be called within a tokio runtime.
    #[must_use]
    pub fn into(view: Arc<View>, topic: String) -> Self {
        Self { view, topic, runtime: Handle::current(), misplaced: HashSet::new() }
    }

    fn partition(&self, number: i32) -> Option<&Partition> {
        self.view.partition(number)
    }

    fn add(&mut self, record: &Record<'_>) -> Result<Option<Added>, record::Poison> {
        let at = Cursor::new(record.partition, record.offset);
        let time = Timestamp::from_millisecond(record.timestamp_ms).unwrap_or_default();
        let (notification, headers) =
            record::decode(record.value, record.headers.iter().copied(), at, time)?;
        let user = notification.to.id;
        let entry = Entry::new(record.offset, &notification, headers)?;
        if self.view.home(user) != record.partition {
            self.view.counters.misplaced.fetch_add(1, Ordering::Relaxed);
            if self.misplaced.insert(record.partition) {
                tracing::warn!(
                    kafka.topic = self.topic, kafka.partition = record.partition,
                    kafka.offset = record.offset, user.id = user.get(),
                    partitioner = %self.view.partitioner,
                    "a record is not in its recipient's partition: its producer uses another \
                     partitioner. Said once a partition; see the setting --partitioner",
                );
            }
        }
        Ok(self.partition(record.partition).and_then(|p| p.add(user, entry, self.view.limits)))
    }
}

impl Fold for Notifications {
    fn assigned(&mut self, partition: i32) {
        if let Some(partition) = self.partition(partition) {
            partition.assign();
        }
    }

    fn extent(&mut self, partition: i32, extent: Extent) {
        if let Some(partition) = self.partition(partition) {
            partition.set_extent(extent);
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        match self.add(record) {
            Ok(Some(Added::New)) => {
                self.view.counters.folded.fetch_add(1, Ordering::Relaxed);
            }
            Ok(Some(Added::Duplicate)) => {
                self.view.counters.duplicates.fetch_add(1, Ordering::Relaxed);
            }
            Ok(None) => {}
            Err(poison) => {
                self.view.counters.poison.fetch_add(1, Ordering::Relaxed);
                if let Some(partition) = self.partition(record.partition) {
                    partition.skip(record.offset);
                }
                tracing::warn!(
                    kafka.topic = self.topic, kafka.partition = record.partition,
                    kafka.offset = record.offset, reason = %poison,
                    "skipped a record that is not a notification",
                );
            }
        }
    }

    fn live(&mut self, partition: i32) {
        let took = self.partition(partition).and_then(Partition::go_live);
        if let Some(took) = took {
            tracing::info!(
                kafka.topic = self.topic, kafka.partition = partition,
                rebuild_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
                "partition is live",
            );
        }
    }

    fn revoked(&mut self, partition: i32) {
        let held = self.partition(partition).and_then(Partition::revoke);
        self.runtime.spawn_blocking(move || drop(held));
    }
}
