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
use crate::{AppendError, NewRecord, Position};

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

impl Writer {
    /// Puts the record in the queue without waiting. Records of one partition are written in the
    /// order of these calls.
    pub fn append(&self, topic: &str, record: NewRecord) -> Result<Ack, AppendError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => {
                let NewRecord { partition, key, value, headers } = &record;
                let headers = headers.iter().map(|(name, value)| (*name, &**value));
                writer.append(topic, *partition, key, value, headers).map(Ack::Kafka)
            }
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => writer.append(topic, record).map(Ack::Embedded),
        }
    }

    /// The same with the parts of a record that the caller lends: key, value and headers as in
    /// [`NewRecord`].
    pub fn append_borrowed(
        &self,
        topic: &str,
        partition: i32,
        key: &[u8],
        value: &[u8],
        headers: &[(&'static str, &[u8])],
    ) -> Result<Ack, AppendError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(writer) => {
                let headers = headers.iter().copied();
                writer.append(topic, partition, key, value, headers).map(Ack::Kafka)
            }
            #[cfg(feature = "embedded")]
            Self::Embedded(writer) => {
                let (key, value) = (key.to_vec(), Some(value.to_vec()));
                writer.append_parts(topic, partition, key, value, headers).map(Ack::Embedded)
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
