//! The processes of a run: Kafka and PostgreSQL by `scripts/real`, unless they are elsewhere, and
//! the services themselves. All of them end when their handle is dropped, whatever happens.

use std::{
    fs::File,
    net::{Ipv4Addr, SocketAddr, TcpListener},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use serde::Deserialize;
use tokio::time::{sleep, timeout};

use crate::{
    Result,
    load::{self, Connection},
    say,
};

/// How long a process may take until it does its job.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(3);
/// Between probes: fine enough to time a start, and nothing beside what a start costs.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The unit of the processor times in `/proc`: `USER_HZ`, which Linux has fixed at 100 a second.
const TICK: Duration = Duration::from_millis(10);

/// A Kafka broker or a PostgreSQL server of this run's own.
#[derive(Debug)]
pub(crate) struct Instance {
    script: PathBuf,
    name: String,
    /// `host:port` of a broker, the URL of a server.
    pub(crate) address: String,
}

impl Instance {
    /// Starts a `kafka` or a `postgres` and waits until it answers. Blocks, so that nothing ends
    /// this program while it is half started.
    pub(crate) fn start(script: &Path, kind: &str) -> Result<Self> {
        say(format_args!("starting {kind}"));
        let name = format!("bench-{}-{kind}", std::process::id());
        // Made first, so that what does not start is removed too.
        let mut instance = Self { script: script.to_owned(), name, address: String::new() };
        instance.address = instance.run(&["start", kind])?;
        Ok(instance)
    }

    fn run(&self, arguments: &[&str]) -> Result<String> {
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

impl Drop for Instance {
    fn drop(&mut self) {
        if let Err(error) = self.run(&["destroy"]) {
            say(error);
        }
    }
}

/// A service, or a limit that is one, as a process on a port of its own.
#[derive(Debug)]
pub(crate) struct Service {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
    /// Where it listens.
    pub(crate) address: SocketAddr,
}

impl Service {
    /// Starts a program with `--listen` and these arguments; its log goes to a file in `folder`.
    /// Nothing that the caller's environment or `.env` says reaches it: what is measured is what
    /// the arguments and `env` say.
    pub(crate) fn spawn(
        folder: &Path,
        program: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        let log = folder.join(format!("{name}-{}.log", address.port()));
        let child = Command::new(program)
            .args(arguments)
            .args(["--listen", &address.to_string()])
            .env_clear()
            .envs(env.iter().copied())
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log)?)
            .spawn()
            .map_err(|error| {
                format!(
                    "{}: {error}; build it: cargo build --release --workspace --bins",
                    program.display()
                )
            })?;
        Ok(Self { name, child, log, started: Instant::now(), address })
    }

    /// Waits until `/readyz` says 200.
    pub(crate) async fn ready(&mut self) -> Result<()> {
        self.until("/readyz", |status, _| status == 200).await.map(|_| ())
    }

    /// Waits until every partition is live and they hold these records together; returns how long
    /// ago the process was started then. `/partitions` is asked because `/readyz` shares an answer
    /// for half a second, which is longer than what is to be told apart; it must agree afterwards.
    pub(crate) async fn live(&mut self, records: u64) -> Result<Duration> {
        let all = |status: u16, body: &[u8]| {
            let Ok(Partitions { partitions }) = serde_json::from_slice(body) else { return false };
            let folded: i64 = partitions.iter().map(|partition| partition.position + 1).sum();
            status == 200
                && partitions.iter().all(|partition| partition.state == "live")
                && u64::try_from(folded).is_ok_and(|folded| folded >= records)
        };
        let took = self.until("/partitions", all).await?;
        self.ready().await?;
        Ok(took)
    }

    async fn until(&mut self, path: &str, is_so: impl Fn(u16, &[u8]) -> bool) -> Result<Duration> {
        let request = load::get(path);
        let mut connection = None;
        while self.started.elapsed() < READY_WITHIN {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended ({status}): {}", self.name, self.last_words()).into());
            }
            let probe = async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => Connection::open(self.address).await?,
                };
                let (status, body) = open.exchange(&request).await?;
                let so = is_so(status, body);
                connection = Some(open);
                Ok::<_, std::io::Error>(so)
            };
            if matches!(timeout(PROBE, probe).await, Ok(Ok(true))) {
                return Ok(self.started.elapsed());
            }
            sleep(ASK_EVERY).await;
        }
        Err(format!("{} was not ready in time: {}", self.name, self.last_words()).into())
    }

    /// The processor time that it has taken so far; none where the system does not tell.
    pub(crate) fn cpu(&self) -> Option<Duration> {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).ok()?;
        // The name, in brackets, may hold spaces; utime and stime are the 14th and 15th field.
        let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
        let ticks: u32 =
            fields.next()?.parse::<u32>().ok()? + fields.next()?.parse::<u32>().ok()?;
        Some(TICK * ticks)
    }

    /// Its memory that is not a file's, in bytes.
    pub(crate) fn memory(&self) -> Result<u64> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))
            .map_err(|_| "memory is measured through /proc, which only Linux has")?;
        let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
        let kib =
            line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<u64>().ok());
        Ok(kib.ok_or("/proc says nothing of the memory")? * 1024)
    }

    fn last_words(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().rev().take(5).collect();
        lines.into_iter().rev().collect::<Vec<_>>().join("\n")
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[derive(Deserialize)]
struct Partitions {
    partitions: Vec<Partition>,
}

#[derive(Deserialize)]
struct Partition {
    state: String,
    /// The last offset that was folded; −1 before any.
    #[serde(default = "before_any")]
    position: i64,
}

fn before_any() -> i64 {
    -1
}
