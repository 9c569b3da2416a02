//! The log: append-only, partitioned, keyed. Apache Kafka in production, SQLite embedded.
//!
//! One seam for both. Writing is [`Writer::append`]: the [`Ack`] that it returns resolves to the
//! record's position once the record is durable. Reading drives a [`Fold`] from the driver's own
//! thread, so that no record is copied or queued on its way into a view, and a view can be tested
//! without any broker.
//!
//! This crate knows topics, partitions, offsets and bytes. It never knows what a record means.
//!
//! The modules in the order in which a record meets them:
//! - [`topic`]: what a topic has to be like;
//! - [`record`]: what is appended, and what is read back;
//! - [`writer`]: append and acknowledgement;
//! - [`reader`]: the fold and the threads that drive it;
//! - `poison`: a record that no fold understands, on its way to the dead-letter topic;
//! - [`kafka`], [`embedded`]: the two drivers;
//! - [`settings`]: flags and environment variables;
//! - [`mock`]: librdkafka's in-memory broker, for tests of the Kafka driver.

pub mod topic;
pub mod record;
pub mod writer;
pub mod reader;
mod poison;
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

pub use reader::{
    Assigner, CommittedOffsets, Follower, PartitionHandler, Reader, RecordOutcome, StartAt,
    Watermarks,
};
pub use record::{NewRecord, Position, Record, RecordAnchor};
pub use topic::{Topic, TopicError};
pub use writer::{Ack, AppendError, Writer};

#[cfg(not(any(feature = "kafka", feature = "embedded")))]
compile_error!("event-log needs a driver: enable its feature `kafka` or `embedded`");

/// A log: a cheap handle, to be cloned. Which of the two it is, is decided at start, once.
#[derive(Clone)]
pub enum Log {
    /// Apache Kafka.
    #[cfg(feature = "kafka")]
    Kafka(kafka::Kafka),
    /// SQLite, in this process alone.
    #[cfg(feature = "embedded")]
    Embedded(embedded::Embedded),
}

/// The log cannot be reached now. Says what to do; holds no secret.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{0}")]
pub struct LogUnreachable(pub String);

impl Log {
    /// Makes the topics that are missing and checks those that exist.
    ///
    /// # Errors
    /// [`TopicError::Unreachable`] may pass; every other one is for a person to mend.
    pub async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), TopicError> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.ensure_topics(topics).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => log.ensure_topics(topics).await,
        }
    }

    /// Like [`ensure_topics`](Self::ensure_topics), asked every `every` for as long as the log is
    /// away. Says once what it waits for.
    ///
    /// # Errors
    /// Those that a person must mend.
    pub async fn await_topics(&self, topics: &[Topic], every: Duration) -> Result<(), TopicError> {
        let mut said = String::new();
        loop {
            match self.ensure_topics(topics).await {
                Err(TopicError::Unreachable(error)) => {
                    let error = error.to_string();
                    if error != said {
                        tracing::warn!(%error, "waiting for the log");
                        said = error;
                    }
                    tokio::time::sleep(every).await;
                }
                outcome => return outcome,
            }
        }
    }

    /// The handle to append with; every call gives one to the same queue.
    #[must_use]
    pub fn writer(&self) -> Writer {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => Writer::Kafka(log.writer()),
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Writer::Embedded(log.writer()),
        }
    }

    /// Joins `group` and folds whichever of the topic's partitions it assigns, each from where the
    /// fold says. Runs on a thread of its own until the reader is stopped.
    ///
    /// A record that the fold calls [`Verdict::Poison`] is copied to the topic `quarantine`, if
    /// one is given: to the partition of the same number, exactly once for the group, whatever is
    /// restarted or replayed. The group's committed offset is what tells, so it never passes a
    /// poison record that is not copied. Nor does anything begin beyond it: a fold that wants to
    /// start later than the group has been told is made to start over.
    ///
    /// # Errors
    /// [`Unreachable`], when the client cannot even be made: a setting is wrong.
    pub fn join_group<F: PartitionHandler>(
        &self,
        topic: &str,
        group: &Group,
        quarantine: Option<&str>,
        fold: F,
    ) -> Result<Reader, LogUnreachable> {
        // There from the start, because what appears with its first count cannot be told a rate of.
        for kind in ["assigned", "revoked", "lost"] {
            counter!(REBALANCES, "kind" => kind).increment(0);
        }
        counter!(DEAD_LETTERS).increment(0);
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.join(topic, group, quarantine, fold),
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Ok(log.join(topic, &group.id, quarantine, fold)),
        }
    }

    /// Folds those of the topic's partitions that the follower is told to, each from where the
    /// fold says, in no group and without a trace in the log. Runs on a thread of its own until
    /// the follower is stopped.
    ///
    /// # Errors
    /// [`Unreachable`], when the client cannot even be made: a setting is wrong.
    pub fn follow_topic<F: PartitionHandler>(
        &self,
        topic: &str,
        fold: F,
    ) -> Result<Follower, LogUnreachable> {
        match self {
            #[cfg(feature = "kafka")]
            Self::Kafka(log) => log.follow(topic, fold),
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => Ok(log.follow(topic, fold)),
        }
    }

    /// One beyond the last offset of each of these partitions, asked for at most `deadline`.
    ///
    /// # Errors
    /// [`Unreachable`], when one of them cannot be had.
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
            Self::Kafka(log) => log.ends(topic, partitions, deadline).await,
            #[cfg(feature = "embedded")]
            Self::Embedded(log) => log.ends(topic, partitions),
        }
    }

    /// Whether the log answers, asked for at most `deadline`.
    ///
    /// # Errors
    /// [`Unreachable`], when it does not.
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
    /// restart. None: a dynamic member.
    pub instance: Option<String>,
}
