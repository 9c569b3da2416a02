//! Every setting: a flag, an environment variable and a default.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, builder::RangedU64ValueParser};
use event_log::settings::{GroupArgs, TopicArgs};
use ipnet::IpNet;
use model::{Partitioner, TopicNames};
use service::{auth::AuthArgs, server::limits::HttpLimits};

use crate::{
    cluster::peers::{PeerNetworks, parse_url},
    snapshot::SnapshotKey,
    view::Limits,
};

/// RFC 1918, RFC 6598 (as many container networks use it), RFC 4193 and loopback. Link-local
/// addresses are not among them: clouds serve a machine's credentials there.
const PRIVATE_NETWORKS: [&str; 7] = [
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "fc00::/7",
    "::1/128",
];

/// The settings of a consumer, for either driver of the log.
#[derive(Args, Clone, Debug)]
pub struct ConsumerSettings {
    /// The topics
    #[command(flatten)]
    pub topics: TopicArgs,

    #[command(flatten)]
    pub(crate) group: GroupArgs,

    /// Hash of the recipient's id that chooses the partition: murmur2 (Java clients), fnv1a (Sarama)
    /// or crc32 (librdkafka). Must be the same for producer and consumer, and must never change
    #[arg(long, env = "KAFKA_PARTITIONER", default_value_t, help_heading = "Topics")]
    pub partitioner: Partitioner,

    /// `http://HOST:PORT` at which other instances reach this one, to forward requests to it.
    /// `{hostname}` in it stands for this machine's host name [default: the address of --listen]
    #[arg(long, env = "CONSUMER_ADVERTISE", value_name = "URL", value_parser = parse_peer_url,
          help_heading = None)]
    pub(crate) advertise: Option<String>,

    #[command(flatten)]
    pub(crate) peers: PeerArgs,

    #[command(flatten)]
    pub(crate) inbox: InboxArgs,

    #[command(flatten)]
    pub(crate) snapshots: SnapshotArgs,

    #[command(flatten)]
    pub(crate) streams: StreamArgs,

    /// The web page
    #[command(flatten)]
    pub page: PageArgs,

    /// Interval of the canary probe: this instance writes a record to its own partitions in turn,
    /// and `/readyz` fails if one does not arrive within 5 s. Turn it on when all instances know
    /// canary records: older versions treat them as poison records [default: off]
    #[arg(long, env = "CONSUMER_CANARY", value_name = "DURATION", help_heading = "Canary probe",
          value_parser = service::cli::settings::parse_positive_duration)]
    pub canary: Option<Duration>,

    /// Authentication
    #[command(flatten)]
    pub auth: AuthArgs,

    /// HTTP
    #[command(flatten)]
    pub http: HttpLimits,
}

#[derive(Args, Clone, Debug)]
pub(crate) struct PeerArgs {
    /// Networks of the other instances, as CIDR blocks, separated by commas: requests, with their
    /// tokens, are forwarded to addresses in them only [default: private networks and loopback]
    #[arg(long, env = "CONSUMER_PEERS", value_name = "NETWORK", value_delimiter = ',',
          default_values = PRIVATE_NETWORKS, hide_default_value = true, help_heading = None)]
    pub(crate) peers: Vec<IpNet>,

    /// Believe other instances that do not sign which partitions they own, although there is an
    /// --auth-secret: for the time of an upgrade from a version that did not sign
    #[arg(long, env = "CONSUMER_ACCEPT_UNSIGNED_CLAIMS", help_heading = None)]
    pub(crate) accept_unsigned_claims: bool,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Inbox")]
pub(crate) struct InboxArgs {
    /// Maximum number of entries in an inbox; the newest are kept
    #[arg(long, env = "INBOX_ENTRIES", default_value_t = 1000, value_name = "COUNT",
          value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) inbox_entries: u32,

    /// Maximum bytes of an inbox, as JSON; the newest entries are kept, at least one
    #[arg(long, env = "INBOX_BYTES", default_value_t = 1 << 20, value_name = "BYTES",
          value_parser = clap::value_parser!(u32).range(1..=1 << 30))]
    pub(crate) inbox_bytes: u32,

    /// Maximum age of an entry in an inbox, in days
    #[arg(long, env = "INBOX_DAYS", default_value_t = 30, value_name = "DAYS",
          value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub(crate) inbox_days: u32,

    /// Rate limit of each user's receipts (read, unread, dismissed), in requests per second; ten
    /// seconds' worth at once. More are answered 429; 0: no limit
    #[arg(long, env = "CONSUMER_RECEIPT_RATE", default_value_t = 20, value_name = "COUNT")]
    pub(crate) receipt_rate: u32,

    /// How long a request waits for a partition that is being rebuilt or moved, before it is
    /// answered 503
    #[arg(long, env = "CONSUMER_READ_TIMEOUT", default_value = "2s", value_name = "DURATION",
          value_parser = service::cli::settings::parse_duration)]
    pub(crate) read_timeout: Duration,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Snapshots")]
