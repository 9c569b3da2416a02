//! Every setting: a flag, an environment variable and a default.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::RangedU64ValueParser};
use event_log::settings::{GroupArgs, TopicArgs};
use model::{Partitioner, TopicNames};
use service::{auth::AuthArgs, server::http::HttpLimits};

use crate::view::{Limits, snapshot::SnapshotKey};

/// What a consumer needs to know, wherever its log is.
#[derive(Args, Clone, Debug)]
pub struct Settings {
    /// The topics
    #[command(flatten)]
    pub topics: TopicArgs,

    /// The group
    #[command(flatten)]
    pub group: GroupArgs,

    /// How a recipient's id becomes a partition: murmur2 (Java clients), fnv1a (Sarama) or crc32
    /// (librdkafka). The same for producer and consumer, and never changed
    #[arg(long, env = "KAFKA_PARTITIONER", default_value_t, help_heading = "Topics")]
    pub partitioner: Partitioner,

    /// URL at which other instances reach this one, if not the address it listens on: they pass on
    /// what concerns the users that live here
    #[arg(long, env = "CONSUMER_ADVERTISE", value_name = "URL", value_parser = url)]
    pub advertise: Option<String>,

    /// The inboxes
    #[command(flatten)]
    pub inbox: InboxArgs,

    /// The snapshots
    #[command(flatten)]
    pub snapshots: SnapshotArgs,

    /// The live streams
    #[command(flatten)]
    pub streams: StreamArgs,

    /// The web page
    #[command(flatten)]
    pub page: PageArgs,

    /// How often this instance sends a record through the log to itself, one of its partitions after
    /// the other: if one does not arrive within 5 s, /readyz says so. Not at all, if not given. To
    /// be given when all instances know it: those of before set such records aside
    #[arg(long, env = "CONSUMER_CANARY", value_name = "DURATION",
          value_parser = service::cli::settings::parse_positive_duration)]
    pub canary: Option<Duration>,

    /// Who may ask
    #[command(flatten)]
    pub auth: AuthArgs,

    /// HTTP
    #[command(flatten)]
    pub http: HttpLimits,
}

/// What an inbox holds and how a reader is treated.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Inbox")]
pub struct InboxArgs {
    /// Newest entries that an inbox keeps
    #[arg(long, env = "INBOX_ENTRIES", default_value_t = 1000, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub inbox_entries: u32,

    /// Days for which an inbox keeps an entry
    #[arg(long, env = "INBOX_DAYS", default_value_t = 30, value_name = "DAYS",
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub inbox_days: u32,

    /// How long a request waits for a partition that is being rebuilt or moved, before it is
    /// answered 503
    #[arg(long, env = "CONSUMER_PATIENCE", default_value = "2s", value_name = "DURATION",
          value_parser = service::cli::settings::parse_duration)]
    pub patience: Duration,
}

/// What is kept on a disk, so that a restart reads less.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Snapshots")]
pub struct SnapshotArgs {
    /// Folder in which this instance keeps snapshots of its partitions, so that its next start reads
    /// them and what came since, instead of everything. One for each instance, on a disk of its own
    /// machine. Inboxes are in them, so only this user may read it. Not kept, if not given
    #[arg(long, env = "CONSUMER_SNAPSHOTS", value_name = "FOLDER")]
    pub snapshots: Option<PathBuf>,

    /// How often they are written while partitions are live: a process that is killed reads what came
    /// since. 0 writes them only when a partition moves away, and at the end
    #[arg(long, env = "CONSUMER_SNAPSHOT_EVERY", default_value = "5m", value_name = "DURATION",
          value_parser = service::cli::settings::parse_duration)]
    pub snapshot_every: Duration,
}

/// How many live streams there may be, and how they are kept alive.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Live streams")]
pub struct StreamArgs {
    /// Live streams that may be open at a time; one more is answered 503
    #[arg(long, env = "CONSUMER_MAX_STREAMS", default_value_t = 20_000, value_name = "COUNT",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_streams: usize,

    /// Live streams that may be open for one inbox at a time; one more is answered 429
    #[arg(long, env = "CONSUMER_MAX_STREAMS_PER_USER", default_value_t = 100, value_name = "COUNT",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_streams_per_user: usize,

    /// How long a live stream says nothing before it says that it is still there. Less than any
    /// proxy in between takes to close an idle connection
    #[arg(long, env = "CONSUMER_HEARTBEAT", default_value = "15s", value_name = "DURATION",
          value_parser = service::cli::settings::parse_positive_duration)]
    pub heartbeat: Duration,
}

/// The web page.
#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Web page")]
pub struct PageArgs {
    /// URL at which a browser reaches the producer, which the web page sends to; empty: the page
    /// only reads. The producer must allow the page's origin, see its --cors-origins
    /// [default: http://localhost:8080, or in a standalone its own]
    #[arg(long, env = "CONSUMER_PRODUCER_URL", value_name = "URL", value_parser = origin)]
    pub producer_url: Option<String>,
}

impl PageArgs {
    /// Where the page sends to; nowhere, if this is empty.
    #[must_use]
    pub fn producer_url(&self) -> &str {
        self.producer_url.as_deref().unwrap_or("http://localhost:8080")
    }
}

impl Settings {
    /// The bounds of every inbox.
    #[must_use]
    pub fn limits(&self) -> Limits {
        Limits {
            entries: self.inbox.inbox_entries as usize,
            age: Duration::from_secs(u64::from(self.inbox.inbox_days) * 24 * 60 * 60),
        }
    }

    /// What a snapshot has to be about to be of use.
    #[must_use]
    pub fn about(&self, names: &TopicNames) -> SnapshotKey {
        SnapshotKey {
            notifications: names.notifications.clone(),
            receipts: names.receipts.clone(),
            group: event_log::Group::from(&self.group).id,
            partitions: self.topics.partitions,
            partitioner: self.partitioner,
            limits: self.limits(),
        }
    }

    /// The URL that peers are told, for an instance that listens on this address.
    #[must_use]
    pub fn advertised(&self, listen: SocketAddr) -> String {
        if self.advertise.is_none() && listen.ip().is_unspecified() {
            tracing::warn!(
                "listening on all interfaces without --advertise (CONSUMER_ADVERTISE): other instances \
                 will not reach this one",
            );
        }
        self.advertise.clone().unwrap_or_else(|| format!("http://{listen}"))
    }
}

fn url(text: &str) -> Result<String, String> {
    match text.strip_prefix("http://") {
        Some(host) if !host.trim_end_matches('/').is_empty() => Ok(text.to_owned()),
        _ => Err("must be an http:// URL such as http://10.0.0.7:8081".into()),
    }
}

/// A scheme, a host and perhaps a port, or nothing: it becomes part of a policy, where anything
/// else would mean something else.
fn origin(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let plain = |host: &str| {
        !host.is_empty()
            && host
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']'))
    };
    if text.is_empty() || host.is_some_and(plain) {
        return Ok(text.to_owned());
    }
    Err("must be a URL without a path, such as http://localhost:8080, or empty".into())
}
