//! Kafka and PostgreSQL of a run's own, by `scripts/real`. They end when their handle is dropped,
//! whatever happens.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{Result, say};

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
