//! Compares the position of each partition that is being read with the end that the brokers tell,
//! about once a second, and says which partitions are behind.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

use rdkafka::{
    ClientConfig, Offset,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
    types::RDKafkaErrorCode,
};

use super::{
    end_offsets::{EndOffsetQueries, EndOffsets},
    read_retries::{ReadRetries, RetryStep},
};
use crate::{
    Behind, LogUnreachable,
    behind::{BehindCause, BehindDetector, MAX_UNCONFIRMED, ReadProblem},
    partition_state::PartitionState,
};

/// How often the brokers are asked for the ends.
const QUERY_INTERVAL: Duration = Duration::from_secs(1);
/// How often positions are compared with the ends that were told.
const COMPARE_INTERVAL: Duration = Duration::from_millis(100);
/// An end that is not reached after this long may lie behind records that the client passes without
/// showing them (markers of transactions), so the client is asked for its position.
const POSITION_DELAY: Duration = Duration::from_millis(500);
/// Time after which an end that is not reached is looked into.
const INSPECTION_DELAY: Duration = Duration::from_secs(1);
/// How long an error of the client counts once every partition has reached its end.
const READ_PROBLEM_TTL: Duration = Duration::from_secs(5);

pub(super) struct BehindChecks {
    queries: EndOffsetQueries,
    detectors: BTreeMap<i32, BehindDetector>,
    /// The last error of the client that concerns a partition, while one has not reached its end.
    /// The client does not say which one.
    problem: Option<(Instant, ReadProblem)>,
    /// `None`: ask at once.
    queried_at: Option<Instant>,
    compared_at: Instant,
    inspected_at: Instant,
    retries: ReadRetries,
}

/// The result of a comparison.
#[derive(Default)]
pub(super) struct BehindReport {
    /// Every partition, and since when and why it is behind; `None` while it follows.
    pub(super) partitions: Vec<(i32, Option<Behind>)>,
    /// Partitions whose low watermark and stable end have to be asked for.
    pub(super) inspect: Vec<i32>,
    /// Partitions that the client has to pause, and those that it has to read again from where they
    /// are.
    pub(super) pause: Vec<i32>,
    pub(super) retry: Vec<i32>,
}

impl BehindChecks {
    /// `config` is that of the client that asks for the ends.
    pub(super) fn start(config: ClientConfig, topic: &str) -> Result<Self, LogUnreachable> {
        let now = Instant::now();
        Ok(Self {
            queries: EndOffsetQueries::start_thread(config, topic.to_owned())?,
            detectors: BTreeMap::new(),
            problem: None,
            queried_at: None,
            compared_at: now,
            inspected_at: now,
            retries: ReadRetries::default(),
        })
    }

    /// The partition was assigned or reset.
    pub(super) fn begin(&mut self, partition: i32) {
        self.detectors.insert(partition, BehindDetector::new(Instant::now()));
        self.queried_at = None;
    }

    pub(super) fn end(&mut self, partitions: &[i32]) {
        self.detectors.retain(|partition, _| !partitions.contains(partition));
        self.retries.end(partitions);
    }

    pub(super) fn note_error(&mut self, code: RDKafkaErrorCode) {
        if let Some(problem) = read_problem(code) {
            self.problem = Some((Instant::now(), problem));
        }
    }

    /// True while the client cannot read a batch.
    pub(super) fn has_bad_batch(&self) -> bool {
        self.problem.is_some_and(|(_, problem)| problem.is_bad_batch())
    }

    /// The answer about a partition to inspect: everything below `low` is gone, and everything below
    /// `stable_end` belongs to no unfinished transaction.
    pub(super) fn on_inspected(&mut self, partition: i32, low: i64, stable_end: i64) {
        if let Some(detector) = self.detectors.get_mut(&partition) {
            detector.on_stable_end(stable_end);
            detector.on_position(Instant::now(), low);
        }
    }

