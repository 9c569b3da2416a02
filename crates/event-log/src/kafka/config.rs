//! The settings of all librdkafka clients. Each value that differs from librdkafka's default has its
//! reason beside it.

use std::fmt;

use rdkafka::ClientConfig;

use crate::{Group, LogUnreachable, settings::BatchArgs};

/// In milliseconds.
const STATISTICS_INTERVAL: &str = "5000";

/// The connection to Kafka.
#[derive(Clone, Default)]
pub struct KafkaSettings {
    /// Bootstrap brokers, as `host:port`, separated by commas.
    pub brokers: String,
    /// The name of this process in the brokers' logs and quotas.
    pub client_id: String,
    /// Batching and compression of appends.
    pub batch: BatchArgs,
    /// TLS, SASL and any other librdkafka settings, applied last and to all clients.
    pub properties: Vec<(String, String)>,
}

/// Omits the values of properties, which may be secrets.
impl fmt::Debug for KafkaSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaSettings")
            .field("brokers", &self.brokers)
            .field("client_id", &self.client_id)
            .field("batch", &self.batch)
            .field("properties", &names)
            .finish()
    }
}

impl KafkaSettings {
    /// Fails if a setting needs TLS and this build lacks it. Without OpenSSL, librdkafka supports no
    /// TLS, and PLAIN as its only SASL mechanism; its own error does not say how to get them.
    pub(super) fn check_build(&self) -> Result<(), LogUnreachable> {
        if cfg!(feature = "tls") {
            return Ok(());
        }
        let config = self.admin_config();
        let asked = |name| config.get(name).unwrap_or_default().to_ascii_uppercase();
        let protocol = asked("security.protocol");
        let plain = [asked("sasl.mechanism"), asked("sasl.mechanisms")].contains(&"PLAIN".into());
        let what = match protocol.as_str() {
            "SSL" | "SASL_SSL" => "TLS",
            "SASL_PLAINTEXT" if !plain => "a SASL mechanism other than PLAIN",
            _ => return Ok(()),
        };
        Err(LogUnreachable(format!(
            "the Kafka settings need {what}, which this build lacks: build with --features tls (it \
             needs libssl-dev and pkg-config)"
        )))
    }

    fn base_config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config
            .set("bootstrap.servers", &self.brokers)
            .set("client.id", &self.client_id)
            // A request without an answer for this long fails, and its connection is closed.
            .set("socket.timeout.ms", "10000")
            .set("socket.keepalive.enable", "true")
            // The client finds a restarted broker within 2 s, not 10 s.
            .set("reconnect.backoff.max.ms", "2000");
        config
    }

    fn add_properties(&self, mut config: ClientConfig) -> ClientConfig {
        config.extend(self.properties.iter().cloned());
        config
    }

    /// Without statistics, even those of `properties`: a client that is not polled would queue them
    /// without bound.
    pub(super) fn admin_config(&self) -> ClientConfig {
        let mut config = self.add_properties(self.base_config());
        config.set("statistics.interval.ms", "0");
        config
    }

    /// Set after `properties`: an end that leaves out unfinished transactions would hide that
    /// records wait for them.
    pub(super) fn end_offset_config(&self) -> ClientConfig {
        let mut config = self.admin_config();
        config.set("isolation.level", "read_uncommitted");
        config
    }

    pub(super) fn producer_config(&self) -> ClientConfig {
        let mut config = self.base_config();
        config
            .set("statistics.interval.ms", STATISTICS_INTERVAL)
            // An acknowledged record is on all in-sync replicas, once and in order.
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("max.in.flight.requests.per.connection", "5")
            // Waiting for 1 ms, the default, fills batches under load: p99 17 ms at 275 k/s; without it,
            // 40 ms at 190 k/s.
            .set("linger.ms", self.batch.linger_ms())
            .set("compression.type", self.batch.compression.to_string())
            // Above the brokers' default, 1,048,588: with the client's own default, 1,000,000, copies
            // of poison records would lose values that the broker accepts. It also bounds the buffer
            // of each produce request.
            .set("message.max.bytes", "1100000")
            .set("message.timeout.ms", "30000")
            .set("request.timeout.ms", "8000")
            .set("retry.backoff.ms", "50")
            .set("queue.buffering.max.messages", "100000")
            .set("queue.buffering.max.kbytes", "131072");
        self.add_properties(config)
    }

    /// librdkafka requires a group id even for a consumer that joins no group. This group never has
    /// members or offsets.
    pub(super) fn follower_config(&self) -> ClientConfig {
        self.consumer_config(&Group { id: format!("{}-follower", self.client_id), instance: None })
    }

    pub(super) fn consumer_config(&self, group: &Group) -> ClientConfig {
        let mut config = self.base_config();
        config
            .set("statistics.interval.ms", STATISTICS_INTERVAL)
            .set("group.id", &group.id)
            // With KIP-848, a late poll can be a fatal error in this librdkafka, and a static member's
            // restart waits for its own session to expire.
            .set("group.protocol", "classic")
            // A rebalance revokes only the partitions that move.
            .set("partition.assignment.strategy", "cooperative-sticky")
            // `OffsetTracker` decides which offsets are committed.
            .set("enable.auto.commit", "false")
            .set("auto.offset.reset", "earliest")
            .set("session.timeout.ms", "10000")
            // A member learns of a rebalance by its next heartbeat: the partitions of a member that
            // leaves have no owner for this long.
            .set("heartbeat.interval.ms", "1000")
            .set("max.poll.interval.ms", "60000")
            .set("enable.partition.eof", "true")
            .set("fetch.min.bytes", "1")
            .set("fetch.wait.max.ms", "100")
            // The default, 1 s, stalls a replay each time the local queue is full.
            .set("fetch.queue.backoff.ms", "10")
            .set("queued.min.messages", "100000")
            .set("queued.max.messages.kbytes", "65536")
            .set("check.crcs", "true");
        if let Some(instance) = &group.instance {
            config.set("group.instance.id", instance);
        }
        self.add_properties(config)
    }
}
