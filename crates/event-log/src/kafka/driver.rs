//! Drives the records of each assigned partition into the handler. It reports polled records,
//! answers of the brokers and seeks to the partitions' states, and executes the actions that need
//! the brokers. The group member and the follower poll.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    message::BorrowedMessage,
    types::RDKafkaErrorCode,
};

use super::{
    KafkaSettings,
    admin::AdminHandle,
    behind_checks::{BehindChecks, BehindReport, log_failure},
    epoch_checks::EpochChecks,
    epochs::TopicEpochs,
    messages::read_record,
    metadata::{MetadataAnswer, MetadataQueries, MetadataQuery},
};
use crate::{
    LogUnreachable, PartitionHandler, Record, Watermarks,
    assigned_partitions::AssignedPartitions,
    partition_offsets::AssignmentEpoch,
    partition_state::{Action, Actions, OffsetGap, PartitionState, ResetReason},
    reader::ReaderStatus,
    topic::changed_count_trouble,
};

/// How often the brokers are asked for the topic's partition count and the partitions' ends.
const METADATA_CHECK_INTERVAL: Duration = Duration::from_secs(30);
/// How often the handler and the tracker are asked for a partition to reset.
const RESET_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How often at most the brokers are asked about gaps between offsets.
const GAP_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How often at most the same error of the client is logged.
const ERROR_LOG_INTERVAL: Duration = Duration::from_secs(60);
/// A seek is handled by librdkafka's own thread and needs no broker.
const SEEK_TIMEOUT: Duration = Duration::from_millis(500);

pub(super) struct PartitionDriver<H> {
    pub(super) partitions: AssignedPartitions<H>,
    queries: MetadataQueries,
    /// `None` if the handler does not want them.
    behind: Option<BehindChecks>,
    epoch: EpochChecks,
    /// See [`take_stale_client`](Self::take_stale_client).
    is_client_stale: bool,
    /// The widest gap of each partition that the brokers have not been asked about yet.
    gaps: HashMap<i32, OffsetGap>,
    metadata_checked_at: Option<Instant>,
    resets_checked_at: Instant,
    gaps_checked_at: Instant,
    /// The error of the client that was logged last, and when.
    last_error: Option<(Instant, Option<RDKafkaErrorCode>)>,
    /// The partition count that the topic must have. `None` if it does not matter.
    partition_count: Option<u32>,
    status: Arc<ReaderStatus>,
}

impl<H: PartitionHandler> PartitionDriver<H> {
    pub(super) fn new(
        settings: &KafkaSettings,
        admin: AdminHandle,
        epochs: &TopicEpochs,
        topic: &str,
        partition_count: Option<u32>,
        status: Arc<ReaderStatus>,
        handler: H,
    ) -> Result<Self, LogUnreachable> {
        let queries = MetadataQueries::start_thread(admin, epochs.clone(), topic.to_owned())?;
        let ends = settings.end_offset_config();
        let behind =
            handler.wants_behind().then(|| BehindChecks::start(ends, topic)).transpose()?;
        Ok(Self {
            partitions: AssignedPartitions::new(topic, handler, None),
            queries,
            behind,
            epoch: EpochChecks::new(epochs),
            is_client_stale: false,
            gaps: HashMap::new(),
            metadata_checked_at: None,
            resets_checked_at: Instant::now(),
            gaps_checked_at: Instant::now(),
            last_error: None,
            partition_count,
            status,
        })
    }

    /// Returns where the client has to start reading.
    pub(super) fn assign_partition(&mut self, partition: i32) -> Offset {
        self.revoke_partitions(&[partition]);
        let topic = self.partitions.topic();
        tracing::info!(kafka.topic = topic, kafka.partition = partition, "partition assigned");
        let state = self.partitions.assign(partition, None);
        self.begin_reading(partition);
        // With the anchor, to verify that it is there and unchanged.
        state.anchor().map_or(Offset::Beginning, |anchor| Offset::Offset(anchor.offset))
    }

    /// Returns the positions that are still to be committed.
    pub(super) fn revoke_partitions(&mut self, partitions: &[i32]) -> Vec<(i32, i64)> {
        let topic = self.partitions.topic();
        for partition in partitions.iter().filter(|number| self.partitions.is_assigned(**number)) {
            tracing::info!(kafka.topic = topic, kafka.partition = partition, "partition revoked");
        }
        self.gaps.retain(|partition, _| !partitions.contains(partition));
        if let Some(behind) = &mut self.behind {
            behind.end(partitions);
        }
        self.partitions.revoke(partitions)
    }

    fn begin_reading(&mut self, partition: i32) {
        self.query(partition, MetadataQuery::Watermarks);
        if let Some(behind) = &mut self.behind {
            behind.begin(partition);
        }
    }

