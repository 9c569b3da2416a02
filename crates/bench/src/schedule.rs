//! The schedule of an open loop: requests are due at a fixed rate, however long the earlier ones
//! take. A latency that runs from the due time includes the wait behind a stall (leaving that out
//! is what Gil Tene calls coordinated omission).

use std::{
    cell::Cell,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// Due times are multiples of this. The runtime's timer is a millisecond late, and a thread that
/// wakes more often takes processor time from the measured processes.
const TICK: Duration = Duration::from_micros(250);

/// A schedule that has begun. For the workers of one thread.
#[derive(Debug)]
pub(crate) struct Schedule {
    due: Arc<Semaphore>,
    next: Cell<u64>,
    rate: u32,
    count: u64,
    started: Instant,
}

impl Schedule {
    /// Starts a schedule of `count` requests at `rate` a second for this many workers.
    pub(crate) fn start(rate: u32, count: u64, workers: usize) -> Self {
        let (due, started) = (Arc::new(Semaphore::new(0)), Instant::now());
        let permits = Arc::clone(&due);
        // A thread sleeps more precisely than the runtime does.
        thread::spawn(move || release_permits(&permits, started, rate, count, workers));
        Self { due, next: Cell::new(0), rate, count, started }
    }

    /// Waits for the next request: its number and its due time. `None` at the end of the schedule.
    pub(crate) async fn next_due(&self) -> Option<(u64, Instant)> {
        self.due.acquire().await.ok()?.forget();
        let number = self.next.replace(self.next.get() + 1);
        (number < self.count).then(|| (number, self.started + due_after(self.rate, number)))
    }
}

/// Adds a permit for each request when it is due, and at the end one for each worker, which then
/// sees that the schedule is over. Returns early when the schedule was dropped.
fn release_permits(due: &Arc<Semaphore>, started: Instant, rate: u32, count: u64, workers: usize) {
    let mut number = 0;
    while number < count && Arc::strong_count(due) > 1 {
        let tick = due_after(rate, number);
        thread::sleep((started + tick).saturating_duration_since(Instant::now()));
        let mut permits = 0;
        while number < count && due_after(rate, number) == tick {
            (number, permits) = (number + 1, permits + 1);
        }
        due.add_permits(permits);
    }
    due.add_permits(workers);
}

/// The due time of a request, counted from the start.
fn due_after(rate: u32, number: u64) -> Duration {
    let exactly = u128::from(number) * 1_000_000_000 / u128::from(rate);
    TICK * u32::try_from(exactly / TICK.as_nanos()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_due_evenly_and_never_later_than_their_rate_says() {
        assert_eq!(due_after(1000, 250), Duration::from_millis(250));
        assert_eq!(due_after(10_000, 9), Duration::from_micros(750), "the tenth, at 900 µs");
        assert_eq!(due_after(3, 3), Duration::from_secs(1));
    }

    #[tokio::test]
    async fn every_request_is_let_go_once_and_none_before_it_is_due() {
        let schedule = Schedule::start(2000, 100, 1);
        let mut numbers = Vec::new();
        while let Some((number, due)) = schedule.next_due().await {
            assert!(due <= Instant::now(), "{number}");
            numbers.push(number);
        }
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert!(schedule.started.elapsed() >= Duration::from_micros(49_500));
    }
}
