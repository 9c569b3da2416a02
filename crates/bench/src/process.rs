//! Services and limits as processes of a run: start, readiness, memory, system calls. Dropping a
//! handle kills its process.

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
    cpu::{CpuReading, status_bytes},
    http::{HttpConnection, get_request},
    kafka::{ReadCurve, transfer_timeout},
};

/// How long a process may take until `/readyz` answers 200.
const READY_TIMEOUT: Duration = Duration::from_secs(120);
const PROBE_TIMEOUT: Duration = Duration::from_secs(3);
/// Short enough to time a start; the probes cost little beside a start.
const PROBE_INTERVAL: Duration = Duration::from_millis(5);
/// How long a process may take to return freed memory before its memory is read.
const SETTLE_DELAY: Duration = Duration::from_secs(3);

/// A service or a limit as a process on a port of its own.
#[derive(Debug)]
pub(crate) struct ServerProcess {
    name: String,
    child: Child,
    log: PathBuf,
    started: Instant,
    /// The address it listens on.
    pub(crate) address: SocketAddr,
}

impl ServerProcess {
    /// Starts a program with `--listen` and these arguments; its log goes to a file in `folder`.
    /// The caller's environment and `.env` are kept from it, so that arguments and `env` say
    /// everything.
    pub(crate) fn spawn(
        folder: &Path,
        program: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
        Self::spawn_at(free_address()?, folder, program, arguments, env)
    }

    /// The same, on this address.
    pub(crate) fn spawn_at(
        address: SocketAddr,
        folder: &Path,
        program: &Path,
        arguments: &[&str],
        env: &[(&str, &str)],
    ) -> Result<Self> {
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
            .stderr(File::options().create(true).append(true).open(&log)?)
            .spawn()
            .map_err(|error| {
                let program = program.display();
                format!("{program}: {error}; build it: cargo build --release --workspace --bins")
            })?;
        Ok(Self { name, child, log, started: Instant::now(), address })
    }

    /// Waits until `/readyz` answers 200.
    pub(crate) async fn await_ready(&mut self) -> Result<()> {
        let deadline = self.started.elapsed() + READY_TIMEOUT;
        self.poll_until("/readyz", deadline, |status, _| status == 200).await
    }

    /// Waits until every partition is live and the partitions hold these records together. Returns
    /// the records over time since the process started. Polls `/partitions`, because `/readyz`
    /// caches its answer for half a second, which is too coarse here; `/readyz` must agree
    /// afterwards.
    pub(crate) async fn await_live(&mut self, records: u64) -> Result<ReadCurve> {
        let (mut curve, pid) = (ReadCurve::start(), self.pid());
        let is_live = |status: u16, body: &[u8]| {
            let Ok(PartitionsBody { partitions }) = serde_json::from_slice(body) else {
                return false;
            };
            let applied = partitions.iter().map(PartitionRow::records_applied).sum();
            curve.add_point(applied);
            status == 200
                && partitions.iter().all(|partition| partition.state == "live")
                && applied >= records
        };
        self.poll_until("/partitions", READY_TIMEOUT + transfer_timeout(records), is_live).await?;
        curve.add_last_point(records);
        curve.cpu_ns = CpuReading::total_ns(pid)?;
        self.await_ready().await?;
        Ok(curve)
    }

    /// Requests `path` until `is_done` accepts an answer. `deadline` counts from the process's
    /// start.
    async fn poll_until(
        &mut self,
        path: &str,
        deadline: Duration,
        mut is_done: impl FnMut(u16, &[u8]) -> bool,
    ) -> Result<()> {
        let request = get_request(path);
        let mut connection = None;
        while self.started.elapsed() < deadline {
            if let Some(status) = self.child.try_wait()? {
                return Err(format!("{} ended ({status}): {}", self.name, self.log_tail()).into());
            }
            let probe = async {
                let mut open = match connection.take() {
                    Some(open) => open,
                    None => HttpConnection::connect(self.address).await?,
                };
                let (status, body) = open.send_request(&request).await?;
                let done = is_done(status, body);
                connection = Some(open);
                Ok::<_, std::io::Error>(done)
            };
            if matches!(timeout(PROBE_TIMEOUT, probe).await, Ok(Ok(true))) {
                return Ok(());
            }
            sleep(PROBE_INTERVAL).await;
        }
        Err(format!("{} was not ready in time: {}", self.name, self.log_tail()).into())
    }

    /// Runs a limit that measures itself, and returns the JSON that it prints.
    pub(crate) async fn output_of(program: &Path, arguments: &[String]) -> Result<Vec<u8>> {
        let mut command = tokio::process::Command::new(program);
        command.args(arguments).env_clear().stdin(Stdio::null()).stderr(Stdio::inherit());
        let output = command.kill_on_drop(true).output().await?;
        match output.status.success() {
            true => Ok(output.stdout),
            false => Err(format!("{} failed: {}", arguments.join(" "), output.status).into()),
        }
    }

    /// Ends the process as a deployment does, with SIGTERM, and waits for it.
    pub(crate) async fn stop(mut self) -> Result<()> {
        Command::new("kill").args(["-TERM", &self.pid().to_string()]).status()?;
        let deadline = Instant::now() + READY_TIMEOUT;
        while self.child.try_wait()?.is_none() {
            if Instant::now() > deadline {
                return Err(format!("{} did not end", self.name).into());
            }
            sleep(PROBE_INTERVAL).await;
        }
        Ok(())
    }

    /// The id of the process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    fn log_tail(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines[lines.len().saturating_sub(5)..].join("\n")
    }
}

impl Drop for ServerProcess {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A free port of the loopback interface.
pub(crate) fn free_address() -> Result<SocketAddr> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Waits [`SETTLE_DELAY`], and reads the anonymous resident memory of a process (`RssAnon`).
pub(crate) async fn settled_memory_bytes(pid: u32) -> Result<f64> {
    sleep(SETTLE_DELAY).await;
    status_bytes(pid, "RssAnon")
}

#[derive(Deserialize)]
struct PartitionsBody {
    partitions: Vec<PartitionRow>,
}

#[derive(Deserialize)]
struct PartitionRow {
    state: String,
    /// Live partitions: the last applied offset; −1 before any.
    position: Option<i64>,
    /// Rebuilding partitions: records applied so far.
    records: Option<u64>,
}

impl PartitionRow {
    fn records_applied(&self) -> u64 {
        let live = self.position.and_then(|position| u64::try_from(position + 1).ok());
        live.or(self.records).unwrap_or(0)
    }
}
