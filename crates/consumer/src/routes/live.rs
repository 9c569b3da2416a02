//! A live stream, for every transport: the feed of a user, heartbeats, the end at shutdown or at the
//! token's expiry. [`stream`](super::stream) and [`socket`](super::socket) only frame its events.

use std::{
    fmt::Write as _,
    future::{Future as _, poll_fn},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use axum::http::StatusCode;
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use jiff::Timestamp;
use model::UserId;
use service::{
    auth::{Caller, TokenRefusal, TokenValidity},
    problem::Problem,
};
use tokio::time::{Sleep, sleep};

use super::{
    app::App,
    heartbeats::Heartbeats,
    problems::not_live,
    streams::{LIMIT_RETRY_DELAY, StreamKind, StreamPermit},
};
use crate::view::{
    Feed,
    feed::{EndReason, FeedEvent, OpenFeedError},
    page::FeedStart,
};

/// Bytes that an event usually takes.
const EVENT_BYTES: usize = 512;

pub(super) struct LiveStream {
    app: Arc<App>,
    feed: Feed,
    /// Events to deliver before the feed's own.
    opening: Vec<FeedEvent>,
    heartbeats: Heartbeats,
    ended: bool,
    /// When to end, and why: set once other streams end for the same reason.
    ending: Option<(Pin<Box<Sleep>>, EndReason)>,
    token: TokenValidity,
    /// Resolves once the token's key is withdrawn; `None` without a token.
    withdrawn: Option<BoxFuture<'static, ()>>,
    _permit: StreamPermit,
}

impl LiveStream {
    pub(super) async fn open_feed(
        app: &Arc<App>,
        user: UserId,
        start: FeedStart,
        caller: &Caller,
        kind: StreamKind,
    ) -> Result<Self, Problem> {
        let permit = app.streams.acquire_permit(kind)?;
        let limit = app.streams.settings.max_streams_per_user;
        let opened = Feed::open(Arc::clone(&app.view), user, start, limit, app.read_timeout).await;
        let (feed, opening) = opened.map_err(|error| match error {
            OpenFeedError::NotLive(error) => not_live(&error),
            OpenFeedError::TooMany(limit) => {
                let message = format!("Live-stream limit of this inbox reached ({limit})");
                Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(LIMIT_RETRY_DELAY)
            }
        })?;
        let token = caller.validity();
        let withdrawn = token.has_key().then(|| {
            let token = token.clone();
            async move { token.until_withdrawn().await }.boxed()
        });
        Ok(Self {
            app: Arc::clone(app),
            feed,
            opening,
            heartbeats: app.streams.join_heartbeats(),
            ended: false,
            ending: None,
            token,
            withdrawn,
            _permit: permit,
        })
    }

    /// Waits for the next events, at least one. `None` after [`FeedEvent::End`]. Cancel safe.
    pub(super) async fn next_events(&mut self) -> Option<Vec<FeedEvent>> {
        poll_fn(|cx| self.poll_events(cx)).await
    }

    /// Ready with the next events, at least one, or `None` after [`FeedEvent::End`].
    ///
    /// There are many streams, nearly all of them idle: one waits in two lists of wakers, without
    /// timers or futures of its own.
    pub(super) fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Option<Vec<FeedEvent>>> {
        if self.ended {
            return Poll::Ready(None);
        }
        if !self.opening.is_empty() {
            return Poll::Ready(Some(std::mem::take(&mut self.opening)));
        }
        if self.ending.is_none() {
            let mut events = ready!(self.poll_feed(cx));
            match events.last() {
                Some(FeedEvent::End(reason @ (EndReason::Moved | EndReason::Shutdown))) => {
                    let delay = Box::pin(sleep(self.app.streams.end_delay()));
                    self.ending = Some((delay, *reason));
                    events.pop();
                }
                Some(FeedEvent::End(_)) => self.ended = true,
                _ => {}
            }
            if !events.is_empty() {
                return Poll::Ready(Some(events));
            }
        }
        let Some((delay, reason)) = &mut self.ending else { return Poll::Ready(None) };
        ready!(delay.as_mut().poll(cx));
        self.ended = true;
        Poll::Ready(Some(vec![FeedEvent::End(*reason)]))
    }

    fn poll_feed(&mut self, cx: &mut Context<'_>) -> Poll<Vec<FeedEvent>> {
        let end = |reason| Poll::Ready(vec![FeedEvent::End(reason)]);
        if self.app.streams.stopping.is_cancelled() {
            return end(EndReason::Shutdown);
        }
        // Checked between events, so at the latest with the next heartbeat.
        match self.token.check() {
            Ok(()) => {}
            Err(TokenRefusal::Expired) => return end(EndReason::Expired),
            Err(_) => return end(EndReason::Revoked),
        }
        if let Some(withdrawn) = &mut self.withdrawn
            && withdrawn.poll_unpin(cx).is_ready()
        {
            return end(EndReason::Revoked);
        }
        let events = match self.feed.poll_events(cx) {
            Poll::Ready(events) => events,
            Poll::Pending => {
                ready!(self.heartbeats.poll_due(cx));
                if self.app.streams.stopping.is_cancelled() {
                    return end(EndReason::Shutdown);
                }
                self.feed.heartbeat()
            }
        };
        self.record_delivery(&events);
        Poll::Ready(events)
    }

    /// The bytes that `write` makes of these events in this format. Streams of one inbox share those
    /// of a single event, as nearly every one comes.
    pub(super) fn render(
        &self,
        events: &[FeedEvent],
        format: &'static str,
        write: impl Fn(&FeedEvent, &mut String),
    ) -> Bytes {
        let render = || {
            let mut text = String::with_capacity(events.len() * EVENT_BYTES);
            events.iter().for_each(|event| write(event, &mut text));
            Bytes::from(text)
        };
        match events {
            [event @ (FeedEvent::Notification { .. } | FeedEvent::Receipt { .. })] => {
                self.feed.share_rendered(event, format, render)
            }
            _ => render(),
        }
    }

    /// Checks that the caller's token is still valid.
    pub(super) fn check_token(&self) -> Result<(), TokenRefusal> {
        self.token.check()
    }

    /// Records the delivery time of notifications that arrived after the stream was opened.
    fn record_delivery(&self, events: &[FeedEvent]) {
        for event in events {
            if let FeedEvent::Notification { item, .. } = event
                && self.feed.is_new(item)
            {
                let now_ms = Timestamp::now().as_millisecond();
                let age_ms = now_ms.saturating_sub(item.sent_at_ms).max(0);
                self.app.streams.pushed.record(age_ms as f64 / 1000.0);
            }
        }
    }
}

/// Appends an event as one line of JSON, without the line break:
/// `{"event":"notification","cursor":"3-1042-5f3a9c01","data":{…}}`. `cursor` and `data` are left out if the
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
