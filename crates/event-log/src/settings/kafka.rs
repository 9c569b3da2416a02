//! Flags and environment variables of the connection to Kafka.

use std::fmt;

use clap::Args;

use super::{BatchArgs, SecurityArgs};
use crate::{
    Log, LogUnreachable,
    kafka::{Kafka, KafkaSettings},
};

/// The connection to Kafka.
#[derive(Args, Clone)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Bootstrap brokers, as host:port, separated by commas
    #[arg(long, env = "KAFKA_BROKERS", default_value = "localhost:9092", value_name = "HOST:PORT")]
    pub kafka_brokers: String,

    /// TLS and SASL
    #[command(flatten)]
    pub security: SecurityArgs,

    /// Batching and compression
    #[command(flatten)]
    pub batch: BatchArgs,

    /// Any other librdkafka setting, which overrides ours; may be repeated. In the environment
    /// variable: separated by commas
    #[arg(
        long = "kafka-property", env = "KAFKA_PROPERTIES", hide_env_values = true,
        value_name = "NAME=VALUE", value_delimiter = ',', value_parser = parse_property,
    )]
    pub kafka_properties: Vec<(String, String)>,
}

impl KafkaArgs {
    /// Makes the clients; does not wait for a broker. Fails if a setting is invalid.
    pub fn connect(&self, client_id: &str) -> Result<Log, LogUnreachable> {
        Kafka::new(KafkaSettings {
            brokers: self.kafka_brokers.clone(),
            client_id: client_id.to_owned(),
            batch: self.batch,
            properties: self.to_properties()?,
        })
        .map(Log::Kafka)
    }

    /// The flags of TLS and SASL, then the properties that override them.
    pub(super) fn to_properties(&self) -> Result<Vec<(String, String)>, LogUnreachable> {
        Ok([self.security.to_properties()?, self.kafka_properties.clone()].concat())
    }
}

/// Omits the values of properties, which may be secrets.
impl fmt::Debug for KafkaArgs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.kafka_properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaArgs")
            .field("kafka_brokers", &self.kafka_brokers)
            .field("security", &self.security)
            .field("batch", &self.batch)
            .field("kafka_properties", &names)
            .finish()
    }
}

fn parse_property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("must be NAME=VALUE, such as security.protocol=ssl".into()),
    }
}
