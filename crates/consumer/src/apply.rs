//! Applies the records of the two topics to the view. Each topic has an applier, which runs on a
//! thread of the log's own.

use std::{
    collections::HashSet,
    fmt::Display,
    sync::{Arc, atomic::Ordering},
    time::Instant,
};

use event_log::{
    Behind, PartitionHandler, Record, RecordAnchor, RecordOutcome, StartAt, Watermarks,
};
use jiff::Timestamp;
use metrics::{Histogram, histogram};
use model::{Cursor, object::JsonError, record};
use service::ops::trace;
use tokio::runtime::Handle;

use crate::{
    metrics::{DELIVERY_SECONDS, REBUILD_SECONDS},
    snapshot::SnapshotManager,
    view::{PartitionView, View, entry::Entry, inbox::AddOutcome, rebuild::SourceTopic},
};

/// Follows which partitions this instance owns. Called on the log's threads, so it must not block.
pub trait AssignmentListener: Send + 'static {
    /// The partition was assigned to this instance, and is being rebuilt.
    fn on_assigned(&self, partition: i32);
    /// The partition answers. Either of the two appliers may be the one to report it.
    fn on_live(&self, partition: i32);
    /// The partition was revoked from this instance.
    fn on_revoked(&self, partition: i32);
}

/// Why a notification goes to the dead-letter queue although it can be decoded.
const KEY_REUSED: &str =
    "its Idempotency-Key was used before, for a notification with another content";

/// Applies the notifications' topic. It also holds the snapshots, because a partition is restored
/// when its notifications are assigned and saved when they are revoked.
pub struct NotificationApplier<L> {
    view: Arc<View>,
    topic: String,
    listener: L,
    snapshots: Option<Arc<SnapshotManager>>,
    /// The topic's epoch; the inner one is `None` if the log has none.
    topic_epoch: Option<Option<u32>>,
    /// Frees the memory of revoked partitions, so that the polling thread need not.
    runtime: Handle,
    /// Partitions for which a misplaced record was logged.
    misplaced_logged: HashSet<i32>,
    delivery_seconds: Histogram,
}

impl<L: AssignmentListener> NotificationApplier<L> {
    /// An applier for this view and topic. Must be called within a tokio runtime.
    pub fn new(
        view: Arc<View>,
        topic: String,
        listener: L,
        snapshots: Option<Arc<SnapshotManager>>,
    ) -> Self {
        Self {
            view,
            topic,
            listener,
            snapshots,
            topic_epoch: None,
            runtime: Handle::current(),
            misplaced_logged: HashSet::new(),
            delivery_seconds: histogram!(DELIVERY_SECONDS, "stage" => "applied"),
        }
    }

    /// Advances the view over a record that changes no inbox.
    fn skip_record(&self, record: &Record<'_>) {
        if let Some(partition) = self.view.partition(record.partition) {
            let anchor = anchor_if(self.snapshots.is_some(), record);
            partition.apply_record(SourceTopic::Notifications, record.offset, anchor, |_| ());
        }
    }

    fn add_notification(
        &mut self,
        record: &Record<'_>,
    ) -> Result<Option<AddOutcome>, record::DecodeError> {
        let at = Cursor::new(record.partition, record.offset);
        let time = Timestamp::from_millisecond(record.timestamp_ms).unwrap_or_default();
        let (notification, headers) =
            record::decode_notification(record.value, record.headers.iter().copied(), at, time)?;
        let user = notification.to.id;
        let traceparent = trace::is_recording().then(|| headers.traceparent.clone()).flatten();
        let entry = Entry::new(record.offset, record.timestamp_ms, &notification, headers)
            .map_err(JsonError::from)?;
        let is_misplaced = self.view.home_partition(user) != record.partition;
        if is_misplaced && self.misplaced_logged.insert(record.partition) {
            tracing::warn!(
                kafka.topic = self.topic, kafka.partition = record.partition,
                kafka.offset = record.offset, user.id = user.get(),
                partitioner = %self.view.partitioner,
                "record is not in its recipient's partition: its producer uses another \
                 partitioner, see --partitioner. Logged once a partition",
            );
        }
        let sent_at_ms = entry.sent_at_ms;
        let (limits, now_ms) = (self.view.limits, Timestamp::now().as_millisecond());
        let age_ms = now_ms.saturating_sub(sent_at_ms).max(0);
        let Some(partition) = self.view.partition(record.partition) else { return Ok(None) };
        let anchor = anchor_if(self.snapshots.is_some(), record);
        let applied =
            partition.apply_record(SourceTopic::Notifications, record.offset, anchor, |inboxes| {
                inboxes.add_entry(user, entry, limits, now_ms)
            });
        let Some((result, is_live)) = applied else { return Ok(None) };
        if result == AddOutcome::New {
            let counters = &self.view.counters;
            if is_misplaced {
                counters.misplaced.fetch_add(1, Ordering::Relaxed);
                self.view.has_misplaced.store(true, Ordering::Relaxed);
            } else {
                counters.applied.fetch_add(1, Ordering::Relaxed);
            }
            // The age of a replayed record is no delivery time, and a replay has no time to lose.
            if is_live {
                self.delivery_seconds.record(age_ms as f64 / 1000.0);
                if let Some(traceparent) = traceparent {
                    trace::record_delivery(
                        &traceparent,
                        sent_at_ms,
                        record.partition,
                        record.offset,
                    );
                }
            }
            partition.wake_readers(user);
        }
        Ok(Some(result))
    }
}

