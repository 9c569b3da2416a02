//! The log: append-only, partitioned, keyed. Apache Kafka in production, SQLite embedded.
//!
//! One seam for both. [`Writer::append`] returns an [`Ack`] that resolves to the record's position
//! once the record is durable. A reader calls a [`PartitionHandler`] from the driver's own thread,
//! so no record is copied or queued on its way into a view, and a view can be tested without a
//! broker.
//!
//! This crate knows topics, partitions, offsets and bytes. It never knows what a record means.

pub mod topic;
pub mod record;
pub mod writer;
pub mod reader;
#[cfg_attr(
    not(feature = "kafka"),
    expect(dead_code, reason = "only brokers lose an acknowledged end")
)]
mod partition_state;
mod behind;
mod poison;
mod partition_offsets;
mod offset_tracker;
#[cfg_attr(not(feature = "kafka"), expect(dead_code, reason = "only a Kafka client is replaced"))]
mod assigned_partitions;
mod dlq;
mod commits;
#[cfg(feature = "kafka")]
pub mod kafka;
#[cfg(feature = "embedded")]
pub mod embedded;
#[cfg(feature = "mock")]
pub mod mock;
pub mod metrics;
pub mod settings;

use std::time::Duration;

use crate::metrics::{DEAD_LETTERS, REBALANCES};
use ::metrics::counter;

pub use poison::PoisonOrigin;
pub use reader::{
    Assigner, Behind, CommittedOffsets, Follower, PartitionHandler, Reader, RecordOutcome, StartAt,
    Watermarks,
};
pub use record::{AppendError, NewRecord, Position, Record, RecordAnchor};
pub use topic::{Topic, TopicError};
pub use writer::{Ack, Writer};

#[cfg(not(any(feature = "kafka", feature = "embedded")))]
compile_error!("event-log needs a driver: enable its feature `kafka` or `embedded`");

/// A log, of the kind that the settings name at the start. A cheap handle, to be cloned.
#[derive(Clone)]
pub enum Log {
    /// Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
    /// SQLite, for this process only.
    #[cfg(feature = "embedded")]
    Embedded(embedded::Embedded),
}

/// The log cannot be reached at the moment. The text says what to do and holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LogUnreachable(pub String);

impl Log {
    /// Its name in the health checks: `kafka`, or `log` for the embedded one.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(_) => "kafka",
            #[cfg(feature = "embedded")]
            Self::Embedded(_) => "log",
        }
    }

    /// Creates the topics that are missing and checks those that exist. Of the errors, only
    /// [`TopicError::Unreachable`] may pass; a person has to solve the others.
    pub async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), TopicError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.ensure_topics(topics).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => log.ensure_topics(topics).await,
        }
    }

    /// Repeats [`ensure_topics`](Self::ensure_topics) at this interval while the log is
    /// unreachable. Logs each reason once.
    pub async fn await_topics(
        &self,
        topics: &[Topic],
        interval: Duration,
    ) -> Result<(), TopicError> {
        let mut logged = String::new();
        loop {
            match self.ensure_topics(topics).await {
                Err(TopicError::Unreachable(error)) => {
                    let error = error.to_string();
                    if error != logged {
                        tracing::warn!(%error, "waiting for the log");
                        logged = error;
                    }
                    tokio::time::sleep(interval).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// Checks within `deadline` that the log answers and still has this topic, with its partition
    /// count.
    pub async fn check_topic(&self, topic: &Topic, deadline: Duration) -> Result<(), TopicError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.check_topic(topic, deadline).await,
            // Its topics are never deleted.
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Ok(log.ping(deadline).await?),
        }
    }

    /// Asks for the topic's epoch, which the writers add to the position of each record. Readers do
    /// this themselves; a process that only writes calls it at intervals. It costs one small
    /// request.
    #[cfg_attr(
        not(feature = "kafka"),
        expect(unused_variables, clippy::unused_async, reason = "SQLite's topics never change")
    )]
    pub async fn refresh_epoch(&self, topic: &str) -> Result<(), LogUnreachable> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.refresh_epoch(topic).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(_) => Ok(()),
        }
    }

    /// A handle to append with. All of them share one queue.
    #[must_use]
    pub fn writer(&self) -> Writer {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => Writer::Kafka(log.writer()),
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Writer::Embedded(log.writer()),
        }
    }

    /// Joins `group` and reads the partitions that it assigns, each from where the handler says.
    /// Runs on a thread of its own until the reader is stopped.
    ///
    /// A record that the handler calls [`RecordOutcome::Poison`] is copied to the dead-letter queue
    /// `dlq`, if one is given: to the partition of the same number, at least once, under the key
    /// `topic/partition/offset`. The committed offset never passes a poison record that is not
    /// copied. A partition whose handler starts above the committed offset is reset, so that no
    /// poison record is missed.
    ///
    /// The reader reports as trouble if the topic has another partition count than given here.
    ///
    /// Fails if a setting of the client is wrong.
    pub fn join_group<H: PartitionHandler>(
        &self,
        topic: &Topic,
        group: &Group,
        dlq: Option<&str>,
        handler: H,
    ) -> Result<Reader, LogUnreachable> {
        // At zero from the start: Prometheus sees no increase in a counter that appears at one.
        for kind in ["assigned", "revoked", "lost"] {
            counter!(REBALANCES, "kind" => kind).increment(0);
        }
        counter!(DEAD_LETTERS).increment(0);
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.join_group(topic, group, dlq, handler),
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Ok(log.join_group(&topic.name, &group.id, dlq, handler)),
        }
    }

    /// Reads those partitions that the follower is assigned, each from where the handler says,
    /// outside any group and without commits. Runs on a thread of its own until the follower is
    /// stopped. Fails if a setting of the client is wrong.
    pub fn follow_topic<H: PartitionHandler>(
        &self,
        topic: &str,
        handler: H,
    ) -> Result<Follower, LogUnreachable> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.follow_topic(topic, handler),
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Ok(log.follow_topic(topic, handler)),
        }
    }

    /// One beyond the last offset of each of these partitions. Waits for at most `deadline`.
    #[cfg_attr(
        not(feature = "kafka"),
        expect(unused_variables, reason = "SQLite has the offsets in memory")
    )]
    pub async fn fetch_end_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        deadline: Duration,
    ) -> Result<Vec<i64>, LogUnreachable> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.fetch_end_offsets(topic, partitions, deadline).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => log.fetch_end_offsets(topic, partitions),
        }
    }

    /// Checks that the log answers within `deadline`.
    pub async fn ping(&self, deadline: Duration) -> Result<(), LogUnreachable> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.ping(deadline).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => log.ping(deadline).await,
        }
    }
}

/// A consumer group, and this member of it.
#[derive(Debug, Clone)]
pub struct Group {
    /// The group's id.
    pub id: String,
    /// This member's `group.instance.id`: a static member keeps its partitions over a short
    /// restart. `None` for a dynamic member.
    pub instance: Option<String>,
}
