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
        build.args(["build", "--workspace", "--bins", "--quiet"]);
        // As this was built, or everything would be built again.
        if cfg!(feature = "tls") {
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
        let mut child = AsyncCommand::new(program("standalone"))
            .arg("--data-dir")
            .arg(folder)
            .args(["--producer-listen", "127.0.0.1:0", "--consumer-listen", "127.0.0.1:0"])
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
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
