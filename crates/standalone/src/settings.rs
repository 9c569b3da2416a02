//! The settings of both services that mean something here, and where to keep the data.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use producer::cors::{InvalidOrigin, Origins};
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

    /// Names of users that are kept in memory, at most; 0 looks every user up each time
    #[arg(long, env = "DIRECTORY_CACHE", default_value_t = 100_000, value_name = "ENTRIES")]
    directory_cache: u64,

    /// Web pages that may send from a browser, as origins such as `https://app.example.org`,
    /// separated by commas; those that this process serves itself may anyway
    #[arg(
        long,
        env = "PRODUCER_CORS_ORIGINS",
        default_value = "",
        hide_default_value = true,
        value_name = "ORIGINS"
    )]
    cors_origins: Origins,

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
    /// Its page sends to the producer on this port, unless it is told another.
    pub(crate) fn consumer(&self, producer_port: u16) -> consumer::Settings {
        let mut settings = self.consumer.clone();
        let url = || format!("http://localhost:{producer_port}");
        settings.page.producer_url.get_or_insert_with(url);
        settings
    }

    /// The pages that the consumer serves on this port may send.
    pub(crate) fn producer(&self, consumer_port: u16) -> Result<producer::Settings, InvalidOrigin> {
        // Browsers leave out the port that HTTP has anyway.
        let port = if consumer_port == 80 { String::new() } else { format!(":{consumer_port}") };
        let origins = ["localhost", "127.0.0.1"].map(|host| format!("http://{host}{port}"));
        Ok(producer::Settings {
            topics: self.consumer.topics.clone(),
            partitioner: self.consumer.partitioner,
            send_timeout: self.send_timeout,
            directory_cache: self.directory_cache,
            cors_origins: origins
                .iter()
                .try_fold(self.cors_origins.clone(), |all, origin| all.and(origin))?,
            // The directory's table is made when the folder is opened.
            migrate: false,
            http: self.consumer.http.clone(),
        })
    }
}
