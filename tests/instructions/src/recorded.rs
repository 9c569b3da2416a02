//! The recorded figures: a checked-in file with a line for each path.

use std::{collections::HashMap, fs, process::ExitCode};

use crate::{Failure, callgrind::count, paths::HotPath};

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/recorded.txt");
const HEAD: &str = "# Instructions of one operation. Written by `task instructions:record`.\n";
const RECORD: &str =
    "If that is the price of something worth it, record the new figures: task instructions:record";
/// How far above the recorded figure a count may be, in per cent.
const MAX_GROWTH_PERCENT: f64 = 3.0;

/// Replaces the recorded figures.
pub(crate) fn write() -> Result<(), Failure> {
    let mut text = format!("{HEAD}{COMPILER}{}\n", compiler());
    for path in &HotPath::ALL {
        text.push_str(&format!("{} {}\n", path.name, count(path)?));
    }
    eprint!("{text}");
    Ok(fs::write(FILE, text)?)
}

/// Begins the line of the compiler.
const COMPILER: &str = "compiler ";

/// Prints each count beside the recorded one. Fails if one is above the bound, or has no figure.
pub(crate) fn check() -> Result<ExitCode, Failure> {
    let text = fs::read_to_string(FILE)?;
    let recorded: HashMap<_, _> = text.lines().filter_map(|line| line.split_once(' ')).collect();
    let mut grown = false;
    for path in &HotPath::ALL {
        let before = recorded.get(path.name).ok_or("a path has no recorded figure")?;
        let before: u64 = before.parse()?;
        let growth = |count: u64| (count as f64 / before as f64 - 1.0) * 100.0;
        let mut instructions = count(path)?;
        if growth(instructions) > MAX_GROWTH_PERCENT {
            // Timers and wake-ups of a busy machine add a per cent or two: the lesser counts.
            instructions = instructions.min(count(path)?);
        }
        let (path, percent) = (path.name, growth(instructions));
        let is_above = percent > MAX_GROWTH_PERCENT;
        let verdict = if is_above { "  MORE THAN ALLOWED" } else { "" };
        eprintln!("{path:<24} {instructions:>8}  recorded {before:>8}  {percent:>+6.1} %{verdict}");
        grown |= is_above;
    }
    let compiler = compiler();
    if recorded.get(COMPILER.trim()).is_none_or(|recorded| **recorded != compiler) {
        eprintln!("NOT CHECKED: the figures were recorded with another compiler than {compiler}.");
        return Ok(ExitCode::SUCCESS);
    }
    if grown {
        eprintln!("The bound is {MAX_GROWTH_PERCENT} % above the recorded figure. {RECORD}");
    }
    Ok(if grown { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The compiler's version, on which the counts depend as well.
fn compiler() -> String {
    let rustc = std::process::Command::new("rustc").arg("--version").output();
    let version = rustc.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    version.unwrap_or_else(|_| "unknown".into())
}
