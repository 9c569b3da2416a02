//! The services, and the limits that are servers, as processes of a run: how they start, when they
//! are ready, and what they cost. They end when their handle is dropped, whatever happens.

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
    connection::{self, Connection},
    progress::{Progress, patience},
};

/// How long a process may take until it does its job.
const READY_WITHIN: Duration = Duration::from_secs(120);
/// How long one probe may take.
const PROBE: Duration = Duration::from_secs(3);
/// Between probes: fine enough to time a start, and nothing beside what a start costs.
const ASK_EVERY: Duration = Duration::from_millis(5);
/// The unit of the processor times in `/proc`: `USER_HZ`, which Linux has fixed at 100 a second.
const TICK: Duration = Duration::from_millis(10);

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
        let within = self.started.elapsed() + READY_WITHIN;
        self.until("/readyz", within, |status, _| status == 200).await
    }

    /// Waits until every partition is live and they hold these records together; returns how far it
    /// was when, from when the process was started. `/partitions` is asked because `/readyz` shares
    /// an answer for half a second, which is longer than what is to be told apart; it must agree
    /// afterwards.
    pub(crate) async fn live(&mut self, records: u64) -> Result<Progress> {
        let mut progress = Progress::since(self.started);
        let all = |status: u16, body: &[u8]| {
            let Ok(Partitions { partitions }) = serde_json::from_slice(body) else { return false };
            let folded = partitions.iter().map(Partition::folded).sum();
            progress.note(folded);
            status == 200
                && partitions.iter().all(|partition| partition.state == "live")
                && folded >= records
        };
        self.until("/partitions", READY_WITHIN + patience(records), all).await?;
        progress.end(records);
        self.ready().await?;
        Ok(progress)
    }

    async fn until(
        &mut self,
        path: &str,
        within: Duration,
        mut is_so: impl FnMut(u16, &[u8]) -> bool,
    ) -> Result<()> {
        let request = connection::get(path);
        let mut connection = None;
        while self.started.elapsed() < within {
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
                return Ok(());
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
    /// Of one that is live: the last offset that was folded; −1 before any.
    position: Option<i64>,
    /// Of one that is rebuilt: how many were folded so far.
    records: Option<u64>,
}

impl Partition {
    fn folded(&self) -> u64 {
        let live = self.position.and_then(|position| u64::try_from(position + 1).ok());
        live.or(self.records).unwrap_or(0)
    }
}
