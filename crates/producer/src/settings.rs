//! The producer's settings: each is a flag, an environment variable and a default.

use std::time::Duration;

use clap::{Args, builder::RangedU64ValueParser};
use event_log::settings::TopicArgs;
use model::Partitioner;
use service::{auth::AuthArgs, server::limits::HttpLimits};

use crate::cors::AllowedOrigins;

/// The settings of a producer, except those of its log and its directory.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The topics
    #[command(flatten)]
    pub topics: TopicArgs,

    /// Hash of the recipient's id that chooses the partition: murmur2 (Java clients), fnv1a (Sarama)
    /// or crc32 (librdkafka). Must be the same for producer and consumer, and must never change
    #[arg(long, env = "KAFKA_PARTITIONER", default_value_t, help_heading = "Topics")]
    pub partitioner: Partitioner,

    /// Sending
    #[command(flatten)]
    pub sending: SendArgs,

    /// Create the users' table at the start, or update it, as `producer migrate` does
    #[arg(long, env = "PRODUCER_MIGRATE", help_heading = "PostgreSQL")]
    pub migrate: bool,

    /// Interval of the canary probe: the producer writes a record to each partition in turn, and
    /// `/readyz` fails if one is not acknowledged within 5 s. Turn it on when all consumers know
    /// canary records: older versions treat them as poison records [default: off]
    #[arg(long, env = "PRODUCER_CANARY", value_name = "DURATION", help_heading = "Canary probe",
          value_parser = service::cli::settings::parse_positive_duration)]
    pub canary: Option<Duration>,

    /// Authentication
    #[command(flatten)]
    pub auth: AuthArgs,

    /// HTTP
    #[command(flatten)]
    pub http: HttpLimits,
}

/// The settings of sending.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sending")]
pub struct SendArgs {
    /// Timeout of the log's acknowledgement, after which a send is answered 504
    #[arg(long, env = "PRODUCER_SEND_TIMEOUT", default_value = "10s", value_name = "DURATION",
          value_parser = service::cli::settings::parse_duration)]
    pub send_timeout: Duration,

    /// Rate limit of each sender, in notifications per second (one for each recipient); 0: no limit.
    /// Sends above it are answered 429; bulk requests are slowed down instead
    #[arg(long, env = "PRODUCER_RATE_LIMIT", default_value_t = 0, value_name = "COUNT")]
    pub rate_limit: u32,

    /// Notifications that a sender may send at once after a pause
    /// [default: ten seconds of --rate-limit]
    #[arg(long, env = "PRODUCER_RATE_BURST", value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..))]
    pub rate_burst: Option<u32>,

    /// Maximum number of concurrent bulk requests; more are answered 503. Each takes up to 16 MiB
    #[arg(long, env = "PRODUCER_MAX_BULKS", default_value_t = 32, value_name = "COUNT",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub max_bulks: usize,

    /// Origins of the web pages that may send from a browser, such as `https://app.example.org`,
    /// separated by commas; a standalone adds the origin of its own page. `*` is rejected: it would
    /// let any page that a user opens send on their behalf [default: none]
    #[arg(
        long,
        env = "PRODUCER_CORS_ORIGINS",
        default_value = "",
        hide_default_value = true,
        value_name = "ORIGINS"
    )]
    pub cors_origins: AllowedOrigins,

    /// Maximum number of user names in memory; 0 turns the cache off. The producer uses the cache
    /// only while PostgreSQL notifies it of changes, with the triggers that `producer migrate`
    /// creates
    #[arg(long, env = "DIRECTORY_CACHE", default_value_t = 100_000, value_name = "ENTRIES")]
    pub directory_cache: u64,
}
