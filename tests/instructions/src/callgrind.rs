//! Runs this program under callgrind, and reads the counts from its files.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
};

use crate::{Failure, paths::HotPath};

/// Counts are collected inside this function alone.
const COUNTED_FUNCTION: &str = "*run_counted_work*";

pub(crate) fn is_installed() -> bool {
    let valgrind = Command::new("valgrind").arg("--version").stdout(Stdio::null()).status();
    valgrind.is_ok_and(|status| status.success())
}

/// Walks a path under callgrind; returns the instructions of one operation.
pub(crate) fn count(path: &HotPath) -> Result<u64, Failure> {
    let folder = tempfile::tempdir()?;
    let out = folder.path().join("counts");
    let status = Command::new("valgrind")
        .args(["--quiet", "--tool=callgrind", "--fair-sched=yes"])
        .arg(format!("--toggle-collect={COUNTED_FUNCTION}"))
        .arg(format!("--callgrind-out-file={}", out.display()))
        .arg(std::env::current_exe()?)
        .args(["walk", path.name])
        .status()
        .map_err(|error| format!("cannot run valgrind: {error}"))?;
    if !status.success() {
        return Err(format!("{} failed under valgrind: {status}", path.name).into());
    }
    Ok(read_total(&out)? / path.counted_operations())
}

/// The instructions of a file of callgrind's, from its line `totals: 123`.
fn read_total(file: &Path) -> Result<u64, Failure> {
    let text = fs::read_to_string(file)
        .map_err(|error| format!("no counts in {}: {error}", file.display()))?;
    let total = text.lines().find_map(|line| line.strip_prefix("totals: "));
    Ok(total.ok_or("callgrind wrote no total")?.trim().parse()?)
}
