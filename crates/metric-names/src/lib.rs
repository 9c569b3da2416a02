//! The name, kind and meaning of every metric, in one place: those who count, those who describe
//! and those who draw dashboards mean the same. Nothing is counted here.
//!
//! Durations are in seconds, sizes in bytes. Labels are few and bounded: never a user, never a path
//! as it was sent.

/// One metric, with all its labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metric {
    /// As Prometheus sees it; of a histogram, what comes before `_bucket`, `_sum` and `_count`.
    pub name: &'static str,
    /// What may be computed from it.
    pub kind: Kind,
    /// Whose it is.
    pub of: Of,
    /// What it says, with its labels, on one line.
    pub help: &'static str,
}

/// What kind of metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Only ever grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts values by size.
    Histogram,
}

/// Which services have a metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// Both. Where one process runs both, the label `service` tells them apart, if there is one.
    Every,
    /// The producer alone.
    Producer,
    /// The consumer alone.
    Consumer,
}

impl Metric {
    const fn new(name: &'static str, kind: Kind, of: Of, help: &'static str) -> Self {
        Self { name, kind, of, help }
    }
}

impl Kind {
    /// As Prometheus writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Histogram => "histogram",
        }
    }
}

impl Of {
    /// Whether a service of this name has it.
    #[must_use]
    pub fn concerns(self, service: &str) -> bool {
        match self {
            Self::Every => true,
            Self::Producer => service == "producer",
            Self::Consumer => service == "consumer",
        }
    }
}

// Every process.

/// Always 1.
pub const BUILD_INFO: Metric = Metric::new(
    "notifications_build_info",
    Kind::Gauge,
    Of::Every,
    "Always 1; the labels say which version runs",
);

/// Requests answered, by method, matched route and status.
pub const HTTP_REQUESTS: Metric = Metric::new(
    "notifications_http_requests_total",
    Kind::Counter,
    Of::Every,
    "Requests answered, by method, matched route and status",
);

/// From a request to the head of its response, by matched route.
pub const HTTP_SECONDS: Metric = Metric::new(
    "notifications_http_request_duration_seconds",
    Kind::Histogram,
    Of::Every,
    "From a request to the head of its response, by matched route; long polls included",
);

/// Requests whose response has not begun yet.
pub const HTTP_IN_FLIGHT: Metric = Metric::new(
    "notifications_http_requests_in_flight",
    Kind::Gauge,
    Of::Every,
    "Requests whose response has not begun yet",
);

/// Open connections, event streams included, WebSockets not.
pub const HTTP_CONNECTIONS: Metric = Metric::new(
    "notifications_http_connections",
    Kind::Gauge,
    Of::Every,
    "Open connections, event streams included, WebSockets not",
);

/// Requests and connections turned away because of too much load, by reason.
pub const HTTP_SHED: Metric = Metric::new(
    "notifications_http_shed_total",
    Kind::Counter,
    Of::Every,
    "Requests and connections turned away because of too much load, by reason",
);

/// Requests refused for their token, by reason.
pub const AUTH_REFUSED: Metric = Metric::new(
    "notifications_auth_refused_total",
    Kind::Counter,
    Of::Every,
    "Requests refused for their token, by reason",
);

/// Requests refused because their sender sends too many.
pub const RATE_LIMITED: Metric = Metric::new(
    "notifications_rate_limited_total",
    Kind::Counter,
    Of::Every,
    "Requests refused because their sender sends too many",
);

/// Resident memory of this process.
pub const RESIDENT_MEMORY: Metric = Metric::new(
    "process_resident_memory_bytes",
    Kind::Gauge,
    Of::Every,
    "Resident memory of this process",
);

/// Open file descriptors of this process.
pub const OPEN_FDS: Metric = Metric::new(
    "process_open_fds",
    Kind::Gauge,
    Of::Every,
    "Open file descriptors of this process",
);

/// File descriptors that this process may have open.
pub const MAX_FDS: Metric = Metric::new(
    "process_max_fds",
    Kind::Gauge,
    Of::Every,
    "File descriptors that this process may have open",
);

