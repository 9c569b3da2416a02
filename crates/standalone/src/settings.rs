//! The settings of both services that mean something here, and where to keep the data.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use producer::{cors::InvalidOrigin, settings::SendArgs};
use service::{
    auth::{AuthArgs, TokenArgs},
    ops::telemetry::TelemetryArgs,
};

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

    /// Listen beyond the loopback interface although authentication is off
    #[arg(long, env = "STANDALONE_INSECURE")]
    pub(crate) insecure: bool,

    #[command(flatten)]
    consumer: consumer::ConsumerSettings,

    /// Names of users that are kept in memory, at most; 0 looks every user up each time
    #[arg(long, env = "DIRECTORY_CACHE", default_value_t = 100_000, value_name = "ENTRIES")]
    directory_cache: u64,

    #[command(flatten)]
    sending: SendArgs,

    #[command(flatten)]
    pub(crate) telemetry: TelemetryArgs,
}

/// What the standalone can do besides serving.
#[derive(Subcommand, Clone, Debug)]
pub(crate) enum Command {
    /// Print a token for development, or for a service of one's own, signed with the secret
    Token(TokenArgs),
    /// Ask the standalone that runs on this machine whether it lives; for container health checks
    Healthcheck,
}

impl Cli {
    /// Who may ask either of them.
    pub(crate) fn auth(&self) -> &AuthArgs {
        &self.consumer.auth
    }

    /// Its page sends to the producer on this port, unless it is told another.
    pub(crate) fn consumer(&self, producer_port: u16) -> consumer::ConsumerSettings {
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
            sending: SendArgs {
                cors_origins: origins
                    .iter()
                    .try_fold(self.sending.cors_origins.clone(), |all, origin| {
                        all.with_origin(origin)
                    })?,
                ..self.sending.clone()
            },
            directory_cache: self.directory_cache,
            // The directory's table is made when the folder is opened.
            migrate: false,
            canary: self.consumer.canary,
            auth: self.consumer.auth.clone(),
            http: self.consumer.http.clone(),
        })
    }
}
