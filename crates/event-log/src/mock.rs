//! librdkafka's in-memory broker with faults on demand, for tests of the Kafka driver. It keeps at
//! most 5 MB or 100,000 records of a partition, in memory only.

use std::time::Duration;

use rdkafka::{
    mocking::MockCluster,
    producer::DefaultProducerContext,
    types::{RDKafkaApiKey, RDKafkaRespErr},
};

use crate::{
    LogUnreachable,
    kafka::{Kafka, KafkaSettings},
};

/// A cluster of in-memory brokers on free ports of the loopback interface.
pub struct Cluster(MockCluster<'static, DefaultProducerContext>);

impl Cluster {
    /// Starts a cluster of one broker.
    pub fn start() -> Result<Self, LogUnreachable> {
        Self::with_brokers(1)
    }

    /// Starts a cluster; the ids of its brokers begin at 1.
    pub fn with_brokers(brokers: i32) -> Result<Self, LogUnreachable> {
        MockCluster::new(brokers).map(Self).map_err(|error| LogUnreachable(error.to_string()))
    }

    /// The brokers' addresses, as `host:port`, separated by commas.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Creates a topic. The mock broker does not support the CreateTopics request.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), LogUnreachable> {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.0.create_topic(name, partitions, 1).map_err(|error| LogUnreachable(error.to_string()))
    }

    /// Makes clients of this cluster.
    pub fn connect(&self, client_id: &str) -> Result<Kafka, LogUnreachable> {
        Kafka::new(KafkaSettings {
            brokers: self.brokers(),
            client_id: client_id.to_owned(),
            ..KafkaSettings::default()
        })
    }

    /// Makes this broker the leader of a partition.
    pub fn set_leader(
        &self,
        topic: &str,
        partition: i32,
        broker: i32,
    ) -> Result<(), LogUnreachable> {
        let led = self.0.partition_leader(topic, partition, Some(broker));
        led.map_err(|error| LogUnreachable(error.to_string()))
    }

    /// Fails the next append with a sequence-number error, which is fatal to an idempotent client.
    pub fn fail_sequence(&self) {
        let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        self.0.request_errors(RDKafkaApiKey::Produce, &[lost]);
    }

    /// Answers the next append as a repeated one whose offset the broker no longer knows.
    pub fn forget_offset(&self) {
        let duplicate = RDKafkaRespErr::RD_KAFKA_RESP_ERR_DUPLICATE_SEQUENCE_NUMBER;
        self.0.request_errors(RDKafkaApiKey::Produce, &[duplicate]);
    }

    /// Rejects appends, like a broker with too few in-sync replicas, or accepts them again. Other
    /// requests succeed.
    pub fn set_rejecting(&self, rejecting: bool) {
        if rejecting {
            let few = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
            self.0.request_errors(RDKafkaApiKey::Produce, &[few; 10_000]);
        } else {
            self.0.clear_request_errors(RDKafkaApiKey::Produce);
        }
    }

    /// Fails the reading of records, as with a damaged batch, or lets them be read again. Other
    /// requests succeed.
    pub fn set_unreadable(&self, unreadable: bool) {
        if unreadable {
            let damaged = RDKafkaRespErr::RD_KAFKA_RESP_ERR_INVALID_MSG;
            self.0.request_errors(RDKafkaApiKey::Fetch, &[damaged; 10_000]);
        } else {
            self.0.clear_request_errors(RDKafkaApiKey::Fetch);
        }
    }

    /// Stops the broker, or starts it again.
    pub fn set_up(&self, up: bool) {
        let _ = if up { self.0.broker_up(1) } else { self.0.broker_down(1) };
    }

    /// Delays every response by this much.
    pub fn set_round_trip(&self, delay: Duration) {
        let _ = self.0.broker_round_trip_time(1, delay);
    }
}