pub(crate) struct SnapshotArgs {
    /// Folder for snapshots of this instance's partitions: the next start loads them and reads only
    /// later records. Each instance needs its own folder, on a local disk. Snapshots contain inboxes,
    /// so only this process's user may read the folder [default: none]
    #[arg(long, env = "CONSUMER_SNAPSHOTS", value_name = "FOLDER")]
    pub(crate) snapshots: Option<PathBuf>,

    /// Interval at which snapshots of live partitions are written; after a crash, the next start
    /// reads all records since the last one. 0: write them only on revocation and shutdown
    #[arg(long, env = "CONSUMER_SNAPSHOT_EVERY", default_value = "5m", value_name = "DURATION",
          value_parser = service::cli::settings::parse_duration)]
    pub(crate) snapshot_every: Duration,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Live streams")]
pub(crate) struct StreamArgs {
    /// Maximum number of open live streams and waiting long polls; more are answered 503
    #[arg(long, env = "CONSUMER_MAX_STREAMS", default_value_t = 20_000, value_name = "COUNT",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) max_streams: usize,

    /// Maximum number of open live streams of one inbox; more are answered 429
    #[arg(long, env = "CONSUMER_MAX_STREAMS_PER_USER", default_value_t = 100, value_name = "COUNT",
          value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub(crate) max_streams_per_user: usize,

    /// Interval of the heartbeats of a live stream. Must be shorter than the idle timeout of any proxy
    /// in between
    #[arg(long, env = "CONSUMER_HEARTBEAT", default_value = "15s", value_name = "DURATION",
          value_parser = service::cli::settings::parse_positive_duration)]
    pub(crate) heartbeat: Duration,
}

#[derive(Args, Clone, Debug)]
#[command(next_help_heading = "Web page")]
pub struct PageArgs {
    /// URL at which a browser reaches the producer, for sending from the web page; empty: the page
    /// only reads. The producer must allow the page's origin, see its --cors-origins
    /// [default: http://localhost:8080, or in a standalone its own]
    #[arg(long, env = "CONSUMER_PRODUCER_URL", value_name = "URL", value_parser = parse_origin)]
    pub producer_url: Option<String>,
}

impl ConsumerSettings {
    pub(crate) fn inbox_limits(&self) -> Limits {
        Limits {
            entries: self.inbox.inbox_entries as usize,
            bytes: self.inbox.inbox_bytes as usize,
            age: Duration::from_secs(u64::from(self.inbox.inbox_days) * 24 * 60 * 60),
        }
    }

    /// The settings that a snapshot must have been written with to be usable.
    pub(crate) fn snapshot_key(&self, names: &TopicNames) -> SnapshotKey {
        SnapshotKey {
            notifications: names.notifications.clone(),
            receipts: names.receipts.clone(),
            group: event_log::Group::from(&self.group).id,
            partitions: self.topics.partitions,
            partitioner: self.partitioner,
            limits: self.inbox_limits(),
        }
    }

    /// The URL that this instance announces to its peers, if it listens on this address.
    pub(crate) fn advertised_url(&self, listen: SocketAddr) -> String {
        if self.advertise.is_none() && listen.ip().is_unspecified() {
            tracing::warn!(
                "listening on all interfaces without --advertise (CONSUMER_ADVERTISE): other instances \
                 cannot reach this one",
            );
        }
        let url = self.advertise.clone().unwrap_or_else(|| format!("http://{listen}"));
        if (self.advertise.is_some() || !listen.ip().is_unspecified())
            && let Err(why) = PeerNetworks::new(&self.peers.peers).check_url(&url)
        {
            tracing::warn!(
                "the URL of this instance, {url}, {why}: instances with the same setting do not \
                 forward requests to it",
            );
        }
        url
    }
}

fn parse_peer_url(text: &str) -> Result<String, String> {
    let url = insert_hostname(text.strip_suffix('/').unwrap_or(text))?;
    if parse_url(&url).is_none() {
        return Err("must be http://HOST:PORT without a path, such as http://10.0.0.7:8081".into());
    }
    Ok(url)
}

/// Replaces `{hostname}`, so that all containers of one service can share a configuration: each has
/// a host name of its own, by which the others reach it.
fn insert_hostname(url: &str) -> Result<String, String> {
    if !url.contains("{hostname}") {
        return Ok(url.to_owned());
    }
    let path = "/proc/sys/kernel/hostname";
    let name = std::fs::read_to_string(path)
        .map_err(|error| format!("the host name cannot be read from {path}: {error}"))?;
    Ok(url.replace("{hostname}", name.trim()))
}

/// Accepts a scheme, a host and an optional port, or an empty text. The value becomes part of the
/// page's Content-Security-Policy, where other characters would change the policy.
fn parse_origin(text: &str) -> Result<String, String> {
    let text = text.trim_end_matches('/');
    let host = text.strip_prefix("http://").or_else(|| text.strip_prefix("https://"));
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-:[]".contains(c);
    if text.is_empty() || host.is_some_and(|host| !host.is_empty() && host.chars().all(is_plain)) {
        return Ok(text.to_owned());
    }
    Err("must be a URL without a path, such as http://localhost:8080, or empty".into())
}
