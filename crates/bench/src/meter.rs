//! Counts and times what happens in one round of one party. It never judges what it counts.

use std::{
    cell::RefCell,
    time::{Duration, Instant},
};

use hdrhistogram::Histogram;

use crate::{Result, figures::Sample};

/// The most requests of a round, whatever its length.
const MAX_REQUESTS: u64 = 20_000_000;
/// A latency above this counts as this, in microseconds.
const MAX_LATENCY_US: u64 = 60_000_000;

/// Of latencies in microseconds, to three digits.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, MAX_LATENCY_US, 3)?)
}

/// Counts and times what happens in one round. For one thread.
#[derive(Debug)]
pub(crate) struct Meter {
    started: Instant,
    round: Duration,
    state: RefCell<State>,
}

#[derive(Debug)]
struct State {
    latencies: Histogram<u64>,
    failed: u64,
    last: Instant,
}

impl Meter {
    /// Starts now.
    pub(crate) fn start(round: Duration) -> Result<Self> {
        let started = Instant::now();
        let latencies = histogram()?;
        let state = RefCell::new(State { latencies, failed: 0, last: started });
        Ok(Self { started, round, state })
    }

    /// Whether another request may be sent.
    pub(crate) fn goes_on(&self) -> bool {
        self.started.elapsed() < self.round && self.state.borrow().latencies.len() < MAX_REQUESTS
    }

    /// Notes an answer to what was asked at this time.
    pub(crate) fn note(&self, asked: Instant, well: bool) {
        if well {
            self.note_at(asked, Instant::now());
        } else {
            let mut state = self.state.borrow_mut();
            state.last = Instant::now();
            state.failed += 1;
        }
    }

    /// Notes something that was asked and answered at these times.
    pub(crate) fn note_at(&self, asked: Instant, answered: Instant) {
        let mut state = self.state.borrow_mut();
        state.last = Instant::now();
        let latency = answered.saturating_duration_since(asked).as_micros();
        state.latencies.saturating_record(u64::try_from(latency).unwrap_or(u64::MAX));
    }

    /// What was measured, up to the last answer.
    pub(crate) fn finish(self) -> Result<Sample> {
        let State { latencies, failed, last } = self.state.into_inner();
        if latencies.is_empty() {
            return Err(format!("nothing went well, {failed} answers were not 200").into());
        }
        #[allow(clippy::cast_precision_loss)] // counts of a few seconds
        let ms = |quantile: f64| latencies.value_at_quantile(quantile) as f64 / 1000.0;
        #[allow(clippy::cast_precision_loss)] // as above
        let rate = latencies.len() as f64 / (last - self.started).as_secs_f64();
        let (p50_ms, p99_ms) = (Some(ms(0.50)), Some(ms(0.99)));
        let count = latencies.len();
        let latencies = Some(latencies);
        Ok(Sample { value: rate, p50_ms, p99_ms, cpu_us: None, failed, count, latencies })
    }
}
