//! The heartbeats of all live streams, from one timer.
//!
//! The streams are spread over slots, and each slot's turn comes once an interval. So no stream has
//! a timer, and the heartbeats of streams that were opened together do not come together. The same
//! wake-up tells all streams of a shutdown.

use std::{
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use super::jitter::random_below;
use crate::signal::{Signal, Waiter};

/// The most slots.
const MAX_SLOTS: u32 = 64;
/// The shortest time between the turns of two slots.
const MIN_TURN: Duration = Duration::from_millis(50);

/// A cheap handle, to be cloned.
#[derive(Debug, Clone)]
pub(super) struct HeartbeatWheel {
    slots: Arc<[Signal]>,
}

/// One stream's heartbeats.
#[derive(Debug)]
pub(super) struct Heartbeats {
    wheel: HeartbeatWheel,
    slot: usize,
    waiter: Waiter,
}

impl HeartbeatWheel {
    pub(super) fn new(heartbeat: Duration) -> Self {
        let turns = heartbeat.as_millis() / MIN_TURN.as_millis();
        let slots = u32::try_from(turns).unwrap_or(MAX_SLOTS).clamp(1, MAX_SLOTS);
        Self { slots: (0..slots).map(|_| Signal::default()).collect() }
    }

    /// The heartbeats of one more stream; the first comes within the interval.
    pub(super) fn join(&self) -> Heartbeats {
        let slot = random_below(self.slots.len());
        Heartbeats { wheel: self.clone(), slot, waiter: self.slots[slot].join() }
    }

    /// Gives each slot its turn once in `heartbeat`, until `stopping` is cancelled. Then it wakes all
    /// streams.
    pub(super) async fn turn(self, heartbeat: Duration, stopping: CancellationToken) {
        let slots = u32::try_from(self.slots.len()).unwrap_or(MAX_SLOTS);
        let mut turns = interval((heartbeat / slots).max(Duration::from_millis(1)));
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        for slot in self.slots.iter().cycle() {
            tokio::select! {
                biased;
                () = stopping.cancelled() => break,
                _ = turns.tick() => slot.notify_all(),
            }
        }
        self.slots.iter().for_each(Signal::close);
    }
}

impl Heartbeats {
    /// Ready if a heartbeat is due, and after the wheel has stopped.
    pub(super) fn poll_due(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.wheel.slots[self.slot].poll(&mut self.waiter, cx).map(|_| ())
    }
}

impl Drop for Heartbeats {
    fn drop(&mut self) {
        self.wheel.slots[self.slot].leave(&self.waiter);
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, future::poll_fn};

    use super::*;

    const DEADLINE: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn every_stream_has_a_heartbeat_an_interval_and_not_all_at_one_moment() {
        let interval = Duration::from_millis(500);
        let wheel = HeartbeatWheel::new(interval);
        let mut streams: Vec<_> = (0..100).map(|_| wheel.join()).collect();
        let slots: HashSet<_> = streams.iter().map(|stream| stream.slot).collect();
        assert!(slots.len() > 3, "{slots:?}");
        let stopping = CancellationToken::new();
        let turning = tokio::spawn(wheel.turn(interval, stopping.clone()));
        for _ in 0..3 {
            let round = async {
                for stream in &mut streams {
                    poll_fn(|cx| stream.poll_due(cx)).await;
                }
            };
            tokio::time::timeout(DEADLINE, round).await.expect("in time");
        }
        stopping.cancel();
        turning.await.expect("no panic");
        for stream in &mut streams {
            poll_fn(|cx| stream.poll_due(cx)).await;
        }
    }
}
