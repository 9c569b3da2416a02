//! Every setting: a flag, an environment variable and a default.

use std::time::Duration;

use clap::{Args, builder::RangedU64ValueParser};
use event_log::settings::TopicArgs;
use model::Partitioner;
use service::{auth::AuthArgs, server::http::HttpLimits};

use crate::cors::AllowedOrigins;

/// What a producer needs to know, wherever its log and its directory are.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The topics
    #[command(flatten)]
    pub topics: TopicArgs,

    /// How a recipient's id becomes a partition: murmur2 (Java clients), fnv1a (Sarama) or crc32
    /// (librdkafka). The same for producer and consumer, and never changed
    #[arg(long, env = "KAFKA_PARTITIONER", default_value_t, help_heading = "Topics")]
    pub partitioner: Partitioner,

    /// Sending
    #[command(flatten)]
    pub sending: SendArgs,

    /// Names that are kept in memory, at most; 0 looks every user up each time. A name is kept only
    /// while PostgreSQL tells of changes, which `producer migrate` makes it do
    #[arg(
        long,
        env = "DIRECTORY_CACHE",
        default_value_t = 100_000,
        value_name = "ENTRIES",
        help_heading = "PostgreSQL"
    )]
    pub directory_cache: u64,

    /// Make the users' table at the start, if it is missing, or bring it up to date
    #[arg(long, env = "PRODUCER_MIGRATE", help_heading = "PostgreSQL")]
    pub migrate: bool,

    /// How often the producer writes a record for nobody, to one partition after the other: if one is
    /// not acknowledged within 5 s, /readyz says so. Not at all, if not given. To be given when all
    /// consumers know it: those of before set such records aside
    #[arg(long, env = "PRODUCER_CANARY", value_name = "DURATION",
          value_parser = service::cli::settings::positive_duration)]
    pub canary: Option<Duration>,

    /// Who may ask
    #[command(flatten)]
    pub auth: AuthArgs,

    /// HTTP
    #[command(flatten)]
    pub http: HttpLimits,
}

/// What may be sent, by whom, and for how long it is tried.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Sending")]
pub struct SendArgs {
    /// How long an acknowledgement may take before the answer is 504
    #[arg(long, env = "PRODUCER_SEND_TIMEOUT", default_value = "10s", value_name = "DURATION",
          value_parser = service::cli::settings::duration)]
    pub send_timeout: Duration,

    /// Notifications a second that one sender may send, one for each recipient; 0: as many as they
    /// like. More are answered 429; a bulk is slowed down instead
    #[arg(long, env = "PRODUCER_RATE_LIMIT", default_value_t = 0, value_name = "COUNT")]
    pub rate_limit: u32,

    /// Notifications that a sender may send at once after a pause; ten seconds' worth, if not given
    #[arg(
        long,
        env = "PRODUCER_RATE_BURST",
        value_name = "COUNT",
        value_parser = clap::value_parser!(u32).range(1..)
    )]
    pub rate_burst: Option<u32>,

    /// Bulks under way at a time; one more is answered 503. Each may take 16 MiB
    #[arg(long, env = "PRODUCER_MAX_BULKS", default_value_t = 32, value_name = "COUNT",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=10_000))]
    pub max_bulks: usize,

    /// Web pages that may send from a browser, as origins such as `https://app.example.org`,
    /// separated by commas. Without it none may. `*` is refused: it would let any page that a person
    /// opens send in their place
    #[arg(
        long,
        env = "PRODUCER_CORS_ORIGINS",
        default_value = "",
        hide_default_value = true,
        value_name = "ORIGINS"
    )]
    pub cors_origins: AllowedOrigins,
}
