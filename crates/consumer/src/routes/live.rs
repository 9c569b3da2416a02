//! A live stream, for every transport: the feed of a user, heartbeats, the end at shutdown or at the
//! token's expiry. [`stream`](super::stream) and [`socket`](super::socket) only frame its events.

use std::{
    fmt::Write as _,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use crate::metrics::DELIVERY_SECONDS;
use axum::http::StatusCode;
use jiff::Timestamp;
use metrics::{Histogram, histogram};
use model::UserId;
use service::{auth::Caller, problem::Problem};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{App, problems::not_live};
use crate::{
    settings::StreamArgs,
    view::{
        Feed,
        feed::{EndReason, FeedEvent, OpenFeedError},
        page::FeedStart,
    },
};

/// For `Retry-After`, if a stream limit is reached.
const LIMIT_RETRY_DELAY: Duration = Duration::from_secs(5);

/// The state that all live streams of this instance share. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct LiveStreams {
    settings: StreamArgs,
    /// One permit for each stream that may be open, forwarded ones included.
    permits: Arc<Semaphore>,
    /// Number of open streams of each kind, in the order of [`StreamKind::ALL`].
    open: Arc<[AtomicUsize; 5]>,
    /// Time from a notification's timestamp until it is written to a stream.
    pushed: Histogram,
    /// Cancelled to end all streams.
    pub(super) stopping: CancellationToken,
    /// Tasks of upgraded connections, which the HTTP server does not wait for.
    pub(super) sockets: TaskTracker,
}

impl LiveStreams {
    /// The streams end when `stopping` is cancelled.
    #[must_use]
    pub fn new(settings: StreamArgs, stopping: CancellationToken) -> Self {
        let permits = Arc::new(Semaphore::new(settings.max_streams));
        let pushed = histogram!(DELIVERY_SECONDS, "stage" => "pushed");
        let (open, sockets) = (Arc::default(), TaskTracker::new());
        Self { settings, permits, open, pushed, stopping, sockets }
    }

    /// Acquires a permit for one more stream.
    pub(super) fn acquire_permit(&self, kind: StreamKind) -> Result<StreamPermit, Problem> {
        let permit = Arc::clone(&self.permits).try_acquire_owned().map_err(|_| {
            let message = format!("Live-stream limit reached ({})", self.settings.max_streams);
            Problem::unavailable(message, LIMIT_RETRY_DELAY)
        })?;
        self.open[kind as usize].fetch_add(1, Ordering::Relaxed);
        Ok(StreamPermit { open: Arc::clone(&self.open), kind, _permit: permit })
    }

    /// The number of open streams of this kind.
    pub(super) fn count_open(&self, kind: StreamKind) -> usize {
        self.open[kind as usize].load(Ordering::Relaxed)
    }

    /// Waits until all WebSockets are closed, for `deadline` at most.
    pub async fn drain_sockets(&self, deadline: Duration) {
        self.sockets.close();
        let _ = tokio::time::timeout(deadline, self.sockets.wait()).await;
    }
}

/// The transport of a stream.
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
    pub(super) const ALL: [Self; 5] =
        [Self::Sse, Self::Ndjson, Self::Socket, Self::Forwarded, Self::Waiting];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Socket => "ws",
            Self::Forwarded => "forwarded",
            Self::Waiting => "wait",
        }
    }
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

/// An open stream.
pub(super) struct LiveStream {
    feed: Feed,
    /// Events to deliver before the feed's own.
    opening: Vec<FeedEvent>,
    ended: bool,
    heartbeat: Duration,
    stopping: CancellationToken,
    /// When the caller's token expires.
    expires: Option<Instant>,
    pushed: Histogram,
    _permit: StreamPermit,
}

impl LiveStream {
    /// Opens a stream of this user's inbox. It ends when the caller's token expires.
    ///
    /// # Errors
    /// 429 and 503 if a limit is reached; 503 if the inbox cannot be read now.
    pub(super) async fn open_feed(
        app: &App,
        user: UserId,
        start: FeedStart,
        caller: &Caller,
        kind: StreamKind,
    ) -> Result<Self, Problem> {
        let streams = &app.streams;
        let permit = streams.acquire_permit(kind)?;
        let limit = streams.settings.max_streams_per_user;
        let opened = Feed::open(Arc::clone(&app.view), user, start, limit, app.read_timeout).await;
        let (feed, opening) = opened.map_err(|error| match error {
            OpenFeedError::NotLive(error) => not_live(&error),
            OpenFeedError::TooMany(limit) => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("Live-stream limit of this inbox reached ({limit})"),
            )
            .retry_after(LIMIT_RETRY_DELAY),
        })?;
        Ok(Self {
            feed,
            opening,
            ended: false,
            heartbeat: streams.settings.heartbeat,
            stopping: streams.stopping.clone(),
            expires: caller.expires_at(),
            pushed: streams.pushed.clone(),
            _permit: permit,
        })
    }

    /// Waits for the next events, at least one. `None` after [`FeedEvent::End`]. Cancel safe.
    pub(super) async fn next_events(&mut self) -> Option<Vec<FeedEvent>> {
        if self.ended {
            return None;
        }
        if !self.opening.is_empty() {
            return Some(std::mem::take(&mut self.opening));
        }
        let expired = || self.expires.is_some_and(|at| at <= Instant::now());
        let events = tokio::select! {
            biased;
            () = self.stopping.cancelled() => vec![FeedEvent::End(EndReason::Shutdown)],
            // Checked between events, so at the latest with the next heartbeat.
            () = std::future::ready(()), if expired() => vec![FeedEvent::End(EndReason::Expired)],
            events = self.feed.next_events() => events,
            () = tokio::time::sleep(self.heartbeat) => self.feed.heartbeat(),
        };
        self.ended = matches!(events.last(), Some(FeedEvent::End(_)));
        self.record_delivery(&events);
        Some(events)
    }

    /// Records the delivery time of notifications that arrived after the stream was opened.
    fn record_delivery(&self, events: &[FeedEvent]) {
        for event in events {
            if let FeedEvent::Notification { item, .. } = event
                && self.feed.is_new(item)
            {
                let now_ms = Timestamp::now().as_millisecond();
                let age_ms = now_ms.saturating_sub(item.sent_at_ms).max(0);
                self.pushed.record(age_ms as f64 / 1000.0);
            }
        }
    }
}

/// Appends an event as one line of JSON, without the line break:
/// `{"event":"notification","cursor":"3-1042","data":{…}}`. `cursor` and `data` are left out if the
/// event has none.
pub(super) fn write_json(event: &FeedEvent, json: &mut String) {
    let _ = write!(json, "{{\"event\":\"{}\"", event.name());
    if let Some(cursor) = event.cursor() {
        let _ = write!(json, ",\"cursor\":\"{cursor}\"");
    }
    if event.has_data() {
        json.push_str(",\"data\":");
        event.write_data(json);
    }
    json.push('}');
}
