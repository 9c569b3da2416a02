//! Processor time, from `/proc`.

use std::{collections::HashMap, fs};

use crate::Result;

/// Nanoseconds that each thread of a process has run, at one moment.
#[derive(Debug, Clone)]
pub(crate) struct CpuReading {
    pid: u32,
    threads: HashMap<String, u64>,
}

impl CpuReading {
    /// Reads `/proc/PID/task/*/schedstat`, whose first field is exact to the nanosecond; the ticks
    /// of `/proc/PID/stat` last 10 ms.
    pub(crate) fn take(pid: u32) -> Result<Self> {
        let mut threads = HashMap::new();
        let tasks = fs::read_dir(format!("/proc/{pid}/task"))
            .map_err(|_| format!("no process {pid}, or no /proc: bench needs Linux"))?;
        for task in tasks.flatten() {
            // A thread may end meanwhile.
            if let Ok(text) = fs::read_to_string(task.path().join("schedstat")) {
                threads.insert(task.file_name().to_string_lossy().into_owned(), first(&text));
            }
        }
        Ok(Self { pid, threads })
    }

    /// Nanoseconds that the process has run, without its threads that ended.
    pub(crate) fn total_ns(pid: u32) -> Result<u64> {
        Ok(Self::take(pid)?.threads.values().sum())
    }

    /// Nanoseconds since this reading. The time of threads that ended since then is missing.
    pub(crate) fn elapsed_ns(&self) -> Result<u64> {
        let now = Self::take(self.pid)?;
        let before = |thread| self.threads.get(thread).copied().unwrap_or(0);
        Ok(now.threads.iter().map(|(thread, ns)| ns.saturating_sub(before(thread))).sum())
    }
}

/// Nanoseconds that the calling thread has run.
pub(crate) fn own_thread_ns() -> u64 {
    fs::read_to_string("/proc/thread-self/schedstat").map_or(0, |text| first(&text))
}

fn first(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|field| field.parse().ok()).unwrap_or(0)
}

/// All processors' time so far, and how much of it the hypervisor gave to others, in ticks.
pub(crate) fn steal() -> Option<(f64, f64)> {
    let text = fs::read_to_string("/proc/stat").ok()?;
    let fields: Vec<f64> =
        text.lines().next()?.split_whitespace().skip(1).flat_map(str::parse).collect();
    Some((fields.iter().take(8).sum(), *fields.get(7)?))
}

/// A field of `/proc/PID/status` that is in kB, as bytes: `RssAnon`, `VmHWM`.
pub(crate) fn status_bytes(pid: u32, field: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
    let kib = line.and_then(|line| line.trim().trim_end_matches("kB").trim().parse::<f64>().ok());
    Ok(kib.ok_or("/proc has no such field of this process")? * 1024.0)
}

/// Open sockets of a process.
pub(crate) fn count_sockets(pid: u32) -> usize {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let targets = files.filter_map(|file| fs::read_link(file.path()).ok());
    targets.filter(|target| target.to_string_lossy().starts_with("socket:")).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_thread_is_seen_in_its_process() {
        let reading = CpuReading::take(std::process::id()).expect("/proc");
        let begin = own_thread_ns();
        while own_thread_ns() < begin + 20_000_000 {
            std::hint::spin_loop();
        }
        assert!(reading.elapsed_ns().expect("/proc") >= 15_000_000);
    }
}
