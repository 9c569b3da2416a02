//! What librdkafka's thread reports about a writer: deliveries, statistics, logs.

use std::sync::Arc;

use rdkafka::{
    ClientContext, Statistics,
    config::RDKafkaLogLevel,
    error::KafkaError,
    message::{DeliveryResult, Message as _},
    producer::ProducerContext,
    types::RDKafkaErrorCode,
};

use super::{
    acks::{AckWakeups, PendingAck},
    context::ClientLog,
    epochs::TopicEpochs,
};
use crate::AppendError;

/// The context of a writer's client and of those that replace it.
#[derive(Clone)]
pub(super) struct WriterContext {
    pub(super) log: ClientLog,
    pub(super) epochs: TopicEpochs,
    pub(super) wakeups: Arc<AckWakeups>,
}

impl ClientContext for WriterContext {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.log.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl ProducerContext for WriterContext {
    type DeliveryOpaque = Arc<PendingAck>;

    /// Only the client's own thread calls it, so reports of one partition arrive in order.
    fn delivery(&self, result: &DeliveryResult<'_>, pending: Arc<PendingAck>) {
        match result {
            // Of a record that was sent twice, the broker may not know the offset any more.
            Ok(message) if message.offset() < 0 => {
                let unknown = "the broker has the record and does not say where".into();
                pending.fail(AppendError::TimedOut(unknown), false, &self.wakeups);
            }
            Ok(message) => {
                let (partition, offset) = (message.partition(), message.offset());
                if !pending.acknowledge(partition, offset, &self.wakeups) {
                    self.epochs.request();
                }
            }
            Err((error, _)) => {
                self.log.set_suspect();
                let is_topic_missing = matches!(
                    error.rdkafka_error_code(),
                    Some(
                        RDKafkaErrorCode::UnknownTopic
                            | RDKafkaErrorCode::UnknownPartition
                            | RDKafkaErrorCode::UnknownTopicOrPartition
                    )
                );
                pending.fail(delivery_error(error), is_topic_missing, &self.wakeups);
            }
        }
    }
}

/// The error of a queued record that was not acknowledged.
fn delivery_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            AppendError::TooLarge
        }
        Some(
            code @ (RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::NotEnoughReplicas),
        ) => AppendError::Unreachable(code.to_string()),
        Some(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation),
        ) => AppendError::Refused(code.to_string()),
        // After any other error, a time-out above all, a broker may have the record.
        _ => AppendError::TimedOut(error.to_string()),
    }
}
