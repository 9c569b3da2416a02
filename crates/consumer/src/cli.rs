//! The command line of the program `consumer`: Kafka, and what it can do besides serving.

use clap::{Parser, Subcommand};
use event_log::settings::KafkaArgs;
use model::Cursor;
use service::{cli::program::ServiceCommand, ops::telemetry::TelemetryArgs};

use crate::Settings;

/// Keeps each user's notifications at hand and serves them.
///
/// Joins the consumer group, reads the partitions that it is given from their beginning, and
/// answers GET /notifications/{id}. Restarting it loses nothing.
#[derive(Parser, Clone, Debug)]
#[command(
    name = "consumer",
    version,
    after_help = "Try it:\n  curl http://localhost:8081/notifications/1"
)]
pub struct Cli {
    /// What to do; serve, if nothing is said
    #[command(subcommand)]
    pub command: Option<Command>,

    /// Address to listen on
    #[arg(
        long,
        env = "CONSUMER_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub listen: String,

    /// Listen beyond the loopback interface although authentication is off
    #[arg(long, env = "CONSUMER_INSECURE")]
    pub insecure: bool,

    /// Where Kafka is
    #[command(flatten)]
    pub kafka: KafkaArgs,

    /// What to serve
    #[command(flatten)]
    pub settings: Settings,

    /// What to log
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

/// What the consumer can do besides serving.
#[derive(Subcommand, Clone, Debug)]
pub enum Command {
    /// The subcommands of every program
    #[command(flatten)]
    Service(ServiceCommand),
    /// Look at the records that were set aside because they are no notifications, or put them back
    #[command(subcommand)]
    Dlq(Dlq),
}

/// What can be done with dead letters.
#[derive(Subcommand, Clone, Debug)]
pub enum Dlq {
    /// Show each: where it is, where it came from, why, and how its value begins
    List,
    /// Put some of them back into the notifications' topic, where they are read again
    Replay {
        /// Which, as `list` shows them
        #[arg(required_unless_present = "all", value_name = "PARTITION-OFFSET")]
        places: Vec<Cursor>,
        /// All of them
        #[arg(long, conflicts_with = "places")]
        all: bool,
    },
}
