//! The surroundings of a run: its Kafka and PostgreSQL (started by `scripts/real`, unless flags
//! name others), its topics, its programs and its folder. Dropping it ends and removes all of them.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use model::TopicNames;
use serde::de::DeserializeOwned;
use tempfile::TempDir;

use crate::{
    Result,
    cli::Options,
    kafka::{BareKafka, BenchTopic, ReadCurve},
    print_status,
    process::{ServerProcess, free_address},
};

/// The surroundings of one run.
#[derive(Debug)]
pub(crate) struct Testbed {
    pub(crate) options: Options,
    pub(crate) kafka: BareKafka,
    brokers: String,
    /// The process of the broker that this run started.
    pub(crate) broker: Option<u32>,
    database_url: Option<String>,
    /// The folder of the services' programs, which is that of this program.
    programs: PathBuf,
    folder: TempDir,
    /// Every topic of this run. They are deleted at the end if the brokers are not the run's own.
    topics: Vec<String>,
    names: u32,
    servers: Vec<StartedServer>,
}

impl Testbed {
    /// Builds the services if cargo runs this program, and starts a broker unless one was named.
    pub(crate) fn start(options: Options) -> Result<Self> {
        let programs = match &options.programs {
            Some(folder) => folder.clone(),
            None => build_programs()?,
        };
        let mut servers = Vec::new();
        let brokers = match &options.kafka_brokers {
            Some(brokers) => brokers.clone(),
            None => start_server(&mut servers, &options.real_script, "kafka")?,
        };
        let broker =
            options.kafka_brokers.is_none().then(|| broker_pid(&options.real_script)).flatten();
        Ok(Self {
            kafka: BareKafka::new(&brokers),
            broker,
            database_url: options.database_url.as_ref().map(|url| url.expose().to_owned()),
            brokers,
            programs,
            folder: tempfile::Builder::new().prefix("notifications-bench-").tempdir()?,
            topics: Vec::new(),
            names: 0,
            servers,
            options,
        })
    }

    /// The URL of the users' database. The first call starts a server, unless one was named.
    pub(crate) fn database_url(&mut self) -> Result<String> {
        if let Some(url) = &self.database_url {
            return Ok(url.clone());
        }
        let url = start_server(&mut self.servers, &self.options.real_script, "postgres")?;
        self.database_url = Some(url.clone());
        Ok(url)
    }

    /// A folder for files of this run.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// A topic or group name that is new to any broker.
    pub(crate) fn unique_name(&mut self, label: &str) -> String {
        self.names += 1;
        let now = jiff::Timestamp::now().as_millisecond();
        format!("bench-{label}-{}-{now}-{}", std::process::id(), self.names)
    }

    /// Creates an empty topic with this many partitions.
    pub(crate) async fn create_topic(
        &mut self,
        label: &str,
        partitions: u32,
    ) -> Result<BenchTopic> {
        let topic = BenchTopic { name: self.unique_name(label), partitions };
        self.kafka.create_topic(&topic).await?;
        self.topics.extend(all_topic_names(&topic));
        Ok(topic)
    }

    /// Starts a producer for this topic with these extra flags and waits until it is ready.
    pub(crate) async fn start_producer(
        &mut self,
        topic: &BenchTopic,
        flags: &[&str],
    ) -> Result<ServerProcess> {
        let (url, kafka) = (self.database_url()?, self.kafka_flags(topic));
        let arguments = kafka.iter().map(String::as_str).chain(["--migrate", "--rate-limit", "0"]);
        let arguments: Vec<_> = arguments.chain(flags.iter().copied()).collect();
        let mut env = self.auth_env(self.options.auth);
        env.push(("DATABASE_URL", &url));
        let mut producer = self.spawn("producer", &arguments, &env)?;
        producer.await_ready().await?;
        Ok(producer)
    }

    /// Starts a consumer in a group of its own and waits until it is live and holds the topic's
    /// records. Returns its records over time, too.
    pub(crate) async fn start_consumer(
        &mut self,
        topic: &BenchTopic,
        records: u64,
        flags: &[&str],
    ) -> Result<(ServerProcess, ReadCurve)> {
        let group = self.unique_name("group");
        let mut consumer = self.spawn_consumer(free_address()?, topic, &group, flags, false)?;
        let curve = consumer.await_live(records).await?;
        Ok((consumer, curve))
    }

    /// Starts a consumer on this address, and does not wait.
    pub(crate) fn spawn_consumer(
        &self,
        address: SocketAddr,
        topic: &BenchTopic,
        group: &str,
        flags: &[&str],
        auth: bool,
    ) -> Result<ServerProcess> {
        let kafka = self.kafka_flags(topic);
        let arguments = kafka.iter().map(String::as_str).chain(["--group", group]);
        let arguments: Vec<_> = arguments.chain(flags.iter().copied()).collect();
        let (folder, program) = (self.folder(), self.programs.join("consumer"));
        ServerProcess::spawn_at(address, folder, &program, &arguments, &self.auth_env(auth))
    }

