//! Programs of the workspace as processes, for tests that kill them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command as AsyncCommand},
};

/// Builds the workspace's programs once, and returns the path of this one. Cargo builds the
/// programs of other packages only on request.
pub fn build_program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let own = std::env::current_exe().expect("a test binary, or a program beside the others");
    let folder = own.parent().expect("target/<profile>, or its folder deps");
    let target =
        if folder.ends_with("deps") { folder.parent().expect("target/<profile>") } else { folder };
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--workspace", "--quiet"]);
        build.args(["--bin", "standalone", "--bin", "producer", "--bin", "consumer"]);
        // The same features and profile as this build, or cargo would build everything again.
        if cfg!(feature = "full") {
            build.args(["--features", "full"]);
        } else if cfg!(feature = "tls") {
            build.args(["--features", "tls"]);
        }
        if target.ends_with("release") {
            build.arg("--release");
        }
        assert!(build.status().expect("cargo").success(), "the programs do not build");
    });
    target.join(name)
}

/// Resident memory of a process (`VmRSS`).
pub fn resident_bytes(pid: u32) -> u64 {
    read_status(pid, "VmRSS:")
}

/// The greatest resident memory that a process has had (`VmHWM`).
pub fn peak_bytes(pid: u32) -> u64 {
    read_status(pid, "VmHWM:")
}

fn read_status(pid: u32, name: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
    let line = status.lines().find_map(|line| line.strip_prefix(name)).expect("a line");
    let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
    kilobytes << 10
}

/// A `standalone` on free ports.
pub struct Standalone {
    child: Child,
    /// Base URL of `/send`.
    pub producer: String,
    /// Base URL of `/notifications/{id}`.
    pub consumer: String,
}

impl Standalone {
    /// Starts it on this folder, and reads its URLs from its welcome text.
    pub async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// Like [`start`](Self::start), with additional flags.
    pub async fn start_with(folder: &Path, flags: &[&str]) -> Self {
        Self::start_with_logs(folder, flags, Stdio::inherit()).await
    }

    /// Like [`start_with`](Self::start_with), with its logs written to `logs`.
    pub async fn start_with_logs(folder: &Path, flags: &[&str], logs: Stdio) -> Self {
        let mut child = AsyncCommand::new(build_program("standalone"))
            .arg("--data-dir")
            .arg(folder)
            .args(["--producer-listen", "127.0.0.1:0", "--consumer-listen", "127.0.0.1:0"])
            .args(flags)
            .stdout(Stdio::piped())
            .stderr(logs)
            .kill_on_drop(true)
            .spawn()
            .expect("a process");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let mut url = async |word: &str, path: &str| loop {
            let line = lines.next_line().await.expect("text").expect("a welcome");
            if let Some(url) = line.trim().strip_prefix(word) {
                return url.trim().trim_end_matches(path).to_owned();
            }
        };
        let producer = url("send ", "/send").await;
        let consumer = url("read ", "/notifications/1").await;
        Self { child, producer, consumer }
    }

    /// Its resident memory (`VmRSS`).
    pub fn resident_bytes(&self) -> u64 {
        resident_bytes(self.pid())
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id().expect("a running process")
    }

    /// `kill -9`. Does not wait for the exit.
    pub fn kill(&self) {
        self.send_signal("-KILL");
    }

    /// Sends SIGINT and waits. Returns true if the exit code is 0.
    pub async fn interrupt(mut self) -> bool {
        self.send_signal("-INT");
        self.child.wait().await.expect("an exit").success()
    }

    fn send_signal(&self, signal: &str) {
        let pid = self.child.id().expect("a running process").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }
}
