//! Drives the records of each assigned partition into the handler: executes the actions of
//! [`PartitionState`]. The group member and the follower poll, and report what they polled.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset,
    admin::AdminClient,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Message as _},
    types::RDKafkaErrorCode,
};

use super::{
    context::ClientLog,
    message::read_record,
    metadata::{AssignmentEpoch, MetadataAnswer, MetadataQueries, MetadataQuery},
};
use crate::{
    LogUnreachable, PartitionHandler, Record, RecordOutcome, Watermarks,
    offset_tracker::OffsetTracker,
    partition_state::{Action, Actions, OffsetGap, PartitionState, ResetReason},
    reader::ReaderStatus,
};

/// How often the brokers are asked for the topic's partition count and the partitions' ends.
const METADATA_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often the handler and the tracker are asked for partitions to reset.
const RESET_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How often at most the brokers are asked about gaps between offsets.
const GAP_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// A seek is handled by librdkafka's own thread and needs no broker.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct PartitionDriver<H> {
    handler: H,
    topic: String,
    partitions: HashMap<i32, AssignedPartition>,
    last_epoch: u64,
    queries: MetadataQueries,
    metadata_checked_at: Option<Instant>,
    resets_checked_at: Instant,
    gaps_checked_at: Instant,
    /// The topic's partition count when the brokers first told it.
    partition_count: Option<usize>,
    status: Arc<ReaderStatus>,
    /// `None` for a follower.
    tracker: Option<Arc<OffsetTracker>>,
}

struct AssignedPartition {
    epoch: u64,
    state: PartitionState,
    /// The widest gap that the brokers have not been asked about yet.
    gap: Option<OffsetGap>,
}

impl<H: PartitionHandler> PartitionDriver<H> {
    pub(super) fn new(
        admin: Arc<AdminClient<ClientLog>>,
        topic: &str,
        status: Arc<ReaderStatus>,
        handler: H,
    ) -> Result<Self, LogUnreachable> {
        let topic = topic.to_owned();
        let queries = MetadataQueries::start_thread(admin, topic.clone()).map_err(|error| {
            LogUnreachable(format!("cannot start the metadata thread: {error}"))
        })?;
        Ok(Self {
            handler,
            topic,
            partitions: HashMap::new(),
            last_epoch: 0,
            queries,
            metadata_checked_at: None,
            resets_checked_at: Instant::now(),
            gaps_checked_at: Instant::now(),
            partition_count: None,
            status,
            tracker: None,
        })
    }

    pub(super) fn is_assigned(&self, partition: i32) -> bool {
        self.partitions.contains_key(&partition)
    }

    pub(super) fn assigned_partitions(&self) -> Vec<i32> {
        self.partitions.keys().copied().collect()
    }

    /// Replaces the tracker. Each client of a group member has one of its own.
    pub(super) fn set_tracker(&mut self, tracker: Arc<OffsetTracker>) {
        self.tracker = Some(tracker);
    }