    /// Handles what the client's poll returned. Fails if the client has failed for good.
    pub(super) fn handle_polled(
        &mut self,
        polled: Option<KafkaResult<BorrowedMessage<'_>>>,
    ) -> Result<(), RDKafkaErrorCode> {
        match polled {
            Some(Ok(message)) => {
                // Of a partition that was revoked since the client fetched it, it has no effect.
                let record = read_record(&message);
                if self.is_repeated(&record) {
                    return Ok(());
                }
                self.transition(record.partition, Some(&record), |state| state.on_record(&record));
            }
            Some(Err(KafkaError::PartitionEOF(partition))) => {
                self.transition(partition, None, |state| state.on_end(None));
            }
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => return Err(code),
            Some(Err(error)) => {
                self.epoch.note_error(&error);
                if let (Some(behind), Some(code)) = (&mut self.behind, error.rdkafka_error_code()) {
                    behind.note_error(code);
                }
                self.log_consumer_error(&error);
            }
            None => {}
        }
        Ok(())
    }

    /// At a damaged batch librdkafka may lose its place and begin at the first offset again.
    fn is_repeated(&self, record: &Record<'_>) -> bool {
        self.behind.as_ref().is_some_and(BehindChecks::has_bad_batch)
            && self
                .partitions
                .state(record.partition)
                .and_then(PartitionState::next_offset)
                .is_some_and(|next| record.offset < next)
    }

    fn transition(
        &mut self,
        partition: i32,
        record: Option<&Record<'_>>,
        event: impl FnOnce(&mut PartitionState) -> Actions,
    ) {
        for action in self.partitions.transition(partition, record, event) {
            match action {
                Action::Reset(_) => {
                    self.gaps.remove(&partition);
                    self.begin_reading(partition);
                }
                Action::AskAboutGap(gap) => {
                    let widest = self.gaps.entry(partition).or_insert(gap);
                    if gap.len() > widest.len() {
                        *widest = gap;
                    }
                }
                Action::ConfirmEndOffset { next } => self.query(partition, |assignment| {
                    MetadataQuery::EndOffset { assignment, next, is_confirmation: true }
                }),
                Action::Apply | Action::BecomeLive => {}
            }
        }
    }

