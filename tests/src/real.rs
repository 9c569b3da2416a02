//! A Kafka broker and a PostgreSQL server of a test's own, for those that stop them. Started and
//! stopped by `scripts/real`.

use std::process::Command;

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
        let name = unique(kind);
        let address = script(&["start", kind, &name]);
        Self { name, address }
    }

    /// Starts it again, with the same data at the same address.
    pub fn start_again(&self, kind: &str) {
        assert_eq!(script(&["start", kind, &self.name]), self.address);
    }

    /// Does `stop`, `kill`, `pause` or `resume` with it.
    pub fn does(&self, what: &str) {
        script(&[what, &self.name]);
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        script(&["destroy", &self.name]);
    }
}

fn script(arguments: &[&str]) -> String {
    let path = std::env::var("TEST_REAL_SCRIPT").expect("TEST_REAL_SCRIPT: see `task test:real`");
    let output = Command::new(path).args(arguments).output().expect("scripts/real");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "scripts/real {arguments:?}: {errors}");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}
