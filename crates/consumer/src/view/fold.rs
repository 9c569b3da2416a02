//! What a record of the log does to the view: one fold for each of the two topics. Each runs on a
//! thread of the log's own.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::{Arc, atomic::Ordering},
};

use crate::metrics::{DELIVERY_SECONDS, REBUILD_SECONDS};
use event_log::{PartitionHandler, Record, RecordOutcome, StartAt, Watermarks};
use jiff::Timestamp;
use metrics::{Histogram, histogram};
use model::{Cursor, record};
use service::ops::trace;
use tokio::runtime::Handle;

use super::{
    View,
    entry::Entry,
    inbox::Added,
    partition::{Folded, Partition},
    rebuild::Source,
};

/// Somebody who must know which partitions are ours.
pub trait Ownership: Send + 'static {
    /// The partition is ours, and is being rebuilt.
    fn assigned(&mut self, partition: i32);
    /// The partition is ours no longer.
    fn revoked(&mut self, partition: i32);
}

/// Why a second notification of one id, which is not the first one again, is set aside.
const REUSED: &str = "its Idempotency-Key was used before, for a notification with another content";

/// Says that a partition is live, which either of the two folds may be the one to find out.
pub type SayLive = Arc<dyn Fn(i32) + Send + Sync>;

/// Folds the notifications' topic into a view.
pub struct Notifications<O> {
    view: Arc<View>,
    topic: String,
    ownership: O,
    say_live: SayLive,
    /// Where memory is freed, so that the polling thread need not.
    runtime: Handle,
    /// Partitions in which a misplaced record was found, so that each is said once.
    misplaced: HashSet<i32>,
    /// From a notification's time to its being in the view.
    applied: Histogram,
}

impl<O: Ownership> Notifications<O> {
    /// To be called within a tokio runtime.
    #[must_use]
    pub fn into(view: Arc<View>, topic: String, ownership: O, say_live: SayLive) -> Self {
        let runtime = Handle::current();
        let applied = histogram!(DELIVERY_SECONDS, "stage" => "applied");
        Self { view, topic, ownership, say_live, runtime, misplaced: HashSet::new(), applied }
    }

    /// Moves the view on over a record that is nobody's.
    fn pass(&self, record: &Record<'_>) {
        if let Some(partition) = self.view.partition(record.partition) {
            let mark = self.view.mark(record);
            partition.fold(Source::Notifications, record.offset, mark, |_| ());
        }
    }

    fn add(&mut self, record: &Record<'_>) -> Result<Option<Added>, record::DecodeError> {
        let at = Cursor::new(record.partition, record.offset);
        let time = Timestamp::from_millisecond(record.timestamp_ms).unwrap_or_default();
        let (notification, headers) =
            record::decode_notification(record.value, record.headers.iter().copied(), at, time)?;
        let user = notification.to.id;
        let traced = trace::is_recorded().then(|| headers.traceparent.clone()).flatten();
        let entry = Entry::new(record.offset, &notification, headers)?;
        let misplaced = self.view.home(user) != record.partition;
        if misplaced && self.misplaced.insert(record.partition) {
            tracing::warn!(
                kafka.topic = self.topic, kafka.partition = record.partition,
                kafka.offset = record.offset, user.id = user.get(),
                partitioner = %self.view.partitioner,
                "a record is not in its recipient's partition: its producer uses another \
                 partitioner. Said once a partition; see the setting --partitioner",
            );
        }
        let sent_at_ms = entry.sent_at_ms;
        let (limits, now_ms) = (self.view.limits, Timestamp::now().as_millisecond());
        let age_ms = now_ms.saturating_sub(sent_at_ms).max(0);
        let Some(partition) = self.view.partition(record.partition) else { return Ok(None) };
        let mark = self.view.mark(record);
        let folded = partition.fold(Source::Notifications, record.offset, mark, |inboxes| {
            inboxes.add(user, entry, limits, now_ms)
        });
        let Some(Folded { what, live }) = folded else { return Ok(None) };
        if what == Added::New {
            let counters = &self.view.counters;
            let counted = if misplaced { &counters.misplaced } else { &counters.folded };
            counted.fetch_add(1, Ordering::Relaxed);
            // A replay says nothing of how long anything takes, and has no time to lose.
            if live {
                self.applied.record(age_ms as f64 / 1000.0);
                if let Some(traceparent) = traced {
                    trace::delivered(&traceparent, sent_at_ms, record.partition, record.offset);
                }
            }
            partition.wake(user);
        }
        Ok(Some(what))
    }
}

impl<O: Ownership> PartitionHandler for Notifications<O> {
    fn on_assigned(&mut self, number: i32) -> StartAt {
        let Some(partition) = self.view.partition(number) else { return StartAt::Beginning };
        let restored = self.view.keeping().and_then(|keeping| keeping.take(number));
        if restored.as_ref().is_some_and(|restored| restored.strays) {
            self.view.strays.store(true, Ordering::Relaxed);
        }
        let start = partition.assign(restored);
        self.ownership.assigned(number);
        start
    }