    /// A header with a token for this user, of the secret that guarded services have.
    pub(crate) fn token_header(&self, user: i64, scopes: &[&str]) -> Result<String> {
        let mut command = Command::new(self.programs.join("consumer"));
        command.args(["token", "--sub", &user.to_string()]).env_clear().envs(self.auth_env(true));
        command.args(scopes.iter().flat_map(|scope| ["--scope", scope])).current_dir(self.folder());
        let output = command.output()?;
        let token = String::from_utf8(output.stdout)?;
        if !output.status.success() {
            return Err("the consumer printed no token".into());
        }
        Ok(format!("Authorization: Bearer {}\r\n", token.trim()))
    }

    fn auth_env<'a>(&self, auth: bool) -> Vec<(&'a str, &'a str)> {
        if auth { vec![("AUTH_SECRET", "a secret that only a bench may have")] } else { Vec::new() }
    }

    /// Starts a limit, which is this program too, and waits until it is ready.
    pub(crate) async fn start_limit(
        &self,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<ServerProcess> {
        let (program, arguments) = (std::env::current_exe()?, [&["limit"], arguments].concat());
        let mut limit = ServerProcess::spawn(self.folder(), &program, &arguments, env)?;
        limit.await_ready().await?;
        Ok(limit)
    }

    /// Runs a limit that measures itself, on this topic, and returns its result.
    pub(crate) async fn run_limit<T: DeserializeOwned>(
        &self,
        name: &str,
        topic: &BenchTopic,
        flags: &[(&str, u64)],
    ) -> Result<T> {
        let mut arguments = vec!["limit".to_owned(), name.to_owned()];
        let partitions = topic.partitions.to_string();
        arguments.extend(
            ["--brokers", &self.brokers, "--topic", &topic.name, "--partitions", &partitions]
                .map(str::to_owned),
        );
        for (flag, value) in flags {
            arguments.extend([(*flag).to_owned(), value.to_string()]);
        }
        if let Some(broker) = self.broker {
            arguments.extend(["--broker-pid".to_owned(), broker.to_string()]);
        }
        let output = ServerProcess::output_of(&std::env::current_exe()?, &arguments).await?;
        Ok(serde_json::from_slice(&output)?)
    }

    fn spawn(
        &self,
        program: &str,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<ServerProcess> {
        ServerProcess::spawn(self.folder(), &self.programs.join(program), arguments, env)
    }

    fn kafka_flags(&self, topic: &BenchTopic) -> [String; 6] {
        let partitions = topic.partitions.to_string();
        ["--kafka-brokers", &self.brokers, "--topic", &topic.name, "--partitions", &partitions]
            .map(str::to_owned)
    }

    /// Deletes this run's topics from brokers that outlive the run.
    pub(crate) async fn delete_topics(self) -> Result<()> {
        if self.options.kafka_brokers.is_some() && !self.topics.is_empty() {
            self.kafka.delete_topics(&self.topics).await?;
        }
        Ok(())
    }
}

/// The topic and those that the services make beside it.
fn all_topic_names(topic: &BenchTopic) -> [String; 4] {
    let names = TopicNames::from_notifications(&topic.name);
    [names.notifications, names.receipts, names.owners, names.dlq]
}

/// The folder of the services' programs. If cargo runs this program, the services are built first:
/// cargo builds the programs of other packages only on request, and would leave old ones there.
fn build_programs() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    let folder = own.parent().ok_or("this program is in no folder")?;
    if let Some(cargo) = std::env::var_os("CARGO") {
        print_status("building the services");
        let mut build = Command::new(cargo);
        // Without this package: cargo would replace the program while it runs.
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

/// The process of the broker that this run started.
fn broker_pid(script: &Path) -> Option<u32> {
    let instances = script.parent()?.parent()?.join("target/real");
    let file = instances.join(format!("bench-{}-kafka", std::process::id())).join("pid");
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// A Kafka broker or a PostgreSQL server that this run started; dropping it removes the server.
#[derive(Debug)]
struct StartedServer {
    script: PathBuf,
    name: String,
}

/// Starts a `kafka` or a `postgres`, waits until it answers, and returns its address (`host:port`
/// or a URL). Blocks the thread, so that Ctrl-C takes effect after the server is fully started.
fn start_server(servers: &mut Vec<StartedServer>, script: &Path, kind: &str) -> Result<String> {
    print_status(format_args!("starting {kind}"));
    let name = format!("bench-{}-{kind}", std::process::id());
    // Constructed before the start, so that its drop also removes a server whose start failed.
    let server = StartedServer { script: script.to_owned(), name };
    let address = server.run_script(&["start", kind])?;
    servers.push(server);
    Ok(address)
}

impl StartedServer {
    fn run_script(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new(&self.script);
        command.args(arguments).arg(&self.name).stdin(Stdio::null()).stderr(Stdio::inherit());
        // The script's own default is a broker that starts quickly and runs slowly.
        if std::env::var_os("KAFKA_JVM_OPTS").is_none() {
            command.env("KAFKA_JVM_OPTS", "-Xms1g -Xmx1g");
        }
        let script = self.script.display();
        let output = command.output().map_err(|error| format!("{script}: {error}"))?;
        if !output.status.success() {
            return Err(format!(
                "{script} {} failed; name a Kafka and a PostgreSQL with --kafka-brokers and --database-url, or \
                 install them with: scripts/real install",
                arguments.join(" "),
            )
            .into());
        }
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }
}

impl Drop for StartedServer {
    fn drop(&mut self) {
        if let Err(error) = self.run_script(&["destroy"]) {
            print_status(error);
        }
    }
}
