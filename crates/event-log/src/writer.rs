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
use crate::{NewRecord, Position};

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
    /// Too much is waiting already. Nothing was written; try again soon.
    #[error("the queue of unacknowledged records is full")]
    Full,
    /// The log is away. Nothing was written; try again when it is back.
    #[error("the log is not reachable: {0}")]
    Unreachable(String),
    /// No answer in time. Whether the record was written is not known.
    #[error("no acknowledgement in time: {0}")]
    TimedOut(String),
    /// Larger than the log allows. Trying again will not help.
    #[error("the record is larger than the log allows")]
    TooLarge,
    /// The log does not take the record for another reason; nothing was written.
    #[error("the log refused the record: {0}")]
    Refused(String),
}

impl Writer {
    /// Puts the record in the queue, at once and without waiting. Records of one partition are
    /// written in the order of these calls.
    ///
    /// # Errors
    /// When it was not even queued; see [`AppendError`].
    pub fn append(&self, topic: &str, record: NewRecord) -> Result<Ack, AppendError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => writer.append(topic, &record).map(Ack::Kafka),
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => writer.append(topic, record).map(Ack::Embedded),
        }
    }

    /// Waits for every record in the queue, for at most `deadline`. True: all were acknowledged
    /// or refused. To be called before the process ends.
    pub async fn flush(&self, deadline: Duration) -> bool {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => writer.flush(deadline).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => writer.flush(deadline).await,
        }
    }
}

/// Resolves to the record's position once it is durable: with Kafka, when all in-sync replicas
/// have it; embedded, when it is on the disk. Dropping it does not take the record back.
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
