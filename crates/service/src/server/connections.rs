//! The open connections: closes those that send no request in time, and those that have been idle
//! longest when there are too many. One that is idle may hold the beginning of a request, in buffers
//! of about 40 KiB.
//!
//! Orders to a connection (close, drain, cut) wake that connection alone. A connection that serves
//! requests waits in no list that others share, and has no timer.

use std::{
    collections::HashMap,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering},
    },
    task::{Context, Poll, Waker},
    time::{Duration, Instant},
};

use axum::{body::Body, http::Version};
use bytes::Bytes;
use futures_util::task::AtomicWaker;
use hyper::body::{Frame, SizeHint};
use parking_lot::Mutex;

/// Of the open connections, one in so many is closed at a time, so that the search for idle ones is
/// not repeated for each connection that waits.
const CLOSED_AT_ONCE: usize = 100;

/// Bounds of the interval at which overdue connections are looked for.
const MIN_OVERDUE_INTERVAL: Duration = Duration::from_millis(10);
const MAX_OVERDUE_INTERVAL: Duration = Duration::from_secs(1);

/// An order to a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    /// To close if no request is under way.
    CloseIfIdle = 1,
    /// To take no further request.
    Drain = 2,
    /// To close at once.
    Cut = 4,
}

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
    /// True once it has sent a request.
    asked: AtomicBool,
    /// True for HTTP/2, whose idle connections are kept: pings show that the client is there.
    keeps_idle: AtomicBool,
    /// The orders that it has not taken yet, one bit each.
    orders: AtomicU8,
    waker: AtomicWaker,
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
            asked: AtomicBool::new(false),
            keeps_idle: AtomicBool::new(false),
            orders: AtomicU8::new(0),
            waker: AtomicWaker::new(),
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
        idle.iter().for_each(|(_, activity)| activity.give_order(Order::CloseIfIdle));
        count
    }

    /// Gives every connection an order.
    pub(crate) fn order_all(&self, order: Order) {
        self.open.lock().values().for_each(|activity| activity.give_order(order));
    }

    /// Closes, for ever, connections that send no first request within `header_timeout`, and those of
    /// HTTP/1 that send no further one within `idle_timeout`. Each ends up to an eighth of the shorter
    /// time later, and at most a second.
    pub(crate) async fn close_overdue(&self, header_timeout: Duration, idle_timeout: Duration) {
        let interval = header_timeout.min(idle_timeout) / 8;
        let interval = interval.clamp(MIN_OVERDUE_INTERVAL, MAX_OVERDUE_INTERVAL);
        let (header_ms, idle_ms) = (to_ms(header_timeout), to_ms(idle_timeout));
        loop {
            tokio::time::sleep(interval).await;
            let now_ms = elapsed_ms(self.started);
            for activity in self.open.lock().values().filter(|activity| activity.is_idle()) {
                let asked = activity.asked.load(Ordering::Relaxed);
                let keeps_idle = activity.keeps_idle.load(Ordering::Relaxed);
                let idle_for_ms =
                    now_ms.saturating_sub(activity.idle_since_ms.load(Ordering::Relaxed));
                let limit_ms = if asked { idle_ms } else { header_ms };
                if idle_for_ms >= limit_ms && !keeps_idle {
                    activity.give_order(Order::CloseIfIdle);
                }
            }
        }
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

    fn give_order(&self, order: Order) {
        self.orders.fetch_or(order as u8, Ordering::AcqRel);
        self.waker.wake();
    }

    /// Takes the orders given since the last call, and wakes `waker` at the next one.
    pub(crate) fn take_orders(&self, waker: &Waker) -> Orders {
        self.waker.register(waker);
        if self.orders.load(Ordering::Acquire) == 0 {
            return Orders(0);
        }
        Orders(self.orders.swap(0, Ordering::AcqRel))
    }

    /// Counts a request until the guard is dropped.
    pub(crate) fn begin_request(self: &Arc<Self>, version: Version) -> RequestGuard {
        if !self.asked.load(Ordering::Relaxed) {
            self.keeps_idle.store(version == Version::HTTP_2, Ordering::Relaxed);
            self.asked.store(true, Ordering::Relaxed);
        }
        if self.requests.fetch_add(1, Ordering::Relaxed) == 0 {
            self.busy.fetch_add(1, Ordering::Relaxed);
        }
        RequestGuard(Arc::clone(self))
    }
}

/// The orders that a connection takes at once.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Orders(u8);

impl Orders {
    pub(crate) fn has(self, order: Order) -> bool {
        self.0 & order as u8 != 0
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
    to_ms(since.elapsed())
}

fn to_ms(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
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
    use super::*;

    #[test]
    fn the_connections_that_are_idle_longest_are_closed_and_no_busy_one() {
        let connections = OpenConnections::new();
        let opened: Vec<_> = (0..3).map(|_| connections.add()).collect();
        for (connection, since) in opened.iter().zip([1, 3, 2]) {
            connection.activity.idle_since_ms.store(since, Ordering::Relaxed);
        }
        let begin = || opened[0].activity.begin_request(Version::HTTP_11);
        let busy = [begin(), begin()];
        assert_eq!(connections.count_idle(), 2);
        assert_eq!(connections.close_idle(), 1);
        let is_closing = |index: usize| {
            opened[index].activity.take_orders(Waker::noop()).has(Order::CloseIfIdle)
        };
        assert_eq!([0, 1, 2].map(is_closing), [false, false, true]);
        drop(busy);
        assert_eq!(connections.count_idle(), 3);
        drop(opened);
        assert_eq!(connections.close_idle(), 0);
    }
}