impl<L: AssignmentListener> PartitionHandler for NotificationApplier<L> {
    fn on_topic_epoch(&mut self, epoch: Option<u32>) {
        self.topic_epoch = Some(epoch);
        set_topic_epoch(&self.view, SourceTopic::Notifications, epoch);
    }

    fn on_assigned(&mut self, number: i32) -> StartAt {
        let Some(partition) = self.view.partition(number) else { return StartAt::Beginning };
        let restored = self.snapshots.as_ref().and_then(|snapshots| snapshots.take_loaded(number));
        if restored.as_ref().is_some_and(|restored| restored.has_misplaced) {
            self.view.has_misplaced.store(true, Ordering::Relaxed);
        }
        let (inboxes, entries) =
            restored.map(|restored| (restored.inboxes, restored.entries)).unwrap_or_default();
        let start = partition.assign(inboxes, entries);
        if let Some(epoch) = self.topic_epoch {
            partition.set_topic_epoch(SourceTopic::Notifications, epoch);
        }
        self.listener.on_assigned(number);
        start
    }

    fn on_watermarks(&mut self, partition: i32, watermarks: Watermarks) {
        if let Some(partition) = self.view.partition(partition) {
            partition.set_watermarks(SourceTopic::Notifications, watermarks);
        }
    }

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        if record::is_canary(record.key, record.headers.iter().copied()) {
            self.skip_record(record);
            return RecordOutcome::Applied;
        }
        match self.add_notification(record) {
            Ok(Some(AddOutcome::Duplicate)) => {
                self.view.counters.duplicates.fetch_add(1, Ordering::Relaxed);
                RecordOutcome::Applied
            }
            Ok(Some(AddOutcome::Conflict)) => {
                self.view.counters.conflicts.fetch_add(1, Ordering::Relaxed);
                log_poison(&self.topic, record, &KEY_REUSED);
                RecordOutcome::Poison(KEY_REUSED.into())
            }
            Ok(Some(AddOutcome::New | AddOutcome::AlreadyApplied) | None) => RecordOutcome::Applied,
            Err(poison) => {
                self.view.counters.poison.fetch_add(1, Ordering::Relaxed);
                self.skip_record(record);
                log_poison(&self.topic, record, &poison);
                RecordOutcome::Poison(poison.to_string())
            }
        }
    }

    fn on_live(&mut self, number: i32) {
        mark_caught_up(&self.view, SourceTopic::Notifications, number, &self.listener);
    }

    fn on_revoked(&mut self, number: i32) {
        let revoked = self.view.partition(number).and_then(PartitionView::revoke);
        self.listener.on_revoked(number);
        let Some(revoked) = revoked else { return };
        match &self.snapshots {
            Some(snapshots) if revoked.is_complete() => {
                snapshots.write_revoked(number, revoked.inboxes, &self.runtime);
            }
            _ => drop(self.runtime.spawn_blocking(move || drop(revoked))),
        }
    }

    fn on_reset(&mut self, number: i32, _: &str) {
        let partition = self.view.partition(number);
        let was_restored =
            partition.is_some_and(|partition| partition.invalidate(SourceTopic::Notifications));
        if let Some(snapshots) = &self.snapshots {
            snapshots.invalidate(number, was_restored);
        }
    }

    fn take_invalidated(&mut self) -> Option<i32> {
        let mut partitions = self.view.partitions();
        partitions.find(|(_, partition)| partition.is_invalid()).map(|(number, _)| number)
    }

    fn wants_behind(&self) -> bool {
        true
    }

    fn on_behind(&mut self, partition: i32, behind: Option<&Behind>) {
        if let Some(partition) = self.view.partition(partition) {
            partition.set_behind(SourceTopic::Notifications, behind.map(Into::into));
        }
    }

    fn on_lost_records(&mut self, partition: i32, next: i64) {
        if let Some(partition) = self.view.partition(partition) {
            partition.note_lost_records(SourceTopic::Notifications, next);
        }
    }

    fn renew_lease(&mut self, until: Instant) {
        self.view.renew_lease(until);
    }
}

