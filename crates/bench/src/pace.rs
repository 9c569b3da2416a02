//! Lets requests go at a fixed rate, however long those before them take, and says when each was
//! due: a latency that runs from then counts what a stall kept waiting, whether it was sent yet or
//! not (what Gil Tene calls coordinated omission is the failure to do so).

use std::{
    cell::Cell,
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use tokio::sync::Semaphore;

/// What is due falls on multiples of this: a timer of the runtime is a millisecond late, and a thread
/// that wakes more often takes the processors away from what is measured.
const TICK: Duration = Duration::from_micros(250);

/// A schedule that has begun. For the workers of one thread.
#[derive(Debug)]
pub(crate) struct Pace {
    due: Arc<Semaphore>,
    next: Cell<u64>,
    rate: u32,
    count: u64,
    started: Instant,
}

impl Pace {
    /// So many a second, until there were `count` of them; as many workers wait for them.
    pub(crate) fn start(rate: u32, count: u64, workers: usize) -> Self {
        let (due, started) = (Arc::new(Semaphore::new(0)), Instant::now());
        let (letting_go, next) = (Arc::clone(&due), Cell::new(0));
        // A thread sleeps more precisely than the runtime does.
        thread::spawn(move || let_go(&letting_go, started, rate, count, workers));
        Self { due, next, rate, count, started }
    }

    /// Waits for the next request: its number, and when it was due. None when there are no more.
    pub(crate) async fn next(&self) -> Option<(u64, Instant)> {
        self.due.acquire().await.ok()?.forget();
        let number = self.next.replace(self.next.get() + 1);
        (number < self.count).then(|| (number, self.started + due_after(self.rate, number)))
    }
}

/// Lets one worker go for each request, when it is due; at the end each of them once more, to be told
/// that it is over. Ends early when nobody waits any more.
fn let_go(due: &Arc<Semaphore>, started: Instant, rate: u32, count: u64, workers: usize) {
    let mut number = 0;
    while number < count && Arc::strong_count(due) > 1 {
        let tick = due_after(rate, number);
        thread::sleep((started + tick).saturating_duration_since(Instant::now()));
        let mut together = 0;
        while number < count && due_after(rate, number) == tick {
            (number, together) = (number + 1, together + 1);
        }
        due.add_permits(together);
    }
    due.add_permits(workers);
}

/// When request number `number` is due, after the start.
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
        let pace = Pace::start(2000, 100, 1);
        let mut numbers = Vec::new();
        while let Some((number, due)) = pace.next().await {
            assert!(due <= Instant::now(), "{number}");
            numbers.push(number);
        }
        assert_eq!(numbers, (0..100).collect::<Vec<_>>());
        assert!(pace.started.elapsed() >= Duration::from_micros(49_500));
    }
}
