//! How far a topic was read, and when: what makes a curve of records over seconds.

use std::time::{Duration, Instant};

/// Between two points. Finer than an eye sees in a chart of a second, and nothing beside the work.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// Records over time.
#[derive(Debug, Clone)]
pub(crate) struct Progress {
    started: Instant,
    points: Vec<(Duration, u64)>,
}

impl Progress {
    /// Nothing read yet.
    pub(crate) fn start() -> Self {
        Self::since(Instant::now())
    }

    /// The same, of what began then.
    pub(crate) fn since(started: Instant) -> Self {
        Self { started, points: vec![(Duration::ZERO, 0)] }
    }

    /// Notes how many records were read so far, unless that was noted just before. Returns for how
    /// long it has been going on.
    pub(crate) fn note(&mut self, records: u64) -> Duration {
        let now = self.started.elapsed();
        if self.points.last().is_none_or(|(last, _)| now >= *last + LOOK_EVERY) {
            self.points.push((now, records));
        }
        now
    }

    /// Notes that it is done.
    pub(crate) fn end(&mut self, records: u64) {
        self.points.push((self.started.elapsed(), records));
    }

    /// How long it took.
    pub(crate) fn took(&self) -> Duration {
        self.points.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Seconds and records.
    pub(crate) fn curve(&self) -> Vec<(f64, f64)> {
        #[allow(clippy::cast_precision_loss)] // far below 2⁵²
        self.points.iter().map(|(at, records)| (at.as_secs_f64(), *records as f64)).collect()
    }
}

/// How long so many records may take to be written or read, whoever does it: a minute, and what a
/// tenth of the slowest machine's speed makes of the rest.
pub(crate) fn patience(records: u64) -> Duration {
    Duration::from_secs(60 + records / 5_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_ends_at_the_last_record_and_has_no_more_points_than_are_seen() {
        let mut progress = Progress::start();
        for records in 0..10_000 {
            progress.note(records);
        }
        progress.end(10_000);
        let curve = progress.curve();
        assert!(curve.len() < 100, "{} points", curve.len());
        assert_eq!(curve.last().map(|point| point.1), Some(10_000.0));
        assert!(curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1));
    }
}