    /// Does what is due apart from records: answers of the brokers, resets, seeks and queries.
    pub(super) fn run_checks<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        while let Some(answer) = self.queries.try_answer() {
            match answer {
                MetadataAnswer::PartitionCount(count) => self.check_partition_count(count),
                MetadataAnswer::Watermarks(query, watermarks) => {
                    self.handle_watermarks(query, watermarks);
                }
                MetadataAnswer::TopicEpoch(assignment, epoch) => {
                    self.epoch.note_answer();
                    self.confirm_topic_epoch(assignment, epoch);
                }
                MetadataAnswer::TopicEpochUnknown => self.epoch.note_answer(),
            }
        }
        self.query_topic_epoch();
        if is_due(&mut self.resets_checked_at, RESET_CHECK_INTERVAL)
            && let Some((partition, reason)) = self.partitions.next_reset()
        {
            self.transition(partition, None, |state| state.reset(reason));
        }
        self.seek_to_beginning(consumer);
        self.check_behind(consumer);
        if is_due(&mut self.gaps_checked_at, GAP_CHECK_INTERVAL) {
            for (partition, gap) in std::mem::take(&mut self.gaps) {
                self.query(partition, |assignment| MetadataQuery::Gap { assignment, gap });
            }
        }
        if self.metadata_checked_at.is_none_or(|at| at.elapsed() >= METADATA_CHECK_INTERVAL) {
            self.metadata_checked_at = Some(Instant::now());
            if self.partition_count.is_some() {
                self.queries.send(MetadataQuery::PartitionCount);
            }
            for (partition, state) in self.partitions.states() {
                if let Some(next) = state.next_offset() {
                    self.query(partition, |assignment| MetadataQuery::EndOffset {
                        assignment,
                        next,
                        is_confirmation: false,
                    });
                }
            }
        }
    }

    fn check_behind<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        let Some(checks) = &mut self.behind else { return };
        let Some(report) = checks.run(self.partitions.states(), consumer) else { return };
        let BehindReport { partitions, inspect, pause, retry } = report;
        for (partition, behind) in partitions {
            self.partitions.report_behind(partition, behind);
        }
        for partition in inspect {
            self.query(partition, MetadataQuery::Inspect);
        }
        let topic = self.partitions.topic();
        let listed = |partition| {
            let mut list = TopicPartitionList::new();
            list.add_partition(topic, partition);
            list
        };
        for partition in pause {
            log_failure(topic, partition, consumer.pause(&listed(partition)));
        }
        for partition in retry {
            let next = self.partitions.state(partition).and_then(PartitionState::next_offset);
            if let Some(next) = next {
                let sought = consumer.seek(topic, partition, Offset::Offset(next), SEEK_TIMEOUT);
                log_failure(topic, partition, sought);
            }
            log_failure(topic, partition, consumer.resume(&listed(partition)));
        }
    }

    /// Asks for the topic's epoch if that is due. A topic that was deleted and created again has
    /// another one. Without an answer for too long, the partitions go on with what is known.
    fn query_topic_epoch(&mut self) {
        let unconfirmed = self.partitions.unconfirmed_assignment();
        let known = self.epoch.give_up(unconfirmed.is_some(), self.partitions.topic());
        if let (Some(assignment), Some(known)) = (unconfirmed, known) {
            self.confirm_topic_epoch(assignment, known);
        }
        let last = self.partitions.last_assignment();
        if last > 0 && self.epoch.take_due(unconfirmed.is_some()) {
            self.queries.send(MetadataQuery::TopicEpoch(last));
        }
    }

    /// True once after the topic was created again. The client must then be replaced: it ignores the
    /// new topic's leaders if their epochs are lower than the earlier ones' (librdkafka 2.12,
    /// `rd_kafka_toppar_leader_update`).
    pub(super) fn take_stale_client(&mut self) -> bool {
        std::mem::take(&mut self.is_client_stale)
    }

    fn confirm_topic_epoch(&mut self, assignment: u64, epoch: Option<u32>) {
        let earlier = self.partitions.confirm_topic_epoch(assignment, epoch);
        if earlier.is_empty() {
            return;
        }
        self.is_client_stale = true;
        for partition in earlier {
            self.transition(partition, None, |state| state.reset(ResetReason::TopicRecreated));
        }
        self.partitions.report_topic_epoch();
    }

    /// Has the client seek in those partitions that were reset. A seek fails while the client has
    /// not begun to fetch after an assignment; the next call tries again.
    fn seek_to_beginning<C: ConsumerContext>(&mut self, consumer: &BaseConsumer<C>) {
        let needs_seek = self.partitions.states().filter(|(_, state)| state.needs_seek());
        for partition in needs_seek.map(|(partition, _)| partition).collect::<Vec<_>>() {
            let topic = self.partitions.topic();
            match consumer.seek(topic, partition, Offset::Beginning, SEEK_TIMEOUT) {
                Ok(()) => self.transition(partition, None, |state| state.on_seek(None)),
                Err(error) => tracing::debug!(
                    kafka.topic = topic, kafka.partition = partition, %error,
                    "cannot seek to the beginning of the partition yet",
                ),
            }
        }
    }

    fn log_consumer_error(&mut self, error: &KafkaError) {
        let code = error.rdkafka_error_code();
        // The client's own log reports these already, for each broker and each attempt.
        let is_logged = matches!(
            code,
            Some(
                RDKafkaErrorCode::BrokerTransportFailure
                    | RDKafkaErrorCode::AllBrokersDown
                    | RDKafkaErrorCode::Resolve
            )
        );
        // The client repeats the error of a batch that it cannot read at each attempt.
        let is_repeated = self
            .last_error
            .is_some_and(|(at, last)| last == code && at.elapsed() < ERROR_LOG_INTERVAL);
        if is_logged || is_repeated {
            tracing::debug!(%error, "Kafka consumer");
        } else {
            self.last_error = Some((Instant::now(), code));
            tracing::warn!(kafka.topic = self.partitions.topic(), %error, "Kafka consumer");
        }
    }

    fn query(&self, partition: i32, query: impl FnOnce(AssignmentEpoch) -> MetadataQuery) {
        if let Some(assignment) = self.partitions.epoch(partition) {
            self.queries.send(query(assignment));
        }
    }

    fn handle_watermarks(&mut self, query: MetadataQuery, watermarks: Watermarks) {
        let Some(assignment) = query.assignment() else { return };
        let partition = assignment.partition;
        if self.partitions.epoch(partition) != Some(assignment) {
            return;
        }
        match query {
            MetadataQuery::Watermarks(_) => {
                self.partitions.report_watermarks(partition, watermarks);
            }
            MetadataQuery::EndOffset { next, is_confirmation, .. } => {
                self.transition(partition, None, |state| {
                    state.on_end_offset(next, watermarks.high, is_confirmation)
                });
            }
            MetadataQuery::Gap { gap, .. } => {
                self.partitions.report_lost_offsets(partition, gap, watermarks.low);
            }
            MetadataQuery::Inspect(_) => self.handle_inspection(partition, watermarks),
            MetadataQuery::PartitionCount | MetadataQuery::TopicEpoch(_) => {}
        }
    }

    /// The high watermark is the stable end: the admin client leaves out unfinished transactions.
    fn handle_inspection(&mut self, partition: i32, watermarks: Watermarks) {
        let Watermarks { low, high } = watermarks;
        if let Some(behind) = &mut self.behind {
            behind.on_inspected(partition, low, high);
        }
        if low < high {
            return;
        }
        // Retention removed everything that was not read yet, so no record will tell.
        match self.partitions.state(partition).and_then(PartitionState::next_offset) {
            None => self.partitions.report_emptied(partition, low),
            Some(next) if next < low => {
                self.transition(partition, None, |state| state.on_end(Some(low)));
            }
            Some(_) => {}
        }
    }

    fn check_partition_count(&self, count: u32) {
        let Some(known) = self.partition_count else { return };
        // 0 if the brokers cannot describe the topic at the moment.
        if count != 0 && count != known {
            let topic = self.partitions.topic();
            self.status.report_trouble(topic, changed_count_trouble(topic, known, count));
        }
    }
}

/// Returns true once per interval. `last` is the time of the last one.
fn is_due(last: &mut Instant, interval: Duration) -> bool {
    let due = last.elapsed() >= interval;
    if due {
        *last = Instant::now();
    }
    due
}
