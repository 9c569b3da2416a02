//! librdkafka's in-memory broker: nothing to install, faults on demand. For tests of the Kafka
//! driver; it keeps at most 5 MB or 100,000 records a partition, and forgets everything.

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
    /// Starts one of a single broker.
    ///
    /// # Errors
    /// When librdkafka cannot.
    pub fn start() -> Result<Self, LogUnreachable> {
        Self::of(1)
    }

    /// Starts one of so many brokers, whose ids begin at 1.
    ///
    /// # Errors
    /// When librdkafka cannot.
    pub fn of(brokers: i32) -> Result<Self, LogUnreachable> {
        MockCluster::new(brokers).map(Self).map_err(|error| LogUnreachable(error.to_string()))
    }

    /// `host:port`.
    #[must_use]
    pub fn brokers(&self) -> String {
        self.0.bootstrap_servers()
    }

    /// Makes a topic; the mock broker does not understand the request to make one.
    ///
    /// # Errors
    /// When it exists.
    pub fn create_topic(&self, name: &str, partitions: u32) -> Result<(), LogUnreachable> {
        let partitions = i32::try_from(partitions).unwrap_or(i32::MAX);
        self.0.create_topic(name, partitions, 1).map_err(|error| LogUnreachable(error.to_string()))
    }

    /// Clients of this cluster.
    ///
    /// # Errors
    /// When librdkafka cannot make them.
    pub fn connect(&self, client_id: &str) -> Result<Kafka, LogUnreachable> {
        Kafka::new(KafkaSettings {
            brokers: self.brokers(),
            client_id: client_id.to_owned(),
            ..KafkaSettings::default()
        })
    }

    /// Makes this broker lead a partition.
    ///
    /// # Errors
    /// When there is no such broker.
    pub fn lead(&self, topic: &str, partition: i32, broker: i32) -> Result<(), LogUnreachable> {
        let led = self.0.partition_leader(topic, partition, Some(broker));
        led.map_err(|error| LogUnreachable(error.to_string()))
    }

    /// Has the next append refused with an error after which an idempotent client cannot go on: the
    /// broker has lost count of its records.
    pub fn lose_count(&self) {
        let lost = RDKafkaRespErr::RD_KAFKA_RESP_ERR_OUT_OF_ORDER_SEQUENCE_NUMBER;
        self.0.request_errors(RDKafkaApiKey::Produce, &[lost]);
    }

    /// Refuses to take records, as a broker does that has too few replicas, or stops to. It answers
    /// everything else.
    pub fn refuse_records(&self, refuse: bool) {
        if refuse {
            let few = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NOT_ENOUGH_REPLICAS;
            self.0.request_errors(RDKafkaApiKey::Produce, &[few; 10_000]);
        } else {
            self.0.clear_request_errors(RDKafkaApiKey::Produce);
        }
    }

    /// Takes the broker away, or brings it back.
    pub fn set_up(&self, up: bool) {
        let _ = if up { self.0.broker_up(1) } else { self.0.broker_down(1) };
    }

    /// Delays every answer by this much.
    pub fn set_round_trip(&self, delay: Duration) {
        let _ = self.0.broker_round_trip_time(1, delay);
    }
}
