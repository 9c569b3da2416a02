//! The history as a file with one JSON object a line, for the search for the cause of a violation.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// The file, and the clock of all its times.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<BufWriter<File>>,
    start: Instant,
}

impl Journal {
    /// Creates the file and starts the clock.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = Mutex::new(BufWriter::new(File::create(path)?));
        Ok(Self { file, start: Instant::now() })
    }

    /// Time since the start of the run.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Writes an object with `t`, the time in milliseconds, and `event`.
    pub fn write_event(&self, event: &str, mut object: Value) {
        object["t"] = json!(to_milliseconds(self.now()));
        object["event"] = json!(event);
        let mut file = self.file.lock();
        // A full disk must not end the run: the history counts the violations in memory.
        let _ = writeln!(file, "{object}");
    }

    /// Writes a line, and prints it to standard error.
    pub fn print_event(&self, what: &str) {
        eprintln!("{:8.1} s  {what}", self.now().as_secs_f64());
        self.write_event("say", json!({ "what": what }));
        let _ = self.file.lock().flush();
    }
}

/// Milliseconds with microseconds as decimals.
#[must_use]
pub fn to_milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
