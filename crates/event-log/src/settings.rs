//! Flags and environment variables of the log and its topics, which all services share.

#[cfg(feature = "kafka")]
mod batch;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod security;

use std::time::Duration;

use clap::Args;

use crate::{Group, Topic, topic::Cleanup};

#[cfg(feature = "kafka")]
pub use {
    batch::{BatchArgs, Compression},
    kafka::KafkaArgs,
    security::{Protocol, SecurityArgs},
};

/// The topics. All services of one installation must have the same values.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Topics")]
pub struct TopicArgs {
    /// Topic of the notifications. The names of the others have a suffix: .receipts, .owners and .dlq
    #[arg(long, env = "KAFKA_TOPIC", default_value = "notifications", value_parser = parse_topic_name)]
    pub topic: String,

    /// Partitions of each topic. Never change it: it determines the partition of a user's inbox.
    /// 12 is enough for one machine, 24 to 48 for a cluster
    #[arg(long, env = "KAFKA_PARTITIONS", default_value_t = 12,
          value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub partitions: u32,

    /// Replication factor of the topics that are created; 3 in production
    #[arg(long, env = "KAFKA_REPLICATION", default_value_t = 1,
          value_parser = clap::value_parser!(u32).range(1..=100))]
    pub replication: u32,

    /// Retention of the topics that are created, in days
    #[arg(long, env = "RETENTION_DAYS", default_value_t = 30, value_name = "DAYS",
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub retention_days: u32,
}

/// The consumer group.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Kafka")]
pub struct GroupArgs {
    /// Consumer group: the instances that share the partitions among them
    #[arg(long, env = "KAFKA_GROUP", default_value = "notifications-group")]
    pub group: String,

    /// Name of this instance that stays the same over restarts (group.instance.id): a short restart
    /// then moves no partitions
    #[arg(long, env = "KAFKA_GROUP_INSTANCE", value_name = "NAME")]
    pub group_instance: Option<String>,
}

impl TopicArgs {
    /// The topic of this name, with these partitions, replication and retention.
    #[must_use]
    pub fn topic(&self, name: &str) -> Topic {
        Topic {
            name: name.to_owned(),
            partitions: self.partitions,
            replication: self.replication,
            cleanup: Cleanup::After(Duration::from_secs(
                u64::from(self.retention_days) * 24 * 60 * 60,
            )),
        }
    }
}

impl From<&GroupArgs> for Group {
    fn from(args: &GroupArgs) -> Self {
        Self { id: args.group.clone(), instance: args.group_instance.clone() }
    }
}

/// Kafka allows 249 characters; the names of the other topics add a suffix.
fn parse_topic_name(name: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    if (1..=200).contains(&name.len()) && name.chars().all(allowed) && !matches!(name, "." | "..") {
        Ok(name.to_owned())
    } else {
        Err("must be 1 to 200 letters, digits, dots, underscores or hyphens".into())
    }
}