    pub(super) fn uses_tracker(&self, tracker: &Arc<OffsetTracker>) -> bool {
        self.tracker.as_ref().is_some_and(|used| Arc::ptr_eq(used, tracker))
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    /// Reports to the tracker how far each partition was applied.
    pub(super) fn record_progress(&self) {
        if let Some(tracker) = &self.tracker {
            tracker.record_progress(self.partitions.iter().filter_map(|(partition, assigned)| {
                Some((*partition, assigned.state.next_offset()?))
            }));
        }
    }

    /// Returns where the client has to start reading.
    pub(super) fn assign_partition(&mut self, partition: i32) -> Offset {
        self.revoke_partitions(&[partition]);
        tracing::info!(kafka.topic = self.topic, kafka.partition = partition, "partition assigned");
        let state = PartitionState::new(self.handler.on_assigned(partition), None);
        self.begin_epoch(partition, state);
        // With the anchor, to verify that it is there and unchanged.
        state.anchor().map_or(Offset::Beginning, |anchor| Offset::Offset(anchor.offset))
    }

    fn begin_epoch(&mut self, partition: i32, state: PartitionState) {
        self.last_epoch += 1;
        let assignment = AssignmentEpoch { partition, epoch: self.last_epoch };
        let assigned = AssignedPartition { epoch: self.last_epoch, state, gap: None };
        self.partitions.insert(partition, assigned);
        if let Some(tracker) = &self.tracker {
            tracker.begin_assignment(partition, state.anchor().map(|anchor| anchor.offset + 1));
        }
        self.queries.send(MetadataQuery::Watermarks(assignment));
    }

    /// Returns the positions that are still to be committed.
    pub(super) fn revoke_partitions(&mut self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let mut revoked = Vec::new();
        // The handler must stop answering from all of them at once. Ending an assignment may wait
        // for a commit.
        for partition in partitions {
            if let Some(assigned) = self.partitions.remove(partition) {
                self.handler.on_revoked(*partition);
                revoked.push((*partition, assigned.state.next_offset()));
                tracing::info!(
                    kafka.topic = self.topic,
                    kafka.partition = partition,
                    "partition revoked",
                );
            }
        }
        let Some(tracker) = &self.tracker else { return Vec::new() };
        let end = |(partition, next)| Some((partition, tracker.end_assignment(partition, next)?));
        revoked.into_iter().filter_map(end).collect()
    }

    pub(super) fn renew_lease(&mut self) {
        self.handler.renew_lease();
    }

    /// Handles what the client's poll returned.
    ///
    /// # Errors
    /// If the client has failed for good.
    pub(super) fn handle_polled(
        &mut self,
        polled: Option<KafkaResult<BorrowedMessage<'_>>>,
    ) -> Result<(), RDKafkaErrorCode> {
        match polled {
            Some(Ok(message)) => self.handle_message(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.transition(partition, |state| state.on_end(None));
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(code),
            Some(Err(error)) => log_consumer_error(&error),
            None => {}
        }
        Ok(())
    }

    fn handle_message(&mut self, message: &BorrowedMessage<'_>) {
        let partition = message.partition();
        // The client may still return a record that it fetched before a revocation.
        let Some(assigned) = self.partitions.get_mut(&partition) else { return };
        let record = read_record(message);
        let actions = assigned.state.on_record(&record);
        self.execute_actions(partition, actions, Some(&record));
    }

    fn transition(&mut self, partition: i32, event: impl FnOnce(&mut PartitionState) -> Actions) {
        if let Some(assigned) = self.partitions.get_mut(&partition) {
            let actions = event(&mut assigned.state);
            self.execute_actions(partition, actions, None);
        }
    }

    fn execute_actions(&mut self, partition: i32, actions: Actions, record: Option<&Record<'_>>) {
        for action in actions {
            match action {
                Action::Reset(reason) => self.reset_partition(partition, reason),
                Action::Apply => {
                    if let Some(record) = record {
                        self.apply_record(record);
                    }
                }
                Action::BecomeLive => self.handler.on_live(partition),
                Action::AskAboutGap(gap) => {
                    if let Some(assigned) = self.partitions.get_mut(&partition)
                        && assigned.gap.is_none_or(|widest| gap.len() > widest.len())
                    {
                        assigned.gap = Some(gap);
                    }
                }
                Action::ConfirmEndOffset { next } => self.query_end_offset(partition, next, true),
            }
        }
    }

    fn apply_record(&mut self, record: &Record<'_>) {
        if let RecordOutcome::Poison(reason) = self.handler.on_record(record)
            && let Some(tracker) = &self.tracker
        {
            tracker.add_poison(record, &reason);
        }
    }

    fn reset_partition(&mut self, partition: i32, reason: ResetReason) {
        let text = reason.text();
        if reason.is_data_loss() {
            tracing::error!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                "{text}. Was the topic deleted and created again, or did a broker lose records? \
                 What was read is dropped, and the partition is read again from its beginning",
            );
        } else {
            tracing::warn!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                "partition is reset and read from its beginning: {text}",
            );
        }
        // The transition that asked for the reset has already set the state to go on from.
        let Some(state) = self.partitions.get(&partition).map(|assigned| assigned.state) else {
            return;
        };
        self.handler.on_reset(partition, text);
        self.revoke_partitions(&[partition]);
        self.handler.on_assigned(partition);
        self.begin_epoch(partition, state);
    }

