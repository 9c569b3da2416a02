//! Append and acknowledgement.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

#[cfg(feature = "embedded")]
use crate::embedded;
#[cfg(feature = "kafka")]
use crate::kafka;
use crate::{NewRecord, Position, poison::PoisonRecord};

/// Appends to a log. A cheap handle, to be cloned.
#[derive(Clone)]
pub enum Writer {
    /// To Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::KafkaWriter),
    /// To SQLite.
    #[cfg(feature = "embedded")]
    Embedded(embedded::EmbeddedWriter),
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full. The record was not written; retry soon.
    #[error("the queue of unacknowledged records is full")]
    Full,
    /// The log is away. The record was not written; retry when it is back.
    #[error("the log is not reachable: {0}")]
    Unreachable(String),
    /// The log did not answer in time. The record may or may not be written.
    #[error("no acknowledgement in time: {0}")]
    TimedOut(String),
    /// The record is larger than the log allows. A retry does not help.
    #[error("the record is larger than the log allows")]
    TooLarge,
    /// The log rejected the record for another reason. It was not written.
    #[error("the log refused the record: {0}")]
    Refused(String),
}

impl Writer {
    /// Puts the record in the queue without waiting. Records of one partition are written in the
    /// order of these calls.
    ///
    /// # Errors
    /// [`AppendError`] says why the record was not queued.
    pub fn append(&self, topic: &str, record: NewRecord) -> Result<Ack, AppendError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => writer.append(topic, &record).map(Ack::Kafka),
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => writer.append(topic, record).map(Ack::Embedded),
        }
    }

    /// Appends the copy of a poison record to a dead-letter queue, to the partition of the same
    /// number.
    pub(crate) fn append_copy(
        &self,
        topic: &str,
        poison: &PoisonRecord,
        with_value: bool,
    ) -> Result<Ack, AppendError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => writer.append_copy(topic, poison, with_value).map(Ack::Kafka),
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => {
                writer.append_copy(topic, poison, with_value).map(Ack::Embedded)
            }
        }
    }

    /// Waits for every record in the queue, for at most `deadline`. Returns true if all of them were
    /// acknowledged or rejected. To be called before the process ends.
    pub async fn flush(&self, deadline: Duration) -> bool {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => writer.flush(deadline).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => writer.flush(deadline).await,
        }
    }
}

/// Resolves to the record's position once the record is durable: on all in-sync replicas of Kafka,
/// or on the disk of the embedded log. Dropping it does not withdraw the record.
#[derive(Debug)]
pub enum Ack {
    /// From Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::KafkaAck),
    /// From SQLite.
    #[cfg(feature = "embedded")]
    Embedded(embedded::EmbeddedAck),
}

impl Future for Ack {
    type Output = Result<Position, AppendError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match self.get_mut() {
            #[cfg(feature = "kafka")]
            Self::Kafka(ack) => ready!(Pin::new(ack).poll(cx)),
            #[cfg(feature = "embedded")]
            Self::Embedded(ack) => ready!(Pin::new(ack).poll(cx)),
        })
    }
}
