//! A Kafka broker or a PostgreSQL server of one test, which may stop it. `scripts/real` runs it.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::world::unique_name;

/// A Kafka broker or a PostgreSQL server of one test. Dropping it removes the server.
pub struct RealServer {
    name: String,
    /// `host:port` of Kafka, or the URL of PostgreSQL.
    pub address: String,
}

impl RealServer {
    /// Starts a `kafka` or a `postgres`.
    pub fn start(kind: &str) -> Self {
        Self::start_with(kind, &[])
    }

    /// Starts one that requires TLS.
    pub fn start_secure(kind: &str) -> Self {
        Self::start_with(kind, &["--secure"])
    }

    /// Starts a Kafka broker that tells its clients to connect to this port.
    pub fn start_advertised(port: u16) -> Self {
        Self::start_with("kafka", &["--advertise", &port.to_string()])
    }

    /// Starts a Kafka cluster of this many brokers.
    ///
    /// # Panics
    /// If one of them does not start.
    pub fn start_cluster(brokers: usize) -> Vec<Self> {
        let names: Vec<_> = (0..brokers).map(|_| unique_name("kafka")).collect();
        let list = names.join(",");
        std::thread::scope(|scope| {
            let starts = names.into_iter().map(|name| {
                let flags = ["--cluster", &list];
                scope.spawn(move || Self::start_named("kafka", name, &flags))
            });
            let starts: Vec<_> = starts.collect();
            starts.into_iter().map(|start| start.join().expect("the broker starts")).collect()
        })
    }

    fn start_with(kind: &str, flags: &[&str]) -> Self {
        Self::start_named(kind, unique_name(kind), flags)
    }

    fn start_named(kind: &str, name: String, flags: &[&str]) -> Self {
        // Constructed before the start, so that its drop also removes a server whose start failed.
        let mut instance = Self { name, address: String::new() };
        instance.address = run_script(&[&["start", kind, &instance.name], flags].concat());
        instance
    }

    /// Restarts it with the same data at the same address.
    pub fn start_again(&self, kind: &str) {
        assert_eq!(run_script(&["start", kind, &self.name]), self.address);
    }

    /// The path of its log.
    pub fn log_file(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// The path of the file with the first records of a partition of Kafka.
    pub fn segment_file(&self, topic: &str, partition: i32) -> PathBuf {
        let folder = self.folder().join("data/topics").join(format!("{topic}-{partition}"));
        folder.join("00000000000000000000.log")
    }

    /// The path of a key or certificate of a server that requires TLS, such as `ca.pem`.
    pub fn secret_file(&self, file: &str) -> String {
        self.folder().join("secure").join(file).display().to_string()
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/real").join(&self.name)
    }

    /// Runs `scripts/real` with `stop`, `kill`, `pause` or `resume`.
    pub fn run_action(&self, what: &str) {
        run_script(&[what, &self.name]);
    }
}

impl Drop for RealServer {
    fn drop(&mut self) {
        // No panic here: the drop may run during one.
        if let Err(error) = try_script(&["destroy", &self.name]) {
            eprintln!("{error}");
        }
    }
}

fn run_script(arguments: &[&str]) -> String {
    try_script(arguments).expect("scripts/real")
}

fn try_script(arguments: &[&str]) -> Result<String, String> {
    let own = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/real");
    let path = std::env::var("TEST_REAL_SCRIPT").unwrap_or_else(|_| own.to_owned());
    let output =
        Command::new(&path).args(arguments).output().map_err(|error| format!("{path}: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("scripts/real {arguments:?}: {errors}"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}
