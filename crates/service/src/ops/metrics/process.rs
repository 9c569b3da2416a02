//! Resource usage from Linux' `/proc`, under the names that every Prometheus client uses. Not
//! available on other systems.

use std::fs;

use crate::ops::metrics::{CPU_SECONDS, MAX_FDS, OPEN_FDS, RESIDENT_MEMORY, START_TIME};

/// `USER_HZ` on every processor that we build for.
const TICKS_A_SECOND: f64 = 100.0;

/// Each metric of this process and its value; `None` if `/proc` is missing.
pub(super) fn read_process() -> Option<[(&'static str, f64); 5]> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let resident_kib: f64 = word_after(&status, "VmRSS:")?.parse().ok()?;
    let limits = fs::read_to_string("/proc/self/limits").ok()?;
    let most_files = word_after(&limits, "Max open files")?.parse().unwrap_or(f64::INFINITY);
    // `read_dir` opens one itself.
    let open_files = fs::read_dir("/proc/self/fd").ok()?.count().saturating_sub(1) as f64;
    let stat = fs::read_to_string("/proc/self/stat").ok()?;
    // The program's name in parentheses may hold any character.
    let fields: Vec<_> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = |index: usize| fields.get(index)?.parse::<f64>().ok();
    let system = fs::read_to_string("/proc/stat").ok()?;
    let booted: f64 = word_after(&system, "btime")?.parse().ok()?;
    // Fields 14, 15 and 22 of proc(5); these begin with the third.
    let cpu_seconds = (ticks(11)? + ticks(12)?) / TICKS_A_SECOND;
    Some([
        (RESIDENT_MEMORY, resident_kib * 1024.0),
        (OPEN_FDS, open_files),
        (MAX_FDS, most_files),
        (CPU_SECONDS, cpu_seconds),
        (START_TIME, booted + ticks(19)? / TICKS_A_SECOND),
    ])
}

/// The first word after `name`, on the line that begins with it.
fn word_after<'t>(text: &'t str, name: &str) -> Option<&'t str> {
    text.lines().find_map(|line| line.strip_prefix(name))?.split_whitespace().next()
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use super::*;
    use std::time::{SystemTime, UNIX_EPOCH};

    #[test]
    fn linux_says_how_much_this_process_uses() {
        let [resident, open, most, cpu, started] =
            read_process().expect("/proc").map(|(_, value)| value);
        assert!(resident > 1e6, "{resident}");
        assert!(open >= 3.0 && open <= most);
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64();
        let age = now - started;
        assert!((-2.0..3600.0).contains(&age) && cpu < age + 60.0, "{age} {cpu}");
    }
}
