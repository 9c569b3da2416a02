//! A Kafka broker and a PostgreSQL server of a test's own, for those that stop them. Started and
//! stopped by `scripts/real`.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use crate::world::unique;

/// A Kafka broker or a PostgreSQL server that only this test uses. It goes with this.
pub struct Instance {
    name: String,
    /// `host:port` of a broker, the URL of a server.
    pub address: String,
}

impl Instance {
    /// Starts a `kafka` or a `postgres`.
    pub fn start(kind: &str) -> Self {
        Self::start_with(kind, &[])
    }

    /// Starts one to which nobody speaks without TLS.
    pub fn start_secure(kind: &str) -> Self {
        Self::start_with(kind, &["--secure"])
    }

    fn start_with(kind: &str, flags: &[&str]) -> Self {
        // Made first, so that what does not start is removed too.
        let mut instance = Self { name: unique(kind), address: String::new() };
        instance.address = script(&[&["start", kind, &instance.name], flags].concat());
        instance
    }

    /// Starts it again, with the same data at the same address.
    pub fn start_again(&self, kind: &str) {
        assert_eq!(script(&["start", kind, &self.name]), self.address);
    }

    /// What it says, for whoever wonders why it ended.
    pub fn log(&self) -> PathBuf {
        self.folder().join("log")
    }

    /// A file of one that was started secure, such as `ca.pem`.
    pub fn secret(&self, file: &str) -> String {
        self.folder().join("secure").join(file).display().to_string()
    }

    fn folder(&self) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/real").join(&self.name)
    }

    /// Does `stop`, `kill`, `pause` or `resume` with it.
    pub fn does(&self, what: &str) {
        script(&[what, &self.name]);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        // Perhaps in the middle of a panic, so without another.
        if let Err(error) = run(&["destroy", &self.name]) {
            eprintln!("{error}");
        }
    }
}

fn script(arguments: &[&str]) -> String {
    run(arguments).expect("scripts/real")
}

fn run(arguments: &[&str]) -> Result<String, String> {
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
