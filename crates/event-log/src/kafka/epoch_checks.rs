//! When a driver asks for the epoch of its topic, and for how long its partitions wait for it. It
//! never asks by itself.

use std::time::{Duration, Instant};

use rdkafka::{error::KafkaError, types::RDKafkaErrorCode};

use super::epochs::TopicEpochs;

/// How often the brokers are asked for the topic's epoch: after an assignment until they answer, and
/// later. It is one small request.
const EPOCH_RETRY_INTERVAL: Duration = Duration::from_millis(200);
const EPOCH_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a partition that has caught up waits for the topic's epoch before it becomes live.
const EPOCH_TIMEOUT: Duration = Duration::from_secs(10);

pub(super) struct EpochChecks {
    epochs: TopicEpochs,
    /// True while the query is not answered.
    is_queried: bool,
    queried_at: Option<Instant>,
    /// When the first assignment was made for which the topic's epoch is not confirmed.
    unconfirmed_since: Option<Instant>,
}

impl EpochChecks {
    pub(super) fn new(epochs: &TopicEpochs) -> Self {
        let epochs = epochs.clone();
        Self { epochs, is_queried: false, queried_at: None, unconfirmed_since: None }
    }

    /// Returns the epoch to go on with if the brokers have not told it for too long, though there is
    /// an assignment for which it is not confirmed.
    pub(super) fn give_up(&mut self, is_unconfirmed: bool, topic: &str) -> Option<Option<u32>> {
        if !is_unconfirmed {
            self.unconfirmed_since = None;
            return None;
        }
        let since = self.unconfirmed_since.get_or_insert_with(Instant::now);
        if since.elapsed() < EPOCH_TIMEOUT {
            return None;
        }
        tracing::warn!(
            kafka.topic = topic,
            "the brokers do not return the topic's id; cursors may have no epoch",
        );
        Some(self.epochs.known(topic))
    }

    /// Returns true if the query is to be sent now.
    pub(super) fn take_due(&mut self, is_unconfirmed: bool) -> bool {
        let interval = if is_unconfirmed { EPOCH_RETRY_INTERVAL } else { EPOCH_CHECK_INTERVAL };
        let is_due = self.queried_at.is_none_or(|at| at.elapsed() >= interval);
        if is_due && !self.is_queried {
            self.queried_at = Some(Instant::now());
            self.is_queried = true;
            return true;
        }
        false
    }

    pub(super) fn note_answer(&mut self) {
        self.is_queried = false;
    }

    /// A topic that is missing may be created again: the next query is due at once.
    pub(super) fn note_error(&mut self, error: &KafkaError) {
        if matches!(
            error.rdkafka_error_code(),
            Some(
                RDKafkaErrorCode::UnknownTopic
                    | RDKafkaErrorCode::UnknownTopicOrPartition
                    | RDKafkaErrorCode::UnknownTopicId
                    | RDKafkaErrorCode::UnknownPartition
            )
        ) {
            self.queried_at = None;
        }
    }
}
