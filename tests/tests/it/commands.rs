//! The commands of README.md and of the book, run as printed against a standalone, and their answers
//! compared with those printed.
//!
//! A fence `console` holds commands, each after `$ `, and the lines of its answer. A page has a
//! standalone of its own, in an empty folder. [`answer`] says how answers are compared.

mod answer;

use std::{
    collections::HashMap,
    env,
    path::{Path, PathBuf},
    process::Stdio,
    time::Duration,
};

use e2e::{
    process::{Standalone, build_program},
    until::{DEADLINE, until},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, BufReader},
    process::Command,
    time::{Instant, sleep, timeout_at},
};

use crate::documentation::markdown::{Document, Fence, pages_in};

/// How long a live stream may take until it has shown the printed events.
const STREAM_TIMEOUT: Duration = Duration::from_secs(5);

/// A printed command and its printed answer.
struct Printed {
    line: usize,
    command: String,
    answer: String,
}

/// A page's standalone, and what its commands so far left behind.
struct Session {
    server: Standalone,
    folder: TempDir,
    /// Variables that the page's commands set.
    variables: HashMap<String, String>,
    /// Ids and cursors that the page prints, and those that the standalone gave instead.
    actual: HashMap<String, String>,
}

/// The commands of a fence. One that ends with `\` goes on in the next line.
fn parse_fence(fence: &Fence) -> Vec<Printed> {
    let mut printed: Vec<Printed> = Vec::new();
    let mut continues = false;
    for (number, line) in fence.text.lines().enumerate() {
        if let Some(command) = line.strip_prefix("$ ") {
            let (line, command) = (fence.line + number + 1, command.to_owned());
            printed.push(Printed { line, command, answer: String::new() });
        } else if let Some(last) = printed.last_mut() {
            let text = if continues { &mut last.command } else { &mut last.answer };
            *text += &format!("\n{line}");
        }
        continues =
            printed.last().is_some_and(|last| last.answer.is_empty()) && line.ends_with('\\');
    }
    printed
}