/// Processor time of this process, user and system.
pub const CPU_SECONDS: Metric = Metric::new(
    "process_cpu_seconds_total",
    Kind::Counter,
    Of::Every,
    "Processor time of this process, user and system",
);

/// When this process started, in seconds since 1970.
pub const START_TIME: Metric = Metric::new(
    "process_start_time_seconds",
    Kind::Gauge,
    Of::Every,
    "When this process started, in seconds since 1970",
);

// The producer.

/// Notifications by what became of them, a recipient each.
pub const SENT: Metric = Metric::new(
    "notifications_sent_total",
    Kind::Counter,
    Of::Producer,
    "Notifications by what became of them, a recipient each: acknowledged, refused, unknown (no acknowledgement in time), unavailable (queue full or log away), duplicate (its key was known, and it is in the log)",
);

/// From appending a record to its acknowledgement.
pub const ACKNOWLEDGEMENT_SECONDS: Metric = Metric::new(
    "notifications_acknowledgement_seconds",
    Kind::Histogram,
    Of::Producer,
    "From appending a record to its acknowledgement",
);

/// Lines of bulks answered, by status.
pub const BULK_LINES: Metric = Metric::new(
    "notifications_bulk_lines_total",
    Kind::Counter,
    Of::Producer,
    "Lines of bulks answered, by status",
);

/// Users looked up.
pub const DIRECTORY_LOOKUPS: Metric = Metric::new(
    "notifications_directory_lookups_total",
    Kind::Counter,
    Of::Producer,
    "Users looked up: hit (in the cache), miss (the directory was asked), failed (it did not answer)",
);

/// Names in the cache.
pub const DIRECTORY_CACHED: Metric = Metric::new(
    "notifications_directory_cached_names",
    Kind::Gauge,
    Of::Producer,
    "Names in the cache; absent where there is no cache",
);

/// 1 while the cache is certain to hear of changes, otherwise 0.
pub const DIRECTORY_TRUSTED: Metric = Metric::new(
    "notifications_directory_cache_trusted",
    Kind::Gauge,
    Of::Producer,
    "1 while the cache is certain to hear of changes, otherwise 0; absent where there is no cache",
);

// The consumer.

/// Partitions by what they are on this instance.
pub const PARTITIONS: Metric = Metric::new(
    "notifications_partitions",
    Kind::Gauge,
    Of::Consumer,
    "Partitions by what they are on this instance: unowned, rebuilding, live",
);

/// Records that the log has and this instance has not folded yet, by live partition.
pub const LAG: Metric = Metric::new(
    "notifications_lag_records",
    Kind::Gauge,
    Of::Consumer,
    "Records that the log has and this instance has not folded yet, by live partition; absent where the log does not say",
);

/// Records of the partitions that are being rebuilt.
pub const REBUILD_RECORDS: Metric = Metric::new(
    "notifications_rebuild_records",
    Kind::Gauge,
    Of::Consumer,
    "Records of the partitions that are being rebuilt: done, total",
);

/// How long a partition took from its assignment to being live.
pub const REBUILD_SECONDS: Metric = Metric::new(
    "notifications_rebuild_seconds",
    Kind::Histogram,
    Of::Consumer,
    "How long a partition took from its assignment to being live",
);

/// Records read from the log, replays included, by topic and outcome.
pub const FOLDED: Metric = Metric::new(
    "notifications_records_folded_total",
    Kind::Counter,
    Of::Consumer,
    "Records read from the log, replays included, by topic and outcome: applied, duplicate, conflict (a key used twice), misplaced (in a partition that is not its recipient's), poison",
);

/// Inboxes in memory.
pub const INBOXES: Metric =
    Metric::new("notifications_inboxes", Kind::Gauge, Of::Consumer, "Inboxes in memory");

/// Notifications in memory that are not dismissed.
pub const ENTRIES: Metric = Metric::new(
    "notifications_entries",
    Kind::Gauge,
    Of::Consumer,
    "Notifications in memory that are not dismissed",
);

/// Bytes of JSON of these notifications.
pub const ENTRY_BYTES: Metric = Metric::new(
    "notifications_entry_bytes",
    Kind::Gauge,
    Of::Consumer,
    "Bytes of JSON of these notifications",
);

