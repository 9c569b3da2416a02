//! Counts the instructions of the hot paths under valgrind, and compares them with recorded figures.
//!
//! A time cannot show a change of a few per cent on a shared machine; a count of instructions can.
//! The program runs itself under callgrind. There both services run on one thread, their clients
//! on others, and only the services' own thread is counted: no kernel, no librdkafka, no client.

mod callgrind;
mod client;
mod paths;
mod recorded;
mod services;

use std::process::ExitCode;

use clap::Parser;

/// Counts the instructions of the hot paths, and compares them with recorded figures.
#[derive(Parser)]
#[command(name = "instructions")]
enum Command {
    /// Fail if a path takes more instructions than recorded
    Check,
    /// Count, and replace the recorded figures
    Record,
    /// Walk a path, without counting; callgrind runs this
    Walk {
        /// Its name
        path: String,
    },
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<ExitCode, Failure> {
    match Command::parse() {
        Command::Walk { path } => paths::walk(&path).map(|()| ExitCode::SUCCESS),
        Command::Record => recorded::write().map(|()| ExitCode::SUCCESS),
        Command::Check if !callgrind::is_installed() => {
            eprintln!("NOT RUN: the counts of instructions, because valgrind is not installed.");
            Ok(ExitCode::SUCCESS)
        }
        Command::Check => recorded::check(),
    }
}