    /// Does what is due; `None` if nothing is.
    pub(super) fn run<C: ConsumerContext>(
        &mut self,
        states: impl Iterator<Item = (i32, PartitionState)>,
        consumer: &BaseConsumer<C>,
    ) -> Option<BehindReport> {
        let now = Instant::now();
        if now - self.compared_at < COMPARE_INTERVAL || self.detectors.is_empty() {
            return None;
        }
        self.compared_at = now;
        let mut live = Vec::new();
        for (partition, state) in states {
            if let (Some(next), Some(detector)) =
                (state.next_offset(), self.detectors.get_mut(&partition))
            {
                detector.on_position(now, next);
            }
            if state.is_live() {
                live.push(partition);
            }
        }
        while let Some(EndOffsets { sent_at, ends }) = self.queries.try_answer() {
            for (partition, end) in ends {
                if let Some(detector) = self.detectors.get_mut(&partition) {
                    detector.on_end(sent_at, end);
                }
            }
        }
        if self.queried_at.is_none_or(|at| now - at >= QUERY_INTERVAL) {
            self.queried_at = Some(now);
            self.queries.send(self.detectors.keys().copied().collect());
        }
        if !self.with_target_age(now, POSITION_DELAY).is_empty() {
            self.take_positions(now, consumer);
        }
        let mut report = BehindReport::default();
        if now - self.inspected_at >= INSPECTION_DELAY {
            self.inspected_at = now;
            report.inspect = self.with_target_age(now, INSPECTION_DELAY);
            if report.inspect.is_empty() {
                self.problem = self.problem.filter(|(at, _)| now - *at < READ_PROBLEM_TTL);
            }
        }
        let problem = self.problem.map(|(_, problem)| problem);
        let moved_at = self.detectors.values().map(BehindDetector::moved_at).max();
        for (partition, detector) in &mut self.detectors {
            let is_live = live.contains(partition);
            let found = detector.check(now, is_live, moved_at.unwrap_or(now), problem);
            let is_unreadable = match found {
                Some((_, BehindCause::Unreadable { problem, .. })) => {
                    problem.is_bad_batch() && now - detector.moved_at() > MAX_UNCONFIRMED
                }
                _ => false,
            };
            match self.retries.next_step(*partition, is_unreadable, now) {
                Some(RetryStep::Pause) => report.pause.push(*partition),
                Some(RetryStep::Retry) => report.retry.push(*partition),
                None => {}
            }
            let behind = found.map(|(since, cause)| Behind {
                since: SystemTime::now() - now.saturating_duration_since(since),
                cause: cause.to_string(),
            });
            report.partitions.push((*partition, behind));
        }
        Some(report)
    }

    fn with_target_age(&self, now: Instant, age: Duration) -> Vec<i32> {
        let is_older =
            |detector: &BehindDetector| detector.target_age(now).is_some_and(|a| a > age);
        let older = self.detectors.iter().filter(|(_, detector)| is_older(detector));
        older.map(|(partition, _)| *partition).collect()
    }

    fn take_positions<C: ConsumerContext>(&mut self, now: Instant, consumer: &BaseConsumer<C>) {
        let Ok(positions) = consumer.position() else { return };
        for element in positions.elements() {
            if let (Offset::Offset(position), Some(detector)) =
                (element.offset(), self.detectors.get_mut(&element.partition()))
            {
                detector.on_position(now, position);
            }
        }
    }
}

/// Classifies an error that the client reports when it polls. `None` for errors of connections.
fn read_problem(code: RDKafkaErrorCode) -> Option<ReadProblem> {
    match code {
        RDKafkaErrorCode::BrokerTransportFailure
        | RDKafkaErrorCode::AllBrokersDown
        | RDKafkaErrorCode::Resolve
        | RDKafkaErrorCode::OperationTimedOut
        | RDKafkaErrorCode::UnknownTopic
        | RDKafkaErrorCode::UnknownPartition
        | RDKafkaErrorCode::UnknownTopicOrPartition => None,
        RDKafkaErrorCode::BadCompression => Some(ReadProblem::Compression),
        RDKafkaErrorCode::BadMessage | RDKafkaErrorCode::InvalidMessage => {
            Some(ReadProblem::Checksum)
        }
        RDKafkaErrorCode::NotImplemented => Some(ReadProblem::Format),
        RDKafkaErrorCode::TopicAuthorizationFailed => Some(ReadProblem::Forbidden),
        _ => Some(ReadProblem::Other),
    }
}

pub(super) fn log_failure(topic: &str, partition: i32, outcome: rdkafka::error::KafkaResult<()>) {
    if let Err(error) = outcome {
        tracing::debug!(
            kafka.topic = topic, kafka.partition = partition, %error,
            "cannot retry an unreadable batch yet",
        );
    }
}