/// Notifications that left an inbox, replays included.
pub const EVICTED: Metric = Metric::new(
    "notifications_evicted_total",
    Kind::Counter,
    Of::Consumer,
    "Notifications that left an inbox, replays included: entries (newer ones took their place), age",
);

/// How long a partition's snapshot took to be written.
pub const SNAPSHOT_SECONDS: Metric = Metric::new(
    "notifications_snapshot_seconds",
    Kind::Histogram,
    Of::Consumer,
    "How long a partition's snapshot took to be written",
);

/// Bytes of the snapshots that this process wrote.
pub const SNAPSHOT_BYTES: Metric = Metric::new(
    "notifications_snapshot_bytes",
    Kind::Gauge,
    Of::Consumer,
    "Bytes of the snapshots that this process wrote, the newest of each partition",
);

/// When a snapshot was last written, in seconds since 1970.
pub const SNAPSHOT_LAST_SUCCESS: Metric = Metric::new(
    "notifications_snapshot_last_success_timestamp_seconds",
    Kind::Gauge,
    Of::Consumer,
    "When a snapshot was last written, in seconds since 1970",
);

/// Notifications that came from snapshots instead of the log.
pub const RESTORED: Metric = Metric::new(
    "notifications_restored_total",
    Kind::Counter,
    Of::Consumer,
    "Notifications that came from snapshots instead of the log",
);

/// Snapshots that were not used, by reason.
pub const SNAPSHOTS_REFUSED: Metric = Metric::new(
    "notifications_snapshots_refused_total",
    Kind::Counter,
    Of::Consumer,
    "Snapshots that were not used: format (another version of this program), settings (other topics, partitions, group or limits), damaged, unreadable, log (not of the log that is there)",
);

/// Live streams open now.
pub const STREAMS: Metric = Metric::new(
    "notifications_streams",
    Kind::Gauge,
    Of::Consumer,
    "Live streams open now: sse, ndjson, ws, forwarded (passed on from their owner)",
);

/// From a notification's time to.
pub const DELIVERY_SECONDS: Metric = Metric::new(
    "notifications_delivery_seconds",
    Kind::Histogram,
    Of::Consumer,
    "From a notification's time to: applied (in the view of a live partition), pushed (handed to a live stream)",
);

/// Records copied to the dead-letter topic.
pub const DEAD_LETTERS: Metric = Metric::new(
    "notifications_dead_letters_total",
    Kind::Counter,
    Of::Consumer,
    "Records copied to the dead-letter topic",
);

/// Changes of this member's partitions.
pub const REBALANCES: Metric = Metric::new(
    "notifications_rebalances_total",
    Kind::Counter,
    Of::Consumer,
    "Changes of this member's partitions: assigned, revoked, lost (the group had put this member out)",
);

/// Requests passed on to an owner.
pub const FORWARDED: Metric = Metric::new(
    "notifications_forwarded_total",
    Kind::Counter,
    Of::Consumer,
    "Requests passed on to an owner: answered, misdirected (it is not the owner any more), failed",
);

// librdkafka's statistics, every 5 s, of the client that reported last.

/// Records in the queues of this Kafka client that are not acknowledged.
pub const KAFKA_QUEUE_MESSAGES: Metric = Metric::new(
    "notifications_kafka_queue_messages",
    Kind::Gauge,
    Of::Every,
    "Records in the queues of this Kafka client that are not acknowledged",
);

/// Bytes of the records in the queues of this Kafka client.
pub const KAFKA_QUEUE_BYTES: Metric = Metric::new(
    "notifications_kafka_queue_bytes",
    Kind::Gauge,
    Of::Every,
    "Bytes of the records in the queues of this Kafka client",
);

/// Round trip of requests to the slowest broker, by quantile (p50, p99).
pub const KAFKA_ROUND_TRIP: Metric = Metric::new(
    "notifications_kafka_round_trip_seconds",
    Kind::Gauge,
    Of::Every,
    "Round trip of requests to the slowest broker, by quantile (p50, p99)",
);

/// Brokers that this Kafka client knows, up and down.
pub const KAFKA_BROKERS: Metric = Metric::new(
    "notifications_kafka_brokers",
    Kind::Gauge,
    Of::Every,
    "Brokers that this Kafka client knows, up and down",
);

