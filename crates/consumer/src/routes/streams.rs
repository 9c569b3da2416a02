//! The live streams of this instance together: their permits, their number by kind, their end.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use metrics::{Histogram, histogram};
use service::problem::Problem;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    heartbeats::{HeartbeatWheel, Heartbeats},
    jitter::jittered,
};
use crate::{metrics::DELIVERY_SECONDS, settings::StreamArgs};

/// For `Retry-After`, if a stream limit is reached.
pub(super) const LIMIT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// Streams that end in a second, if many end for the same reason. With it, 10,000 clients come back
/// over 5 s, and their next instance keeps serving others.
const MAX_ENDS_PER_SECOND: f64 = 2000.0;

/// The state that all live streams of this instance share. A cheap handle, to be cloned.
#[derive(Clone)]
pub(crate) struct LiveStreams {
    pub(super) settings: StreamArgs,
    /// Bounds the time over which streams end that could all end at once.
    max_spread: Duration,
    /// One permit for each stream that may be open, forwarded ones included.
    permits: Arc<Semaphore>,
    /// Number of open streams of each kind, in the order of [`StreamKind::ALL`].
    open: Arc<[AtomicUsize; 5]>,
    /// Time from a notification's timestamp until it is written to a stream.
    pub(super) pushed: Histogram,
    pub(super) stopping: CancellationToken,
    heartbeats: HeartbeatWheel,
    /// Tasks of upgraded connections, which the HTTP server does not wait for.
    pub(super) sockets: TaskTracker,
}

impl LiveStreams {
    /// The streams end when `stopping` is cancelled, spread over at most `max_spread`.
    pub(crate) fn new(
        settings: StreamArgs,
        max_spread: Duration,
        stopping: CancellationToken,
    ) -> Self {
        let permits = Arc::new(Semaphore::new(settings.max_streams));
        let pushed = histogram!(DELIVERY_SECONDS, "stage" => "pushed");
        let (open, sockets) = (Arc::default(), TaskTracker::new());
        let heartbeats = HeartbeatWheel::new(settings.heartbeat);
        Self { settings, max_spread, permits, open, pushed, stopping, heartbeats, sockets }
    }

    /// Wakes each stream for its heartbeats, and all when this instance stops. To be spawned once.
    pub(crate) async fn run_heartbeats(self) {
        self.heartbeats.turn(self.settings.heartbeat, self.stopping).await;
    }

    pub(super) fn join_heartbeats(&self) -> Heartbeats {
        self.heartbeats.join()
    }

    pub(super) fn acquire_permit(&self, kind: StreamKind) -> Result<StreamPermit, Problem> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = format!("Live-stream limit reached ({})", self.settings.max_streams);
            Problem::unavailable(message, LIMIT_RETRY_DELAY)
        })?;
        self.open[kind as usize].fetch_add(1, Ordering::Relaxed);
        Ok(StreamPermit { open: Arc::clone(&self.open), kind, _permit: permit })
    }

    pub(super) fn count_open(&self, kind: StreamKind) -> usize {
        self.open[kind as usize].load(Ordering::Relaxed)
    }

    /// How long a stream waits before it ends for a reason that ends others too, a shutdown or a
    /// moved partition: random, so that all their clients do not come back at one moment.
    pub(super) fn end_delay(&self) -> Duration {
        let open: usize = self.open.iter().map(|open| open.load(Ordering::Relaxed)).sum();
        let spread = Duration::from_secs_f64(open as f64 / MAX_ENDS_PER_SECOND);
        jittered(Duration::ZERO..spread.min(self.max_spread))
    }

    /// Waits until all WebSockets are closed: for as long as they may end, and `deadline` longer.
    pub(crate) async fn drain_sockets(&self, deadline: Duration) {
        self.sockets.close();
        let _ = tokio::time::timeout(self.max_spread + deadline, self.sockets.wait()).await;
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum StreamKind {
    Sse,
    Ndjson,
    Socket,
    /// Any of these, passed on from the owner to the client.
    Forwarded,
    /// A long poll. It holds a permit like a stream.
    Waiting,
}

impl StreamKind {
    /// With their labels in the metrics.
    pub(super) const ALL: [(Self, &str); 5] = [
        (Self::Sse, "sse"),
        (Self::Ndjson, "ndjson"),
        (Self::Socket, "ws"),
        (Self::Forwarded, "forwarded"),
        (Self::Waiting, "wait"),
    ];
}

/// Permits one open stream, until it is dropped.
pub(super) struct StreamPermit {
    open: Arc<[AtomicUsize; 5]>,
    kind: StreamKind,
    _permit: OwnedSemaphorePermit,
}

impl Drop for StreamPermit {
    fn drop(&mut self) {
        self.open[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[derive(clap::Parser)]
    struct Flags {
        #[command(flatten)]
        streams: StreamArgs,
    }

    fn longest_delay(open: usize, max_spread: Duration) -> Duration {
        let settings = Flags::parse_from(["consumer"]).streams;
        let streams = LiveStreams::new(settings, max_spread, CancellationToken::new());
        let permits: Vec<_> =
            (0..open).map(|_| streams.acquire_permit(StreamKind::Sse).ok()).collect();
        assert!(permits.iter().all(Option::is_some));
        (0..200).map(|_| streams.end_delay()).max().unwrap_or_default()
    }

    #[test]
    fn many_streams_end_over_a_longer_time_than_few_and_all_within_the_bound() {
        let bound = Duration::from_secs(5);
        assert!(longest_delay(10, bound) <= Duration::from_millis(5));
        let thousands = longest_delay(4000, bound);
        assert!(thousands > Duration::from_secs(1) && thousands <= Duration::from_secs(2));
        let all = longest_delay(20_000, bound);
        assert!(all > Duration::from_secs(3) && all <= bound, "{all:?}");
        assert_eq!(longest_delay(20_000, Duration::ZERO), Duration::ZERO);
    }
}
