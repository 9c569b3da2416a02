//! A service's process that keeps its address over restarts.

use std::{
    fs::OpenOptions,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use parking_lot::Mutex;
use tokio::process::{Child, Command as AsyncCommand};

/// How long a process may take to end after SIGTERM: its own drain takes up to ten seconds.
const EXIT_TIMEOUT: Duration = Duration::from_secs(20);

/// State of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProcessState {
    /// Running, whether ready or not.
    Up,
    /// Frozen by SIGSTOP.
    Paused,
    /// Not running.
    Down,
}

/// A service's process. Dropping it kills the process.
pub struct ServiceProcess {
    /// Such as `consumer 1`.
    pub name: String,
    /// Its base URL, the same after each restart.
    pub url: String,
    program: PathBuf,
    arguments: Vec<String>,
    log: PathBuf,
    life: Mutex<CurrentRun>,
}

struct CurrentRun {
    state: ProcessState,
    child: Option<Child>,
}

impl ServiceProcess {
    /// A process that is not started yet. `flag`, such as `--listen`, passes its address; its log
    /// goes to a file in `folder`.
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
            life: Mutex::new(CurrentRun { state: ProcessState::Down, child: None }),
        }
    }

    /// The state that the last action left; an exit is noticed by
    /// [`take_exit_report`](Self::take_exit_report) only.
    pub fn state(&self) -> ProcessState {
        self.life.lock().state
    }

    /// Its process id, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.life.lock().child.as_ref()?.id()
    }

    /// Starts it. Does not wait until it is ready.
    ///
    /// # Errors
    /// If the program cannot be started.
    pub fn start(&self) -> Result<(), String> {
        let log = OpenOptions::new().create(true).append(true).open(&self.log);
        let log = log.map_err(|error| format!("{}: {error}", self.log.display()))?;
        let child = AsyncCommand::new(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            // In a group of its own, so that Ctrl-C reaches this program only, which then ends it.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| format!("{}: {error}", self.program.display()))?;
        *self.life.lock() = CurrentRun { state: ProcessState::Up, child: Some(child) };
        Ok(())
    }

    /// kill -9, and waits until it is gone.
    ///
    /// # Errors
    /// If it had ended before.
    pub async fn kill(&self) -> Result<(), String> {
        let mut child = self.take_child()?;
        child.kill().await.map_err(|error| format!("{}: {error}", self.name))
    }

    /// SIGTERM, and waits until it has ended.
    ///
    /// # Errors
    /// If it does not end in time, or with an exit code other than 0.
    pub async fn terminate(&self) -> Result<(), String> {
        let mut child = self.take_child()?;
        signal_child("-TERM", &child)?;
        match tokio::time::timeout(EXIT_TIMEOUT, child.wait()).await {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err(format!("the {} ended with {status} after SIGTERM", self.name)),
            Ok(Err(error)) => Err(format!("{}: {error}", self.name)),
            Err(_) => {
                Err(format!("the {} did not end within {EXIT_TIMEOUT:?} of SIGTERM", self.name))
            }
        }
    }

    /// SIGSTOP.
    ///
    /// # Errors
    /// If it does not run.
    pub fn pause(&self) -> Result<(), String> {
        self.send_signal("-STOP", ProcessState::Paused)
    }

    /// SIGCONT.
    ///
    /// # Errors
    /// If it does not run.
    pub fn resume(&self) -> Result<(), String> {
        self.send_signal("-CONT", ProcessState::Up)
    }

    /// A text about its exit, once, if it ended by itself; its state is then
    /// [`Down`](ProcessState::Down).
    pub fn take_exit_report(&self) -> Option<String> {
        let mut life = self.life.lock();
        let status = life.child.as_mut()?.try_wait().ok()??;
        *life = CurrentRun { state: ProcessState::Down, child: None };
        Some(format!("the {} ended by itself with {status}; see {}", self.name, self.log.display()))
    }

    fn take_child(&self) -> Result<Child, String> {
        let mut life = self.life.lock();
        life.state = ProcessState::Down;
        life.child.take().ok_or_else(|| format!("the {} does not run", self.name))
    }

    fn send_signal(&self, name: &str, state: ProcessState) -> Result<(), String> {
        let mut life = self.life.lock();
        let child = life.child.as_ref().ok_or_else(|| format!("the {} does not run", self.name))?;
        signal_child(name, child)?;
        life.state = state;
        Ok(())
    }
}

fn signal_child(name: &str, child: &Child) -> Result<(), String> {
    let pid = child.id().ok_or("a process ended by itself")?.to_string();
    let status =
        Command::new("kill").args([name, &pid]).status().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(format!("kill {name} {pid}: {status}")) }
}

/// Free ports below the kernel's range for outgoing connections, so that they are still free when a
/// killed process starts again.
pub fn free_ports(count: usize) -> Vec<u16> {
    let start = u16::try_from(uuid::Uuid::now_v7().as_u128() % 12_000).unwrap_or(0);
    let ports = (0..12_000).map(|n| 20_000 + (start + n) % 12_000);
    ports.filter(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).take(count).collect()
}
