//! The open connections, to close those that have been idle longest when there are too many. One that
//! is idle may hold the beginning of a request, in buffers of about 40 KiB.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Instant,
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Of the open connections, one in so many is closed at a time, so that the search for idle ones is
/// not repeated for each connection that waits.
const CLOSED_AT_ONCE: usize = 100;

/// All connections that hyper serves.
#[derive(Debug)]
pub(crate) struct OpenConnections {
    started: Instant,
    next_number: AtomicU64,
    /// Connections with a request under way.
    busy: Arc<AtomicUsize>,
    open: Mutex<HashMap<u64, Arc<Activity>>>,
}

/// What a connection is doing.
#[derive(Debug)]
pub(crate) struct Activity {
    started: Instant,
    busy: Arc<AtomicUsize>,
    /// Requests whose response is not written yet.
    requests: AtomicUsize,
    /// Milliseconds from `started` until the last request ended, or the connection opened.
    idle_since_ms: AtomicU64,
    closing: Notify,
}

/// Keeps a connection among the open ones until it is dropped.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    connections: Arc<OpenConnections>,
    number: u64,
    pub(crate) activity: Arc<Activity>,
}

impl OpenConnections {
    pub(crate) fn new() -> Arc<Self> {
        let (next_number, busy, open) = (AtomicU64::new(0), Arc::default(), Mutex::default());
        Arc::new(Self { started: Instant::now(), next_number, busy, open })
    }

    /// Adds a connection, idle from now on.
    pub(crate) fn add(self: &Arc<Self>) -> OpenConnection {
        let activity = Arc::new(Activity {
            started: self.started,
            busy: Arc::clone(&self.busy),
            requests: AtomicUsize::new(0),
            idle_since_ms: AtomicU64::new(elapsed_ms(self.started)),
            closing: Notify::new(),
        });
        let number = self.next_number.fetch_add(1, Ordering::Relaxed);
        self.open.lock().insert(number, Arc::clone(&activity));
        OpenConnection { connections: Arc::clone(self), number, activity }
    }

    /// Number of connections without a request under way.
    pub(crate) fn count_idle(&self) -> usize {
        self.open.lock().len().saturating_sub(self.busy.load(Ordering::Relaxed))
    }

    /// Closes the connections that have been idle longest, one in a hundred of all. Returns their
    /// number, 0 if none is idle.
    pub(crate) fn close_idle(&self) -> usize {
        let open = self.open.lock();
        let idle = open.values().filter(|activity| activity.is_idle());
        let mut idle: Vec<_> = idle
            .map(|activity| (activity.idle_since_ms.load(Ordering::Relaxed), activity))
            .collect();
        let count = open.len().div_ceil(CLOSED_AT_ONCE).min(idle.len());
        if count > 0 {
            idle.select_nth_unstable_by_key(count - 1, |(since, _)| *since);
        }
        idle.truncate(count);
        idle.iter().for_each(|(_, activity)| activity.closing.notify_one());
        count
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.connections.open.lock().remove(&self.number);
    }
}

impl Activity {
    pub(crate) fn is_idle(&self) -> bool {
        self.requests.load(Ordering::Relaxed) == 0
    }

    /// Resolves when this connection is to make room for others.
    pub(crate) async fn closing(&self) {
        self.closing.notified().await;
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>) -> RequestGuard {
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
        RequestGuard(Arc::clone(self))
    }
}

/// A request that is under way on a connection.
#[derive(Debug)]
pub(crate) struct RequestGuard(Arc<Activity>);

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.idle_since_ms.store(elapsed_ms(self.0.started), Ordering::Relaxed);
        if self.0.requests.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.busy.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

fn elapsed_ms(since: Instant) -> u64 {
    u64::try_from(since.elapsed().as_millis()).unwrap_or(u64::MAX)
}

/// A response's body. The request is under way until hyper drops it.
pub(crate) struct GuardedBody {
    pub(crate) inner: Body,
    pub(crate) _guard: RequestGuard,
}

impl hyper::body::Body for GuardedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.inner).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn the_connections_that_are_idle_longest_are_closed_and_no_busy_one() {
        let connections = OpenConnections::new();
        let opened: Vec<_> = (0..3).map(|_| connections.add()).collect();
        for (connection, since) in opened.iter().zip([1, 3, 2]) {
            connection.activity.idle_since_ms.store(since, Ordering::Relaxed);
        }
        let busy = [opened[0].activity.begin_request(), opened[0].activity.begin_request()];
        assert_eq!(connections.count_idle(), 2);
        assert_eq!(connections.close_idle(), 1);
        let is_closing = |index: usize| opened[index].activity.closing().now_or_never().is_some();
        assert_eq!([0, 1, 2].map(is_closing), [false, false, true]);
        drop(busy);
        assert_eq!(connections.count_idle(), 3);
        drop(opened);
        assert_eq!(connections.close_idle(), 0);
    }
}
