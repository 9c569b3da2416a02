//! Where a run takes place: its settings, its Kafka and PostgreSQL, its programs and its folder.
//! Everything that it made is gone when it is dropped.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use service::settings::Secret;
use tempfile::TempDir;

use crate::{
    Result,
    kafka::{Kafka, PARTITIONS},
    say,
    subjects::{Instance, Service},
};

/// What all subcommands share.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct Options {
    /// A short run: fewer and shorter rounds, wherever their number or length is not given
    #[arg(long, global = true)]
    pub(crate) quick: bool,

    /// Rounds, after one that only warms up [default: 5; quick: 3]
    #[arg(long, global = true, value_name = "COUNT", value_parser = clap::value_parser!(u32).range(1..=100))]
    rounds: Option<u32>,

    /// Write the figures, round by round, to this file as JSON
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) json: Option<PathBuf>,

    /// Write the report, which goes to standard output, to this file too
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) markdown: Option<PathBuf>,

    /// Kafka to measure against, as host:port, instead of a broker of the run's own. The topics
    /// made there are deleted at the end
    #[arg(long, global = true, value_name = "HOST:PORT")]
    kafka_brokers: Option<String>,

    /// PostgreSQL to measure against, as a URL, instead of a server of the run's own. The users'
    /// table is made if it is missing, and stays
    #[arg(long, global = true, value_name = "URL")]
    database_url: Option<Secret>,

    /// The script that starts Kafka and PostgreSQL
    #[arg(
        long, global = true, value_name = "FILE", hide_default_value = true,
        default_value = concat!(env!("CARGO_MANIFEST_DIR"), "/../../scripts/real"),
    )]
    real_script: PathBuf,
}

impl Options {
    /// How many rounds are counted.
    pub(crate) fn rounds(&self) -> u32 {
        self.rounds.unwrap_or(if self.quick { 3 } else { 5 })
    }
}

/// One run's surroundings.
#[derive(Debug)]
pub(crate) struct Site {
    pub(crate) options: Options,
    pub(crate) kafka: Kafka,
    brokers: String,
    database_url: Option<String>,
    /// The programs' folder, which is that of this program.
    programs: PathBuf,
    folder: TempDir,
    /// Topics made on brokers that are not ours.
    topics: Vec<String>,
    names: u32,
    own: Vec<Instance>,
}

impl Site {
    /// Makes sure of the programs, and starts a broker unless one was named.
    pub(crate) fn open(options: Options) -> Result<Self> {
        let programs = programs()?;
        let mut own = Vec::new();
        let brokers = match &options.kafka_brokers {
            Some(brokers) => brokers.clone(),
            None => address(&mut own, Instance::start(&options.real_script, "kafka")?),
        };
        Ok(Self {
            kafka: Kafka::new(&brokers),
            database_url: options.database_url.as_ref().map(|url| url.expose().to_owned()),
            brokers,
            programs,
            folder: tempfile::Builder::new().prefix("notifications-bench-").tempdir()?,
            topics: Vec::new(),
            names: 0,
            own,
            options,
        })
    }

    /// The URL of the users' database. Starts a server when first asked, unless one was named.
    pub(crate) fn database_url(&mut self) -> Result<String> {
        if let Some(url) = &self.database_url {
            return Ok(url.clone());
        }
        let url = address(&mut self.own, Instance::start(&self.options.real_script, "postgres")?);
        self.database_url = Some(url.clone());
        Ok(url)
    }

    /// For files that last as long as the run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A name that nothing on any broker has yet.
    fn unique(&mut self, what: &str) -> String {
        self.names += 1;
        let now = jiff::Timestamp::now().as_millisecond();
        format!("bench-{what}-{}-{now}-{}", std::process::id(), self.names)
    }

    /// Makes an empty topic and returns its name.
    pub(crate) async fn topic(&mut self, what: &str) -> Result<String> {
        let topic = self.unique(what);
        self.kafka.create(&topic).await?;
        let names = model::TopicNames::of(&topic);
        self.topics.extend([names.notifications, names.receipts, names.owners, names.dlq]);
        Ok(topic)
    }

    /// Starts a producer for this topic and waits until it is ready.
    pub(crate) async fn producer(&mut self, topic: &str) -> Result<Service> {
        let url = self.database_url()?;
        let partitions = PARTITIONS.to_string();
        let arguments = [
            "--migrate",
            "--kafka-brokers",
            &self.brokers,
            "--topic",
            topic,
            "--partitions",
            &partitions,
        ];
        let program = self.programs.join("producer");
        let mut producer =
            Service::spawn(self.folder(), &program, &arguments, &[("DATABASE_URL", &url)])?;
        producer.ready().await?;
        Ok(producer)
    }

    /// Starts a consumer of this topic in a group of its own; does not wait.
    pub(crate) fn consumer(&mut self, topic: &str) -> Result<Service> {
        let (group, partitions) = (self.unique("group"), PARTITIONS.to_string());
        let arguments = [
            "--kafka-brokers",
            &self.brokers,
            "--topic",
            topic,
            "--group",
            &group,
            "--partitions",
            &partitions,
        ];
        Service::spawn(self.folder(), &self.programs.join("consumer"), &arguments, &[])
    }

    /// Starts a limit, which is this program too, and waits until it is ready.
    pub(crate) async fn limit(&self, arguments: &[&str], env: &[(&str, &str)]) -> Result<Service> {
        let arguments = [&["limit"], arguments].concat();
        let mut limit =
            Service::spawn(self.folder(), &self.programs.join("bench"), &arguments, env)?;
        limit.ready().await?;
        Ok(limit)
    }

    /// Removes from brokers that live on what was made there.
    pub(crate) async fn close(self) -> Result<()> {
        if self.options.kafka_brokers.is_some() && !self.topics.is_empty() {
            let topics: Vec<_> = self.topics.iter().map(String::as_str).collect();
            self.kafka.delete(&topics).await?;
        }
        Ok(())
    }
}

/// How long a round of load is.
#[derive(clap::Args, Debug, Clone)]
pub(crate) struct LoadArgs {
    /// Connections, each with one request at a time; for a bare loop, records in flight
    #[arg(long, default_value_t = 64, value_name = "COUNT", value_parser = clap::value_parser!(u16).range(1..=4096))]
    pub(crate) connections: u16,

    /// Seconds that a round takes [default: 5; quick: 2]
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=300))]
    seconds: Option<u64>,
}

impl LoadArgs {
    /// How long a round takes.
    pub(crate) fn round(&self, quick: bool) -> Duration {
        Duration::from_secs(self.seconds.unwrap_or(if quick { 2 } else { 5 }))
    }
}

fn address(own: &mut Vec<Instance>, instance: Instance) -> String {
    let address = instance.address.clone();
    own.push(instance);
    address
}

/// The folder of the services' programs. Under cargo they are built first, because cargo builds
/// the programs of other packages only on request, and old ones would be measured otherwise.
fn programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or("this program is in no folder")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        say("building the services");
        let mut build = Command::new(cargo);
        // Not this program itself, which would be replaced while it runs.
        build.args(["build", "--quiet", "-p", "producer", "-p", "consumer", "--bins"]);
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        if !build.status()?.success() {
            return Err("the services do not build".into());
        }
    }
    Ok(folder.to_owned())
}
