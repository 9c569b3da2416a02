//! The history as a file, a JSON object a line, for whoever looks for the cause of a finding.

use std::{
    fs::File,
    io::{BufWriter, Write},
    path::Path,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// The file, and the clock that everything in it is told by.
#[derive(Debug)]
pub struct Journal {
    file: Mutex<BufWriter<File>>,
    start: Instant,
}

impl Journal {
    /// A new file at this path; time begins now.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn create(path: &Path) -> std::io::Result<Self> {
        let file = Mutex::new(BufWriter::new(File::create(path)?));
        Ok(Self { file, start: Instant::now() })
    }

    /// Since the start of the run.
    #[must_use]
    pub fn now(&self) -> Duration {
        self.start.elapsed()
    }

    /// Adds an object, with the time as `t` in milliseconds and this as `event`.
    pub fn note(&self, event: &str, mut object: Value) {
        object["t"] = json!(milliseconds(self.now()));
        object["event"] = json!(event);
        let mut file = self.file.lock();
        // A full disk must not end the run: the findings are counted elsewhere.
        let _ = writeln!(file, "{object}");
    }

    /// Adds a line, and says it to whoever watches the run.
    pub fn say(&self, what: &str) {
        eprintln!("{:8.1} s  {what}", self.now().as_secs_f64());
        self.note("say", json!({ "what": what }));
        let _ = self.file.lock().flush();
    }
}

/// With microseconds as decimals, which JSON keeps exactly enough.
#[must_use]
pub fn milliseconds(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
