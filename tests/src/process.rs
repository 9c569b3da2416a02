//! Services as processes of their own, for tests that kill them.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::OnceLock,
};

use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command as AsyncCommand},
};

/// The program of this name, built now if it is not up to date. Cargo builds the programs of other
/// packages only on request, so a test cannot simply name them.
pub fn program(name: &str) -> PathBuf {
    static BUILT: OnceLock<()> = OnceLock::new();
    let own = std::env::current_exe().expect("a test binary, or a program beside the others");
    let folder = own.parent().expect("target/<profile>, or its folder deps");
    let target =
        if folder.ends_with("deps") { folder.parent().expect("target/<profile>") } else { folder };
    BUILT.get_or_init(|| {
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--workspace", "--quiet"]);
        build.args(["--bin", "standalone", "--bin", "producer", "--bin", "consumer"]);
        // As this was built, or everything would be built again.
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

/// A `standalone` on free ports.
pub struct Standalone {
    child: Child,
    /// Of `/send`.
    pub producer: String,
    /// Of `/notifications/{id}`.
    pub consumer: String,
}

impl Standalone {
    /// Starts it on this folder and waits for its welcome, which says where it is.
    pub async fn start(folder: &Path) -> Self {
        Self::start_with(folder, &[]).await
    }

    /// The same with these flags besides.
    pub async fn start_with(folder: &Path, flags: &[&str]) -> Self {
        Self::start_logging(folder, flags, Stdio::inherit()).await
    }

    /// The same with its logs sent elsewhere.
    pub async fn start_logging(folder: &Path, flags: &[&str], logs: Stdio) -> Self {
        let mut child = AsyncCommand::new(program("standalone"))
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

    /// How much memory it has, as the system counts it.
    pub fn resident_bytes(&self) -> u64 {
        let pid = self.child.id().expect("a running process");
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("Linux");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
        let kilobytes: u64 = line.trim().trim_end_matches("kB").trim().parse().expect("a number");
        kilobytes << 10
    }

    /// `kill -9`, while others may be speaking with it.
    pub fn kill(&self) {
        self.signal("-KILL");
    }

    /// Ctrl-C; returns whether it ended well.
    pub async fn interrupt(mut self) -> bool {
        self.signal("-INT");
        self.child.wait().await.expect("an exit").success()
    }

    fn signal(&self, signal: &str) {
        let pid = self.child.id().expect("a running process").to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().expect("kill").success());
    }
}