/// Applies the receipts' topic. Its partitions follow those of the notifications.
pub struct ReceiptApplier<L> {
    view: Arc<View>,
    topic: String,
    listener: L,
    keeps_anchors: bool,
    /// See [`NotificationApplier`].
    topic_epoch: Option<Option<u32>>,
}

impl<L: AssignmentListener> ReceiptApplier<L> {
    /// An applier for this view and topic. `keeps_anchors` if snapshots are kept.
    pub fn new(view: Arc<View>, topic: String, listener: L, keeps_anchors: bool) -> Self {
        Self { view, topic, listener, keeps_anchors, topic_epoch: None }
    }
}

impl<L: AssignmentListener> PartitionHandler for ReceiptApplier<L> {
    fn on_topic_epoch(&mut self, epoch: Option<u32>) {
        self.topic_epoch = Some(epoch);
        set_topic_epoch(&self.view, SourceTopic::Receipts, epoch);
    }

    fn on_assigned(&mut self, partition: i32) -> StartAt {
        let Some(partition) = self.view.partition(partition) else { return StartAt::Beginning };
        if let Some(epoch) = self.topic_epoch {
            partition.set_topic_epoch(SourceTopic::Receipts, epoch);
        }
        partition.start_topic(SourceTopic::Receipts)
    }

    fn on_watermarks(&mut self, partition: i32, watermarks: Watermarks) {
        if let Some(partition) = self.view.partition(partition) {
            partition.set_watermarks(SourceTopic::Receipts, watermarks);
        }
    }

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let Some(partition) = self.view.partition(record.partition) else {
            return RecordOutcome::Applied;
        };
        let (source, offset, limits) = (SourceTopic::Receipts, record.offset, self.view.limits);
        let anchor = anchor_if(self.keeps_anchors, record);
        match record::decode_receipt(record.value) {
            Ok(receipt) => {
                let applied = partition.apply_record(source, offset, anchor, |inboxes| {
                    inboxes.apply_receipt(&receipt, offset, limits);
                });
                if applied.is_some() {
                    self.view.counters.receipts.fetch_add(1, Ordering::Relaxed);
                }
                partition.push_receipt(receipt, offset);
                RecordOutcome::Applied
            }
            Err(poison) => {
                self.view.counters.poison_receipts.fetch_add(1, Ordering::Relaxed);
                partition.apply_record(source, offset, anchor, |_| ());
                log_poison(&self.topic, record, &poison);
                RecordOutcome::Poison(poison.to_string())
            }
        }
    }

    fn on_live(&mut self, number: i32) {
        mark_caught_up(&self.view, SourceTopic::Receipts, number, &self.listener);
    }

    fn on_revoked(&mut self, _: i32) {
        // The notifications' applier has revoked the partition already.
    }

    fn on_reset(&mut self, partition: i32, _: &str) {
        // An inbox does not tell apart what it has from which topic, so the notifications' applier
        // must start the whole partition over: see `take_invalidated`.
        if let Some(partition) = self.view.partition(partition) {
            partition.invalidate(SourceTopic::Receipts);
        }
    }

    fn wants_behind(&self) -> bool {
        true
    }

    fn on_behind(&mut self, partition: i32, behind: Option<&Behind>) {
        if let Some(partition) = self.view.partition(partition) {
            partition.set_behind(SourceTopic::Receipts, behind.map(Into::into));
        }
    }

    fn on_lost_records(&mut self, partition: i32, next: i64) {
        if let Some(partition) = self.view.partition(partition) {
            partition.note_lost_records(SourceTopic::Receipts, next);
        }
    }
}

/// The record's anchor, which only snapshots need.
fn anchor_if(keeps_anchors: bool, record: &Record<'_>) -> Option<RecordAnchor> {
    keeps_anchors.then(|| record.anchor())
}

fn set_topic_epoch(view: &View, source: SourceTopic, epoch: Option<u32>) {
    view.partitions().for_each(|(_, partition)| partition.set_topic_epoch(source, epoch));
}

fn mark_caught_up(
    view: &View,
    source: SourceTopic,
    number: i32,
    listener: &impl AssignmentListener,
) {
    let partition = view.partition(number);
    if let Some(took) = partition.and_then(|partition| partition.mark_caught_up(source)) {
        histogram!(REBUILD_SECONDS).record(took);
        tracing::info!(
            kafka.partition = number,
            rebuild_ms = u64::try_from(took.as_millis()).unwrap_or(u64::MAX),
            "partition is live",
        );
        listener.on_live(number);
    }
}

fn log_poison(topic: &str, record: &Record<'_>, reason: &dyn Display) {
    tracing::warn!(
        kafka.topic = topic, kafka.partition = record.partition, kafka.offset = record.offset,
        %reason, "poison record",
    );
}