    fn on_watermarks(&mut self, partition: i32, extent: Watermarks) {
        if let Some(partition) = self.view.partition(partition) {
            partition.set_extent(Source::Notifications, extent);
        }
    }

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        if record::is_canary(record.key, record.headers.iter().copied()) {
            self.pass(record);
            return RecordOutcome::Applied;
        }
        match self.add(record) {
            Ok(Some(Added::Duplicate)) => {
                self.view.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                RecordOutcome::Applied
            }
            Ok(Some(Added::Conflict)) => {
                self.view.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                say_set_aside(&self.topic, record, &REUSED);
                RecordOutcome::Poison(REUSED.into())
            }
            Ok(Some(Added::New | Added::Known) | None) => RecordOutcome::Applied,
            Err(poison) => {
                self.view.counters.poison.fetch_add(1, Ordering::Relaxed);
                self.pass(record);
                say_set_aside(&self.topic, record, &poison);
                RecordOutcome::Poison(poison.to_string())
            }
        }
    }

    fn on_live(&mut self, number: i32) {
        caught_up(&self.view, Source::Notifications, number, &self.say_live);
    }

    fn on_revoked(&mut self, number: i32) {
        let released = self.view.partition(number).map(Partition::revoke).unwrap_or_default();
        self.ownership.revoked(number);
        match (released.inboxes, self.view.keeping()) {
            (Some(inboxes), Some(keeping)) if released.whole => {
                keeping.released(number, inboxes, &self.runtime);
            }
            (held, _) => drop(self.runtime.spawn_blocking(move || drop(held))),
        }
    }

    fn on_reset(&mut self, number: i32, _: &str) {
        let partition = self.view.partition(number);
        let used = partition.is_some_and(|partition| partition.set_void(Source::Notifications));
        if let Some(keeping) = self.view.keeping() {
            keeping.void(number, used);
        }
    }

    fn take_invalidated(&mut self) -> Option<i32> {
        let mut partitions = self.view.partitions();
        partitions.find(|(_, partition)| partition.is_void()).map(|(number, _)| number)
    }

    fn renew_lease(&mut self) {
        self.view.assure();
    }
}

/// Folds the receipts' topic into a view. Which of its partitions are read is decided by those of
/// the notifications.
pub struct Receipts {
    view: Arc<View>,
    topic: String,
    say_live: SayLive,
}

impl Receipts {
    /// Into this view, from this topic.
    #[must_use]
    pub fn into(view: Arc<View>, topic: String, say_live: SayLive) -> Self {
        Self { view, topic, say_live }
    }
}

impl PartitionHandler for Receipts {
    fn on_assigned(&mut self, partition: i32) -> StartAt {
        let partition = self.view.partition(partition);
        partition.map_or(StartAt::Beginning, |partition| partition.follow(Source::Receipts))
    }

    fn on_watermarks(&mut self, partition: i32, extent: Watermarks) {
        if let Some(partition) = self.view.partition(partition) {
            partition.set_extent(Source::Receipts, extent);
        }
    }

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let Some(partition) = self.view.partition(record.partition) else {
            return RecordOutcome::Applied;
        };
        let (limits, mark) = (self.view.limits, self.view.mark(record));
        match record::decode_receipt(record.value) {
            Ok(receipt) => {
                let folded = partition.fold(Source::Receipts, record.offset, mark, |inboxes| {
                    inboxes.mark(&receipt, record.offset, limits);
                });
                if folded.is_some() {
                    self.view.counters.receipts.fetch_add(1, Ordering::Relaxed);
                }
                partition.wake_for(receipt, record.offset);
                RecordOutcome::Applied
            }
            Err(poison) => {
                self.view.counters.poison_receipts.fetch_add(1, Ordering::Relaxed);
                partition.fold(Source::Receipts, record.offset, mark, |_| ());
                say_set_aside(&self.topic, record, &poison);
                RecordOutcome::Poison(poison.to_string())
            }
        }
    }

    fn on_live(&mut self, number: i32) {
        caught_up(&self.view, Source::Receipts, number, &self.say_live);
    }

    fn on_revoked(&mut self, _: i32) {
        // The notifications' fold has taken the partition back already.
    }

    fn on_reset(&mut self, partition: i32, _: &str) {
        // It is the notifications' to start over, with these after them: what was folded of the
        // two cannot be told apart.
        if let Some(partition) = self.view.partition(partition) {
            partition.set_void(Source::Receipts);
        }
    }
}

fn caught_up(view: &View, source: Source, number: i32, say_live: &SayLive) {
    if let Some(took) = view.partition(number).and_then(|partition| partition.caught_up(source)) {
        histogram!(REBUILD_SECONDS).record(took);
        tracing::info!(
            kafka.partition = number,
            rebuild_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "partition is live",
        );
        say_live(number);
    }
}

fn say_set_aside(topic: &str, record: &Record<'_>, why: &dyn Display) {
    tracing::warn!(
        kafka.topic = topic, kafka.partition = record.partition, kafka.offset = record.offset,
        reason = %why, "set a record aside",
    );
}
