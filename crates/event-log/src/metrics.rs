//! The metrics that this crate counts: name, meaning and labels. The process that serves them
//! describes them to its recorder once.
#![allow(missing_docs)] // The descriptions say what each constant is.

use metrics::{describe_counter, describe_gauge};

pub const DEAD_LETTERS: &str = "notifications_dead_letters_total";
pub const REBALANCES: &str = "notifications_rebalances_total";

// librdkafka's statistics, every 5 s, of the client that reported last.

pub const KAFKA_QUEUE_MESSAGES: &str = "notifications_kafka_queue_messages";
pub const KAFKA_QUEUE_BYTES: &str = "notifications_kafka_queue_bytes";
pub const KAFKA_ROUND_TRIP: &str = "notifications_kafka_round_trip_seconds";
pub const KAFKA_BROKERS: &str = "notifications_kafka_brokers";
pub const KAFKA_RETRIES: &str = "notifications_kafka_retries_total";
pub const KAFKA_TIMEOUTS: &str = "notifications_kafka_request_timeouts_total";
pub const KAFKA_DISCONNECTS: &str = "notifications_kafka_disconnects_total";

/// Describes what a group member counts.
pub fn describe_reader() {
    describe_counter!(DEAD_LETTERS, "Poison records copied to the dead-letter queue");
    describe_counter!(
        REBALANCES,
        "Changes of the partitions of this group member: `assigned`, `revoked`, `lost` (the group had fenced this member); labels: kind"
    );
}

/// Describes what every Kafka client counts.
pub fn describe_clients() {
    describe_gauge!(
        KAFKA_QUEUE_MESSAGES,
        "Records in the queues of a Kafka client that are not acknowledged; `client` is `writer`, `reader` or `follower`; labels: client"
    );
    describe_gauge!(
        KAFKA_QUEUE_BYTES,
        "Bytes of the records in the queues of a Kafka client; labels: client"
    );
    describe_gauge!(
        KAFKA_ROUND_TRIP,
        "Round trip of requests to the slowest broker: `p50`, `p99`; labels: client, percentile"
    );
    describe_gauge!(
        KAFKA_BROKERS,
        "Brokers that a Kafka client knows: `up`, `down`; labels: client, state"
    );
    describe_counter!(KAFKA_RETRIES, "Requests that a Kafka client retried; labels: client");
    describe_counter!(KAFKA_TIMEOUTS, "Requests of a Kafka client that timed out; labels: client");
    describe_counter!(
        KAFKA_DISCONNECTS,
        "Connections to brokers that a Kafka client lost; labels: client"
    );
}
