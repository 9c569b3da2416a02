//! The settings of both services that mean something here, and where to keep the data.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use service::telemetry::TelemetryArgs;

/// Everything in one process, nothing to install: producer and consumer on an embedded, durable
/// log and user directory.
///
/// What is acknowledged is on the disk. For more than one process, use producer and consumer with
/// Kafka and PostgreSQL.
#[derive(Parser, Clone, Debug)]
#[command(name = "standalone", version)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Option<Command>,

    /// Folder for everything that is kept; made if it is missing
    #[arg(long, env = "STANDALONE_DATA_DIR", default_value = "data", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,

    /// Address on which to take notifications
    #[arg(
        long,
        env = "PRODUCER_LISTEN",
        default_value = "127.0.0.1:8080",
        value_name = "HOST:PORT"
    )]
    pub(crate) producer_listen: String,

    /// Address on which to serve inboxes
    #[arg(
        long,
        env = "CONSUMER_LISTEN",
        default_value = "127.0.0.1:8081",
        value_name = "HOST:PORT"
    )]
    pub(crate) consumer_listen: String,

    /// Listen beyond the loopback interface although nobody is asked who they are
    #[arg(long, env = "STANDALONE_INSECURE")]
    pub(crate) insecure: bool,

    #[command(flatten)]
    consumer: consumer::Settings,

    /// How long an acknowledgement may take before the answer is 504
    #[arg(long, env = "PRODUCER_SEND_TIMEOUT", default_value = "10s", value_name = "DURATION",
          value_parser = service::settings::duration)]
    send_timeout: std::time::Duration,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

/// What the standalone can do besides serving.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Ask the standalone that runs on this machine whether it lives; for container health checks
    Healthcheck,
}

impl Cli {
    pub(crate) fn consumer(&self) -> consumer::Settings {
        self.consumer.clone()
    }

    pub(crate) fn producer(&self) -> producer::Settings {
        producer::Settings {
            topics: self.consumer.topics.clone(),
            partitioner: self.consumer.partitioner,
            send_timeout: self.send_timeout,
            // The directory's table is made when the folder is opened.
            migrate: false,
            http: self.consumer.http.clone(),
        }
    }
}
