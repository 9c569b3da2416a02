//! The command line: the settings of both services that apply here, and the data folder.

use std::path::PathBuf;

use clap::Parser;
use producer::{cors::InvalidOrigin, settings::SendArgs};
use service::{
    auth::AuthArgs,
    cli::program::{ServiceArgs, ServiceCommand},
};

/// Everything in one process, nothing to install: producer and consumer on an embedded, durable
/// log and user directory.
///
/// Acknowledged notifications are on the disk. For more than one process, use producer and consumer
/// with Kafka and PostgreSQL.
#[derive(Parser, Clone, Debug)]
#[command(name = "standalone", version)]
#[command(mut_arg("insecure", |arg| arg.env("STANDALONE_INSECURE")))]
// One process with one copy of the log has no use for these; scripts that pass them still work.
#[command(mut_arg("group_instance", |arg| arg.hide(true)))]
#[command(mut_arg("advertise", |arg| arg.hide(true)))]
#[command(mut_arg("peers", |arg| arg.hide(true)))]
#[command(mut_arg("accept_unsigned_claims", |arg| arg.hide(true)))]
#[command(mut_arg("replication", |arg| arg.hide(true)))]
pub struct StandaloneCli {
    #[command(subcommand)]
    pub(crate) command: Option<ServiceCommand>,

    /// Folder of the log and the users, on a local disk; created if it is missing
    #[arg(long, env = "STANDALONE_DATA_DIR", default_value = "data", value_name = "FOLDER")]
    pub(crate) data_dir: PathBuf,

    /// Address of the producer (POST /send); port 0: any free port
    #[arg(long, env = "PRODUCER_LISTEN", value_name = "HOST:PORT")]
    #[arg(default_value = "127.0.0.1:8080")]
    pub(crate) producer_listen: String,

    /// Address of the consumer (GET /notifications); port 0: any free port
    #[arg(long, env = "CONSUMER_LISTEN", value_name = "HOST:PORT")]
    #[arg(default_value = "127.0.0.1:8081")]
    pub(crate) consumer_listen: String,

    #[command(flatten)]
    consumer: consumer::ConsumerSettings,

    #[command(flatten)]
    sending: SendArgs,

    /// The flags of every program
    #[command(flatten)]
    pub shared: ServiceArgs,
}

impl StandaloneCli {
    /// The authentication of both services.
    pub(crate) fn auth(&self) -> &AuthArgs {
        &self.consumer.auth
    }

    /// The consumer's settings. Its page sends to the producer on this port, unless
    /// `--producer-url` is given.
    pub(crate) fn consumer_settings(&self, producer_port: u16) -> consumer::ConsumerSettings {
        let mut settings = self.consumer.clone();
        let url = || format!("http://localhost:{producer_port}");
        settings.page.producer_url.get_or_insert_with(url);
        settings
    }

    /// The producer's settings. Pages that the consumer serves on this port may send (CORS).
    pub(crate) fn producer_settings(
        &self,
        consumer_port: u16,
    ) -> Result<producer::Settings, InvalidOrigin> {
        // Browsers leave the default port out of `Origin`.
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
            // The table is migrated when the folder is opened.
            migrate: false,
            canary: self.consumer.canary,
            auth: self.consumer.auth.clone(),
            http: self.consumer.http.clone(),
        })
    }
}
