//! Counts and times the requests of a round, or the records of a topic.

use std::{
    cell::{Cell, RefCell},
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{Result, figures::Sample};

/// The most requests of a round, whatever its length.
const MAX_REQUESTS: u64 = 20_000_000;
/// A latency above this counts as this.
const MAX_LATENCY_US: u64 = 60_000_000;
/// Between two points of a curve: finer than a chart shows.
const CURVE_INTERVAL: Duration = Duration::from_millis(20);

/// An empty histogram of latencies in microseconds, exact to three digits.
pub(crate) fn new_histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?)
}

/// Counts and times the requests of one round, on one thread.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    last_answer: Cell<Instant>,
    failed: Cell<u64>,
    latencies: RefCell<Histogram<u64>>,
}

impl Meter {
    /// Starts now.
    pub(crate) fn start() -> Result<Self> {
        let started = Instant::now();
        let latencies = RefCell::new(new_histogram()?);
        Ok(Self { started, last_answer: Cell::new(started), failed: Cell::new(0), latencies })
    }

    /// True while a round of this length may send another request.
    pub(crate) fn is_open(&self, round: Duration) -> bool {
        self.started.elapsed() < round && self.latencies.borrow().len() < MAX_REQUESTS
    }

    /// Counts an answer that came now to a request that was due at `asked`.
    pub(crate) fn record(&self, asked: Instant, succeeded: bool) {
        if succeeded {
            self.record_success(asked, Instant::now());
        } else {
            self.last_answer.set(Instant::now());
            self.failed.set(self.failed.get() + 1);
        }
    }

    /// Counts a success by when it was due and when it was answered.
    pub(crate) fn record_success(&self, asked: Instant, answered: Instant) {
        self.last_answer.set(Instant::now());
        let latency = answered.saturating_duration_since(asked).as_micros();
        let latency = u64::try_from(latency).unwrap_or(u64::MAX);
        self.latencies.borrow_mut().saturating_record(latency);
    }

    /// The round's sample, whose value is successes a second from the start to the last answer.
    ///
    /// # Errors
    /// If no request succeeded.
    pub(crate) fn finish(self) -> Result<Sample> {
        let (latencies, failed) = (self.latencies.into_inner(), self.failed.get());
        let count = latencies.len();
        if count == 0 {
            return Err(format!("no request succeeded, {failed} answers were not 200").into());
        }
        let rate = count as f64 / (self.last_answer.get() - self.started).as_secs_f64();
        let ms = |quantile: f64| Some(latencies.value_at_quantile(quantile) as f64 / 1000.0);
        let (p50_ms, p99_ms) = (ms(0.50), ms(0.99));
        let latencies = Some(latencies);
        Ok(Sample { value: rate, p50_ms, p99_ms, cpu_us: None, failed, count, latencies })
    }
}

/// Records read over time.
#[derive(Debug, Clone)]
pub(crate) struct ReadCurve {
    started: Instant,
    points: Vec<(Duration, u64)>,
}

impl ReadCurve {
    /// A curve that begins at this time with no records.
    pub(crate) fn since(started: Instant) -> Self {
        Self { started, points: vec![(Duration::ZERO, 0)] }
    }

    /// Adds a point unless the last one is less than [`CURVE_INTERVAL`] old. Returns the time since
    /// the start.
    pub(crate) fn add_point(&mut self, records: u64) -> Duration {
        let now = self.started.elapsed();
        if self.points.last().is_none_or(|(last, _)| now >= *last + CURVE_INTERVAL) {
            self.points.push((now, records));
        }
        now
    }

    /// Adds the last point in any case.
    pub(crate) fn add_last_point(&mut self, records: u64) {
        self.points.push((self.started.elapsed(), records));
    }

    /// Time from the start to the last point.
    pub(crate) fn duration(&self) -> Duration {
        self.points.last().map_or(Duration::ZERO, |(at, _)| *at)
    }

    /// Seconds and records.
    pub(crate) fn points(&self) -> Vec<(f64, f64)> {
        self.points.iter().map(|(at, records)| (at.as_secs_f64(), *records as f64)).collect()
    }
}

/// How long writing or reading this many records may take: a minute, and the rest at a tenth of a
/// slow machine's speed.
pub(crate) fn transfer_timeout(records: u64) -> Duration {
    Duration::from_secs(60 + records / 5_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_curve_ends_at_the_last_record_and_has_no_more_points_than_are_seen() {
        let mut progress = ReadCurve::since(Instant::now());
        for records in 0..10_000 {
            progress.add_point(records);
        }
        progress.add_last_point(10_000);
        let curve = progress.points();
        assert!(curve.len() < 100, "{} points", curve.len());
        assert_eq!(curve.last().map(|point| point.1), Some(10_000.0));
        assert!(curve.is_sorted_by(|one, next| one.0 <= next.0 && one.1 <= next.1));
    }
}
