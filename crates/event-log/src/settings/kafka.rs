//! Where Kafka is, as flags and environment variables.

use std::fmt;

use clap::Args;

use super::{BatchArgs, SecurityArgs};
use crate::{
    Log, LogUnreachable,
    kafka::{Kafka, KafkaSettings},
};

/// Where Kafka is.
#[derive(Args, Clone)]
#[command(next_help_heading = "Kafka")]
pub struct KafkaArgs {
    /// Brokers to start from, as host:port, separated by commas
    #[arg(long, env = "KAFKA_BROKERS", default_value = "localhost:9092", value_name = "HOST:PORT")]
    pub kafka_brokers: String,

    /// How to speak with it
    #[command(flatten)]
    pub security: SecurityArgs,

    /// How it is appended to
    #[command(flatten)]
    pub batch: BatchArgs,

    /// Any other setting of librdkafka, which wins over ours; may be repeated. As an environment variable: separated by
    /// commas
    #[arg(
        long = "kafka-property", env = "KAFKA_PROPERTIES", hide_env_values = true,
        value_name = "NAME=VALUE", value_delimiter = ',', value_parser = property,
    )]
    pub kafka_properties: Vec<(String, String)>,
}

impl KafkaArgs {
    /// Makes the clients; does not wait for a broker.
    ///
    /// # Errors
    /// [`Unreachable`], when a setting is wrong.
    pub fn connect(&self, client_id: &str) -> Result<Log, LogUnreachable> {
        Kafka::new(KafkaSettings {
            brokers: self.kafka_brokers.clone(),
            client_id: client_id.to_owned(),
            security: self.security.security()?,
            batch: self.batch,
            properties: self.kafka_properties.clone(),
        })
        .map(Log::Kafka)
    }
}

/// Without the values of properties, which may be secrets.
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

fn property(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((name, value)) if !name.trim().is_empty() => {
            Ok((name.trim().to_owned(), value.trim().to_owned()))
        }
        _ => Err("must be NAME=VALUE, such as security.protocol=ssl".into()),
    }
}
