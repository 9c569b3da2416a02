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

use crate::{metrics::DELIVERY_SECONDS, settings::StreamArgs};

/// For `Retry-After`, if a stream limit is reached.
pub(super) const LIMIT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The state that all live streams of this instance share. A cheap handle, to be cloned.
#[derive(Clone)]
pub(crate) struct LiveStreams {
    pub(super) settings: StreamArgs,
    /// One permit for each stream that may be open, forwarded ones included.
    permits: Arc<Semaphore>,
    /// Number of open streams of each kind, in the order of [`StreamKind::ALL`].
    open: Arc<[AtomicUsize; 5]>,
    /// Time from a notification's timestamp until it is written to a stream.
    pub(super) pushed: Histogram,
    pub(super) stopping: CancellationToken,
    /// Tasks of upgraded connections, which the HTTP server does not wait for.
    pub(super) sockets: TaskTracker,
}

impl LiveStreams {
    /// The streams end when `stopping` is cancelled.
    pub(crate) fn new(settings: StreamArgs, stopping: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(settings.max_streams));
        let pushed = histogram!(DELIVERY_SECONDS, "stage" => "pushed");
        let (open, sockets) = (Arc::default(), TaskTracker::new());
        Self { settings, permits, open, pushed, stopping, sockets }
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

    /// Waits until all WebSockets are closed, for `deadline` at most.
    pub(crate) async fn drain_sockets(&self, deadline: Duration) {
        self.sockets.close();
        let _ = tokio::time::timeout(deadline, self.sockets.wait()).await;
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
