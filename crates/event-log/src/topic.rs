//! The settings of a topic, and errors that concern it.

use std::time::Duration;

use crate::LogUnreachable;

/// A topic that the services need.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Topic {
    /// Its name, as Kafka allows: 1 to 249 of `[a-zA-Z0-9._-]`.
    pub name: String,
    /// At least 1. It never changes, because the partition of a key depends on it.
    pub partitions: u32,
    /// Copies of each partition, at least 1; 3 in production. The embedded log ignores it.
    pub replication: u32,
    /// Which records the log removes by itself, and when.
    pub cleanup: Cleanup,
}

impl Topic {
    pub(crate) fn check_partition_count(&self, found: u32) -> Result<(), TopicError> {
        if found == self.partitions {
            return Ok(());
        }
        Err(TopicError::Partitions { topic: self.name.clone(), found, expected: self.partitions })
    }
}

/// Which records a topic removes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cleanup {
    /// Every record that is older than this.
    After(Duration),
    /// Every record whose key has a newer record.
    Compact,
}

/// Why a topic cannot be used.
#[derive(Debug, Clone, thiserror::Error)]
pub enum TopicError {
    /// The log is away; retry later.
    #[error(transparent)]
    Unreachable(#[from] LogUnreachable),
    /// The topic was deleted.
    #[error(
        "topic {0} does not exist; it was there at the start. Restart a service to create it again"
    )]
    Missing(String),
    /// An existing topic has another number of partitions. Inboxes would be looked for in the wrong
    /// partitions, so no service starts with it.
    #[error(
        "topic {topic} has {found} partitions, but {expected} are configured. A user's inbox lives \
         in a partition that follows from this number. If the topic has always had {found}, start \
         with --partitions {found}; if it was changed, its inboxes must be moved to a new topic"
    )]
    Partitions {
        /// The topic's name.
        topic: String,
        /// Its partition count.
        found: u32,
        /// The configured partition count.
        expected: u32,
    },
    /// An existing topic is compacted: Kafka keeps only the newest record of each recipient.
    #[error(
        "topic {topic} is compacted, so Kafka would remove every notification that has a newer one \
         for the same recipient. Set its cleanup.policy to delete, or use another topic"
    )]
    Compacted {
        /// The topic's name.
        topic: String,
    },
    /// The log does not accept the topic.
    #[error("topic {topic} cannot be created: {reason}")]
    Refused {
        /// The topic's name.
        topic: String,
        /// The log's own reason.
        reason: String,
    },
}

/// For people: an existing topic was given more partitions.
#[cfg(feature = "kafka")]
pub(crate) fn changed_count_trouble(topic: &str, known: u32, count: u32) -> String {
    format!(
        "topic {topic} had {known} partitions at start and has {count} now. A user's inbox lives in \
         a partition that follows from this number: move to a new topic, or restart every service \
         with --partitions {count} and lose sight of what is in the partitions of before"
    )
}