/// Requests that this Kafka client sent again.
pub const KAFKA_RETRIES: Metric = Metric::new(
    "notifications_kafka_retries_total",
    Kind::Counter,
    Of::Every,
    "Requests that this Kafka client sent again",
);

/// Requests of this Kafka client that were not answered in time.
pub const KAFKA_TIMEOUTS: Metric = Metric::new(
    "notifications_kafka_request_timeouts_total",
    Kind::Counter,
    Of::Every,
    "Requests of this Kafka client that were not answered in time",
);

/// Connections to brokers that this Kafka client lost.
pub const KAFKA_DISCONNECTS: Metric = Metric::new(
    "notifications_kafka_disconnects_total",
    Kind::Counter,
    Of::Every,
    "Connections to brokers that this Kafka client lost",
);

// The canary.

/// How long the canary's notification took to its inbox.
pub const CANARY_SECONDS: Metric = Metric::new(
    "notifications_canary_seconds",
    Kind::Histogram,
    Of::Every,
    "How long the canary's notification took to its inbox",
);

/// When the canary's notification last arrived, in seconds since 1970.
pub const CANARY_LAST_SUCCESS: Metric = Metric::new(
    "notifications_canary_last_success_timestamp_seconds",
    Kind::Gauge,
    Of::Every,
    "When the canary's notification last arrived, in seconds since 1970",
);

/// Notifications of the canary that did not arrive in time.
pub const CANARY_FAILURES: Metric = Metric::new(
    "notifications_canary_failures_total",
    Kind::Counter,
    Of::Every,
    "Notifications of the canary that did not arrive in time",
);

/// All of them, in the order above.
pub const ALL: &[Metric] = &[
    BUILD_INFO,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    HTTP_IN_FLIGHT,
    HTTP_CONNECTIONS,
    HTTP_SHED,
    AUTH_REFUSED,
    RATE_LIMITED,
    RESIDENT_MEMORY,
    OPEN_FDS,
    MAX_FDS,
    CPU_SECONDS,
    START_TIME,
    SENT,
    ACKNOWLEDGEMENT_SECONDS,
    BULK_LINES,
    DIRECTORY_LOOKUPS,
    DIRECTORY_CACHED,
    DIRECTORY_TRUSTED,
    PARTITIONS,
    LAG,
    REBUILD_RECORDS,
    REBUILD_SECONDS,
    FOLDED,
    INBOXES,
    ENTRIES,
    ENTRY_BYTES,
    EVICTED,
    SNAPSHOT_SECONDS,
    SNAPSHOT_BYTES,
    SNAPSHOT_LAST_SUCCESS,
    RESTORED,
    SNAPSHOTS_REFUSED,
    STREAMS,
    DELIVERY_SECONDS,
    DEAD_LETTERS,
    REBALANCES,
    FORWARDED,
    KAFKA_QUEUE_MESSAGES,
    KAFKA_QUEUE_BYTES,
    KAFKA_ROUND_TRIP,
    KAFKA_BROKERS,
    KAFKA_RETRIES,
    KAFKA_TIMEOUTS,
    KAFKA_DISCONNECTS,
    CANARY_SECONDS,
    CANARY_LAST_SUCCESS,
    CANARY_FAILURES,
];

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_metric_is_among_all_and_named_as_prometheus_wants_it() {
        let here = include_str!("lib.rs").matches("\npub const ").count() - 1;
        assert_eq!(ALL.len(), here, "a constant is not in ALL");
        let names: HashSet<_> = ALL.iter().map(|metric| metric.name).collect();
        assert_eq!(names.len(), ALL.len(), "a name is there twice");
        for Metric { name, kind, help, .. } in ALL {
            assert!(name.starts_with("notifications_") || name.starts_with("process_"), "{name}");
            assert_eq!(name.ends_with("_total"), *kind == Kind::Counter, "{name}");
            assert!(*kind != Kind::Histogram || name.ends_with("_seconds"), "{name}");
            assert!(!help.contains('\n') && !help.contains('\\'), "{name}");
        }
    }
}
