//! One process, which keeps its address over all its lives.

use std::{
    fs::OpenOptions,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::process::{Child, Command as AsyncCommand};

/// How long a process may take to end after SIGTERM: its own drain may take ten seconds.
const END: Duration = Duration::from_secs(20);

/// What a process is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Running, whether ready or not.
    Up,
    /// Frozen by SIGSTOP.
    Paused,
    /// Not there.
    Down,
}

/// A service's process. Dead as soon as this is dropped.
pub struct Member {
    /// Such as `consumer 1`.
    pub name: String,
    /// Where it listens, in each life.
    pub url: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    life: Mutex<Life>,
}

struct Life {
    state: State,
    child: Option<Child>,
}

impl Member {
    /// A process that does not run yet, of this program with these arguments, listening on this
    /// port: `flag`, such as `--listen`, says so to it. What it says goes to a file in `folder`.
    pub fn new(
        name: &str,
        program: PathBuf,
        arguments: &[&str],
        flag: &str,
        port: u16,
        folder: &Path,
    ) -> Self {
        let address = format!("127.0.0.1:{port}");
        let mut arguments: Vec<_> = arguments.iter().map(|&argument| argument.to_owned()).collect();
        arguments.extend([flag.to_owned(), address.clone()]);
        Self {
            name: name.to_owned(),
            url: format!("http://{address}"),
            program,
            arguments,
            log: folder.join(format!("{}.log", name.replace(' ', "-"))),
            life: Mutex::new(Life { state: State::Down, child: None }),
        }
    }

    /// What it is doing, as far as was done to it.
    pub fn state(&self) -> State {
        self.life.lock().state
    }

    /// Starts it. It is not ready when this returns.
    ///
    /// # Errors
    /// When there is no such program.
    pub fn start(&self) -> Result<(), String> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let child = AsyncCommand::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // Out of reach of Ctrl-C: it is we who end it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        *self.life.lock() = Life { state: State::Up, child: Some(child) };
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// When it had ended before, by itself.
    pub async fn kill(&self) -> Result<(), String> {
        let mut child = self.take()?;
        child.kill().await.map_err(|error| format!("{}: {error}", self.name))
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// When it does not end in time, or not well.
    pub async fn terminate(&self) -> Result<(), String> {
        let mut child = self.take()?;
        signal("-TERM", &child)?;
        match tokio::time::timeout(END, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("the {} ended with {status} after SIGTERM", self.name)),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name)),
            Err(_) => Err(format!("the {} did not end within {END:?} of SIGTERM", self.name)),
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// When it does not run.
    pub fn pause(&self) -> Result<(), String> {
        self.signal("-STOP", State::Paused)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// When it does not run.
    pub fn resume(&self) -> Result<(), String> {
        self.signal("-CONT", State::Up)
    }

    /// How it ended by itself, if it did; it counts as down then.
    pub fn died(&self) -> Option<String> {
        let mut life = self.life.lock();
        let status = life.child.as_mut()?.try_wait().ok()??;
        *life = Life { state: State::Down, child: None };
        Some(format!("the {} ended by itself with {status}; see {}", self.name, self.log.display()))
    }

    fn take(&self) -> Result<Child, String> {
        let mut life = self.life.lock();
        life.state = State::Down;
        life.child.take().ok_or_else(|| format!("the {} does not run", self.name))
    }

    fn signal(&self, name: &str, state: State) -> Result<(), String> {
        let mut life = self.life.lock();
        let child = life.child.as_ref().ok_or_else(|| format!("the {} does not run", self.name))?;
        signal(name, child)?;
        life.state = state;
        Ok(())
    }
}

fn signal(name: &str, child: &Child) -> Result<(), String> {
    let pid = child.id().ok_or("a process ended by itself")?.to_string();
    let status =
        Command::new("kill").args([name, &pid]).status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("kill {name} {pid}: {status}")) }
}

/// Ports that nobody listens on now, below those that the kernel lends to outgoing connections: they
/// must still be free when a killed process starts again.
pub fn free_ports(count: usize) -> Vec<u16> {
    let start = u16::try_from(uuid::Uuid::now_v7().as_u128() % 12_000).unwrap_or(0);
    let ports = (0..12_000).map(|n| 20_000 + (start + n) % 12_000);
    ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect()
}