impl Session {
    async fn start(page: &Path) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let mut flags = Vec::new();
        let secret = folder.path().join("secret");
        if page.ends_with("guide/authentication.md") {
            std::fs::write(&secret, "a secret of thirty-two bytes or more").expect("a file");
            flags.extend(["--auth-secret-file", secret.to_str().expect("UTF-8")]);
        }
        let data = folder.path().join("data");
        let server = Standalone::start_with_logs(&data, &flags, Stdio::null()).await;
        for service in [&server.producer, &server.consumer] {
            until(|| async {
                let response = reqwest::get(format!("{service}/readyz")).await.expect("an answer");
                if response.status() == 200 { Ok(()) } else { Err(response.status()) }
            })
            .await;
        }
        Self { server, folder, variables: HashMap::new(), actual: HashMap::new() }
    }

    /// Both services' ports as printed, and as they are.
    fn ports(&self) -> [(&'static str, String); 2] {
        let port = |url: &str| format!(":{}", url.rsplit(':').next().expect("a port"));
        [(":8080", port(&self.server.producer)), (":8081", port(&self.server.consumer))]
    }

    /// Runs a command until its answer is as printed. Returns what is wrong.
    async fn check(&mut self, printed: &Printed) -> Result<(), String> {
        let mut command = answer::replace_words(&printed.command, &self.actual);
        for (shown, actual) in self.ports() {
            command = command.replace(shown, &actual);
        }
        if let Some(name) = assigned_variable(&command) {
            let value = self.run(&format!("{command} && printf %s \"${name}\"")).await?;
            self.variables.insert(name.to_owned(), value);
            return Ok(());
        }
        // A read may be behind what was sent.
        let reads = !["-X ", "-d ", "--data", "-T "].iter().any(|flag| command.contains(flag));
        let deadline = Instant::now() + DEADLINE;
        loop {
            let mut actual = self.actual.clone();
            let got = if command.starts_with("curl -N ") {
                self.follow(&command, &printed.answer).await?
            } else {
                self.run(&command).await?
            };
            if answer::matches(&printed.answer, &got, &mut actual) {
                self.actual = actual;
                return Ok(());
            }
            if !reads || Instant::now() > deadline {
                return Err(format!("  printed: {}\n  got:     {got}", printed.answer.trim()));
            }
            sleep(Duration::from_millis(100)).await;
        }
    }

    fn bash(&self, script: &str) -> Command {
        let programs = build_program("standalone").parent().expect("a folder").to_path_buf();
        let path = env::var_os("PATH").unwrap_or_default();
        let path = std::iter::once(programs).chain(env::split_paths(&path));
        let mut bash = Command::new("bash");
        bash.args(["-c", script])
            .current_dir(self.folder.path())
            .env("PATH", env::join_paths(path).expect("a path"))
            .envs(&self.variables)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        bash
    }

    /// Runs a script to its end, and returns its output. Fails unless its exit code is 0.
    async fn run(&self, script: &str) -> Result<String, String> {
        let output = self.bash(script).output();
        let output = tokio::time::timeout(DEADLINE, output).await;
        let output = output.map_err(|_| "  does not end".to_owned())?.expect("bash");
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr);
            return Err(format!("  {}: {}", output.status, errors.trim()));
        }
        Ok(self.as_printed(String::from_utf8_lossy(&output.stdout).into_owned()))
    }

    /// Reads a live stream until it has shown this answer, or for [`STREAM_TIMEOUT`].
    async fn follow(&self, command: &str, expected: &str) -> Result<String, String> {
        // `exec`: dropping the child ends curl itself.
        let mut child = self.bash(&format!("exec {command}")).spawn().expect("bash");
        let mut lines = BufReader::new(child.stdout.take().expect("a pipe")).lines();
        let deadline = Instant::now() + STREAM_TIMEOUT;
        let mut got = String::new();
        while let Ok(line) = timeout_at(deadline, lines.next_line()).await {
            let Some(line) = line.expect("text") else {
                let mut errors = String::new();
                let mut stderr = child.stderr.take().expect("a pipe");
                stderr.read_to_string(&mut errors).await.expect("text");
                return if got.is_empty() { Err(format!("  {}", errors.trim())) } else { Ok(got) };
            };
            got += &self.as_printed(format!("{line}\n"));
            if answer::matches(expected, &got, &mut self.actual.clone()) {
                break;
            }
        }
        Ok(got)
    }

    /// An answer with the ports that the pages print.
    fn as_printed(&self, answer: String) -> String {
        self.ports().iter().fold(answer, |text, (shown, actual)| text.replace(actual, shown))
    }
}

/// The variable that a command such as `TOKEN=$(…)` sets, if it does only that.
fn assigned_variable(command: &str) -> Option<&str> {
    let (name, value) = command.split_once('=')?;
    let is_name = name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    (is_name && value.starts_with("$(") && value.ends_with(')')).then_some(name)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs curl"]
async fn every_printed_command_answers_as_printed() {
    let mut pages: Vec<PathBuf> = vec!["README.md".into(), "docs/start/standalone.md".into()];
    pages.extend(pages_in("docs/guide"));
    let (mut count, mut findings) = (0, Vec::new());
    for path in pages {
        let page = Document::read(&path);
        let fences = page.fences.iter().filter(|fence| fence.language == "console");
        let commands: Vec<_> = fences.flat_map(parse_fence).collect();
        if commands.is_empty() {
            continue;
        }
        let mut session = Session::start(&path).await;
        for printed in commands {
            count += 1;
            if let Err(wrong) = session.check(&printed).await {
                let Printed { line, command, .. } = printed;
                findings.push(format!("{}:{line}: {command}\n{wrong}", path.display()));
                // Later commands of the page depend on this one.
                break;
            }
        }
    }
    assert!(findings.is_empty(), "\n{}\n", findings.join("\n\n"));
    assert!(count > 20, "only {count} commands were found");
}
