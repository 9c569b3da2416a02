//! One live stream, whatever its transport: the feed of a user, heartbeats while nothing happens,
//! an end at shutdown. [`stream`](super::stream) and [`socket`](super::socket) only frame it.

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
        feed::{Ended, Event, OpenError, Start},
    },
};

/// How long a client that found no place is told to wait.
const FULL: Duration = Duration::from_secs(5);

/// What all live streams of this instance share. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Streams {
    settings: StreamArgs,
    /// A place for each stream that may be open, forwarded ones included.
    places: Arc<Semaphore>,
    /// How many are open of each kind, in the order of [`Kind::ALL`].
    open: Arc<[AtomicUsize; 5]>,
    /// From a notification's time to its being handed to a stream.
    pushed: Histogram,
    /// Cancelled: all of them end.
    pub(super) stopping: CancellationToken,
    /// Connections that HTTP has let go of (WebSockets), which the server does not wait for.
    pub(super) sockets: TaskTracker,
}

impl Streams {
    /// With these bounds, until `stopping` is cancelled.
    #[must_use]
    pub fn new(settings: StreamArgs, stopping: CancellationToken) -> Self {
        let places = Arc::new(Semaphore::new(settings.max_streams));
        let pushed = histogram!(DELIVERY_SECONDS, "stage" => "pushed");
        let (open, sockets) = (Arc::default(), TaskTracker::new());
        Self { settings, places, open, pushed, stopping, sockets }
    }

    /// Takes a place among the open streams.
    pub(super) fn place(&self, kind: Kind) -> Result<Place, Problem> {
        let permit = Arc::clone(&self.places).try_acquire_owned().map_err(|_| {
            let most = self.settings.max_streams;
            Problem::unavailable(
                format!("This instance has {most} live streams open, which is the most it may"),
                FULL,
            )
        })?;
        self.open[kind as usize].fetch_add(1, Ordering::Relaxed);
        Ok(Place { open: Arc::clone(&self.open), kind, _permit: permit })
    }

    /// How many are open of this kind.
    pub(super) fn open(&self, kind: Kind) -> usize {
        self.open[kind as usize].load(Ordering::Relaxed)
    }

    /// Waits until the last WebSocket has said goodbye, for at most `deadline`.
    pub async fn end(&self, deadline: Duration) {
        self.sockets.close();
        let _ = tokio::time::timeout(deadline, self.sockets.wait()).await;
    }
}

/// What carries a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Sse,
    Ndjson,
    Socket,
    /// Any of these, from its owner to its reader.
    Forwarded,
    /// None: a request that waits for news.
    Waiting,
}

impl Kind {
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

/// A place among the open streams, until it is dropped.
pub(super) struct Place {
    open: Arc<[AtomicUsize; 5]>,
    kind: Kind,
    _permit: OwnedSemaphorePermit,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.open[self.kind as usize].fetch_sub(1, Ordering::Relaxed);
    }
}

/// An open stream.
pub(super) struct Live {
    feed: Feed,
    /// What is told before the feed's own events.
    opening: Vec<Event>,
    ended: bool,
    heartbeat: Duration,
    stopping: CancellationToken,
    /// When the token that opened it is not good any more.
    expires: Option<Instant>,
    pushed: Histogram,
    _place: Place,
}

impl Live {
    /// Opens the stream of this user, where there is room for it. It ends no later than the
    /// caller's token.
    pub(super) async fn open(
        app: &App,
        user: UserId,
        start: Start,
        caller: &Caller,
        kind: Kind,
    ) -> Result<Self, Problem> {
        let streams = &app.streams;
        let place = streams.place(kind)?;
        let most = streams.settings.max_streams_per_user;
        let opened = Feed::open(Arc::clone(&app.view), user, start, most, app.patience).await;
        let (feed, opening) = opened.map_err(|error| match error {
            OpenError::NotLive(error) => not_live(&error),
            OpenError::TooMany(most) => Problem::new(
                StatusCode::TOO_MANY_REQUESTS,
                format!("This inbox has {most} live streams open here, which is the most it may"),
            )
            .retry_after(FULL),
        })?;
        Ok(Self {
            feed,
            opening,
            ended: false,
            heartbeat: streams.settings.heartbeat,
            stopping: streams.stopping.clone(),
            expires: caller.expires_at(),
            pushed: streams.pushed.clone(),
            _place: place,
        })
    }

    /// What comes next, at least one event; nothing after [`Event::End`]. Safe to drop while it
    /// waits.
    pub(super) async fn next(&mut self) -> Option<Vec<Event>> {
        if self.ended {
            return None;
        }
        if !self.opening.is_empty() {
            return Some(std::mem::take(&mut self.opening));
        }
        let expired = || self.expires.is_some_and(|at| at <= Instant::now());
        let events = tokio::select! {
            biased;
            () = self.stopping.cancelled() => vec![Event::End(Ended::Shutdown)],
            // Looked at between events, and at the latest with the next heartbeat.
            () = std::future::ready(()), if expired() => vec![Event::End(Ended::Expired)],
            events = self.feed.next() => events,
            () = tokio::time::sleep(self.heartbeat) => self.feed.heartbeat(),
        };
        self.ended = matches!(events.last(), Some(Event::End(_)));
        self.measure(&events);
        Some(events)
    }

    /// Measures how long what is new took until here, where it is handed to its transport.
    fn measure(&self, events: &[Event]) {
        for event in events {
            if let Event::Notification { item, .. } = event
                && self.feed.is_new(item)
            {
                let now_ms = Timestamp::now().as_millisecond();
                let age_ms = now_ms.saturating_sub(item.sent_at_ms).max(0);
                self.pushed.record(age_ms as f64 / 1000.0);
            }
        }
    }
}

/// Appends an event as one line of JSON, without the line's end:
/// `{"event":"notification","cursor":"3-1042","data":{…}}`; `cursor` and `data` only where there
/// is one.
pub(super) fn write_json(event: &Event, json: &mut String) {
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
