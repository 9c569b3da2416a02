//! What a topic has to be like.

use std::time::Duration;

use crate::LogUnreachable;

/// A topic that the services need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name, as Kafka allows: 1 to 249 of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// How many partitions, at least 1. It never changes: a key's home depends on it.
    pub partitions: u32,
    /// How many copies of each partition, at least 1; 3 in production. Not of the embedded log.
    pub replication: u32,
    /// What goes away by itself, and when.
    pub cleanup: Cleanup,
}

/// What a topic forgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Every record, when it is older than this.
    After(Duration),
    /// Every record whose key has a newer one.
    Compact,
}

/// Why a topic is not what it has to be.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    /// Ask again later.
    #[error(transparent)]
    Unreachable(#[from] LogUnreachable),
    /// An existing topic has another number of partitions. Every inbox would be looked for in
    /// the wrong place, so this is never passed over.
    #[error(
        "topic {topic} has {found} partitions, but {expected} are configured. A user's inbox lives \
         in a partition that follows from this number. If the topic has always had {found}, start \
         with --partitions {found}; if it was changed, its inboxes must be moved to a new topic"
    )]
    Partitions {
        /// The topic's name.
        topic: String,
        /// As it is.
        found: u32,
        /// As it was configured.
        expected: u32,
    },
    /// The log refuses the topic.
    #[error("topic {topic} cannot be created: {reason}")]
    Refused {
        /// The topic's name.
        topic: String,
        /// The log's own words.
        reason: String,
    },
}
