//! Where a run takes place: its Kafka and PostgreSQL, its topics, its programs and its folder.
//! Everything that it made is gone when it is dropped.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    Result,
    instance::Instance,
    kafka::{Kafka, PARTITIONS, Topic},
    options::Options,
    say,
    subjects::Service,
};

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

    /// Makes an empty topic of as many partitions as the services make by default.
    pub(crate) async fn topic(&mut self, what: &str) -> Result<Topic> {
        self.topic_of(what, PARTITIONS).await
    }

    /// Makes an empty topic of so many partitions.
    pub(crate) async fn topic_of(&mut self, what: &str, partitions: u32) -> Result<Topic> {
        let topic = Topic { name: self.unique(what), partitions };
        self.kafka.create(&topic).await?;
        let names = model::TopicNames::from_notifications(&topic.name);
        self.topics.extend([names.notifications, names.receipts, names.owners, names.dlq]);
        Ok(topic)
    }

    /// Deletes a topic and what the services made beside it, long before the run ends.
    pub(crate) async fn remove(&self, topic: &Topic) -> Result<()> {
        let names = model::TopicNames::from_notifications(&topic.name);
        let names = [names.notifications, names.receipts, names.owners, names.dlq];
        self.kafka.delete(&names.each_ref().map(String::as_str)).await
    }

    /// Starts a producer for this topic and waits until it is ready.
    pub(crate) async fn producer(&mut self, topic: &Topic) -> Result<Service> {
        self.producer_with(topic, &[]).await
    }

    /// The same, with these flags.
    pub(crate) async fn producer_with(&mut self, topic: &Topic, flags: &[&str]) -> Result<Service> {
        let url = self.database_url()?;
        let program = self.programs.join("producer");
        let kafka = self.flags(topic);
        let arguments = kafka.iter().map(String::as_str).chain(["--migrate"]);
        let arguments: Vec<_> = arguments.chain(flags.iter().copied()).collect();
        let mut producer =
            Service::spawn(self.folder(), &program, &arguments, &[("DATABASE_URL", &url)])?;
        producer.ready().await?;
        Ok(producer)
    }

    /// Starts a consumer of this topic in a group of its own; does not wait.
    pub(crate) fn consumer(&mut self, topic: &Topic) -> Result<Service> {
        let (group, kafka) = (self.unique("group"), self.flags(topic));
        let arguments = kafka.iter().map(String::as_str).chain(["--group", &group]);
        let program = self.programs.join("consumer");
        Service::spawn(self.folder(), &program, &arguments.collect::<Vec<_>>(), &[])
    }

    /// What tells a service where its topic is.
    fn flags(&self, topic: &Topic) -> [String; 6] {
        let partitions = topic.partitions.to_string();
        ["--kafka-brokers", &self.brokers, "--topic", &topic.name, "--partitions", &partitions]
            .map(str::to_owned)
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