    /// Does what is due apart from records: answers of the brokers, resets, seeks and queries.
    pub(super) fn run_checks<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        while let Some(answer) = self.queries.try_answer() {
            match answer {
                MetadataAnswer::PartitionCount(count) => self.check_partition_count(count),
                MetadataAnswer::Watermarks(query, watermarks) => {
                    self.handle_watermarks(query, watermarks);
                }
            }
        }
        if is_due(&mut self.resets_checked_at, RESET_CHECK_INTERVAL) {
            if let Some(partition) = self.handler.take_invalidated() {
                self.transition(partition, |state| state.reset(ResetReason::Invalidated));
            }
            if let Some(partition) = self.tracker.as_ref().and_then(|t| t.next_behind()) {
                self.transition(partition, |state| state.reset(ResetReason::GroupBehind));
            }
        }
        self.seek_to_beginning(consumer);
        if is_due(&mut self.gaps_checked_at, GAP_CHECK_INTERVAL) {
            for (partition, assigned) in &mut self.partitions {
                if let Some(gap) = assigned.gap.take() {
                    let assignment =
                        AssignmentEpoch { partition: *partition, epoch: assigned.epoch };
                    self.queries.send(MetadataQuery::Gap { assignment, gap });
                }
            }
        }
        if self.metadata_checked_at.is_none_or(|at| at.elapsed() >= METADATA_CHECK_INTERVAL) {
            self.metadata_checked_at = Some(Instant::now());
            self.check_metadata();
        }
    }

    /// Has the client seek in those partitions that were reset. A seek fails as long as the client
    /// has not begun to fetch after an assignment; the next call tries again.
    fn seek_to_beginning<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        for (partition, assigned) in &mut self.partitions {
            if !assigned.state.needs_seek() {
                continue;
            }
            match consumer.seek(&self.topic, *partition, Offset::Beginning, SEEK_TIMEOUT) {
                Ok(()) => {
                    assigned.state.on_seek(None);
                }
                Err(error) => tracing::debug!(
                    kafka.topic = self.topic, kafka.partition = partition, %error,
                    "cannot seek to the beginning of the partition yet",
                ),
            }
        }
    }

    fn check_metadata(&self) {
        if self.tracker.is_some() {
            self.queries.send(MetadataQuery::PartitionCount);
        }
        for (partition, assigned) in &self.partitions {
            if let Some(next) = assigned.state.next_offset() {
                self.query_end_offset(*partition, next, false);
            }
        }
    }

    fn query_end_offset(&self, partition: i32, next: i64, is_confirmation: bool) {
        if let Some(AssignedPartition { epoch, .. }) = self.partitions.get(&partition) {
            let assignment = AssignmentEpoch { partition, epoch: *epoch };
            self.queries.send(MetadataQuery::EndOffset { assignment, next, is_confirmation });
        }
    }

    fn handle_watermarks(&mut self, query: MetadataQuery, watermarks: Watermarks) {
        let Some(AssignmentEpoch { partition, epoch }) = query.assignment() else { return };
        if self.partitions.get(&partition).is_none_or(|assigned| assigned.epoch != epoch) {
            return;
        }
        match query {
            MetadataQuery::Watermarks(_) => {
                self.handler.on_watermarks(partition, watermarks);
                self.transition(partition, |state| state.on_watermarks(watermarks));
            }
            MetadataQuery::EndOffset { next, is_confirmation, .. } => {
                self.transition(partition, |state| {
                    state.on_end_offset(next, watermarks.high, is_confirmation)
                });
            }
            MetadataQuery::Gap { gap, .. } => {
                let missing = gap.count_lost(watermarks.low);
                if missing > 0 {
                    tracing::error!(
                        kafka.topic = self.topic,
                        kafka.partition = partition,
                        kafka.offset = gap.from,
                        missing,
                        "retention removed {missing} offsets before they were read",
                    );
                }
            }
            MetadataQuery::PartitionCount => {}
        }
    }

    fn check_partition_count(&mut self, count: usize) {
        // 0 if the brokers cannot describe the topic at the moment.
        if count == 0 {
            return;
        }
        let known = *self.partition_count.get_or_insert(count);
        if count != known {
            let trouble = format!(
                "topic {} had {known} partitions at start and has {count} now. A user's inbox \
                 lives in a partition that follows from this number: move to a new topic, or \
                 restart every service with --partitions {count} and lose sight of what is in \
                 the partitions of before",
                self.topic
            );
            let mut reported = self.status.trouble.lock();
            if reported.as_ref() != Some(&trouble) {
                tracing::error!(kafka.topic = self.topic, "{trouble}");
                *reported = Some(trouble);
            }
        }
    }
}

/// True once per interval; sets the time of the last one.
fn is_due(last: &mut Instant, interval: Duration) -> bool {
    let due = last.elapsed() >= interval;
    if due {
        *last = Instant::now();
    }
    due
}

fn log_consumer_error(error: &KafkaError) {
    match error.rdkafka_error_code() {
        // The client's own log reports these already, for each broker and each attempt.
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve,
        ) => tracing::debug!(%error, "Kafka"),
        _ => tracing::warn!(%error, "Kafka consumer"),
    }
}
