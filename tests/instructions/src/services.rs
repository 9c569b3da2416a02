//! Both services on one thread, the producer on librdkafka's in-memory broker, the consumers on the
//! embedded log.

use std::{net::SocketAddr, path::Path};

use clap::Parser as _;
use consumer::cli::ConsumerCli;
use event_log::{Log, embedded::Embedded, mock::Cluster};
use model::TopicNames;
use producer::{cli::ProducerCli, directory::Directory};
use service::auth::{AuthArgs, TokenArgs};
use tokio::{net::TcpListener, runtime::Runtime};
use tokio_util::sync::CancellationToken;

use crate::Failure;

pub(crate) const TOPIC: &str = "notifications";
pub(crate) const PARTITIONS: u32 = 12;
const SECRET: &str = "a secret of thirty-two characters";

/// The running services. They end with the runtime.
pub(crate) struct Services {
    pub(crate) producer: SocketAddr,
    pub(crate) consumer: SocketAddr,
    /// A consumer that asks for a token, on the same log.
    pub(crate) guarded_consumer: SocketAddr,
    /// A token for user 1.
    pub(crate) token: String,
    /// The consumers' log.
    pub(crate) log: Log,
}

#[derive(clap::Parser)]
struct Token {
    #[command(flatten)]
    claims: TokenArgs,
    #[command(flatten)]
    auth: AuthArgs,
}

impl Services {
    /// Starts them on this broker, with their files in this folder.
    pub(crate) fn start(
        runtime: &Runtime,
        cluster: &Cluster,
        folder: &Path,
    ) -> Result<Self, Failure> {
        let names = TopicNames::from_notifications(TOPIC);
        for topic in [&names.notifications, &names.receipts, &names.dlq] {
            cluster.create_topic(topic, PARTITIONS)?;
        }
        cluster.create_topic(&names.owners, 1)?;
        let kafka = Log::Kafka(cluster.connect("instructions")?);
        // The senders' limits are part of what a send costs, but none must be reached.
        let flags = ["producer", "--rate-limit=1000000", "--rate-burst=1000000"];
        let settings = ProducerCli::try_parse_from(flags)?.settings;
        let directory = runtime.block_on(async {
            let directory = Directory::open_sqlite(&folder.join("users.db")).await?;
            directory.migrate().await?;
            Ok::<_, Failure>(directory)
        })?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let producer = listener.local_addr()?;
        let shutdown = CancellationToken::new();
        runtime.spawn(producer::run(settings, kafka, directory, listener, shutdown));

        let log = Log::Embedded(runtime.block_on(Embedded::open(&folder.join("log.db")))?);
        let secret = format!("--auth-secret={SECRET}");
        let token = Token::try_parse_from(["token", "--sub=1", &secret])?;
        Ok(Self {
            producer,
            consumer: start_consumer(runtime, &log, &[])?,
            guarded_consumer: start_consumer(runtime, &log, &[&secret])?,
            token: token.claims.mint_token(&token.auth)?,
            log,
        })
    }
}

fn start_consumer(runtime: &Runtime, log: &Log, flags: &[&str]) -> Result<SocketAddr, Failure> {
    let settings = ConsumerCli::try_parse_from(["consumer"].iter().chain(flags))?.settings;
    let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
    let address = listener.local_addr()?;
    runtime.spawn(consumer::run(settings, log.clone(), listener, CancellationToken::new()));
    Ok(address)
}
