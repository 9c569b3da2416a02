//! A live stream, for every transport: the feed of a user, heartbeats, the end at shutdown or at the
//! token's expiry. [`stream`](super::stream) and [`socket`](super::socket) only frame its events.

use std::{fmt::Write as _, sync::Arc};

use axum::http::StatusCode;
use jiff::Timestamp;
use model::UserId;
use service::{
    auth::{Caller, TokenRefusal, TokenValidity},
    problem::Problem,
};
use tokio::time::Instant;

use super::{
    app::App,
    problems::not_live,
    streams::{LIMIT_RETRY_DELAY, LiveStreams, StreamKind, StreamPermit},
};
use crate::view::{
    Feed,
    feed::{EndReason, FeedEvent, OpenFeedError},
    page::FeedStart,
};

pub(super) struct LiveStream {
    feed: Feed,
    /// Events to deliver before the feed's own.
    opening: Vec<FeedEvent>,
    ended: bool,
    /// When to end, and why: set once other streams end for the same reason.
    ending: Option<(Instant, EndReason)>,
    streams: LiveStreams,
    token: TokenValidity,
    _permit: StreamPermit,
}

impl LiveStream {
    pub(super) async fn open_feed(
        app: &App,
        user: UserId,
        start: FeedStart,
        caller: &Caller,
        kind: StreamKind,
    ) -> Result<Self, Problem> {
        let streams = app.streams.clone();
        let permit = streams.acquire_permit(kind)?;
        let limit = streams.settings.max_streams_per_user;
        let opened = Feed::open(Arc::clone(&app.view), user, start, limit, app.read_timeout).await;
        let (feed, opening) = opened.map_err(|error| match error {
            OpenFeedError::NotLive(error) => not_live(&error),
            OpenFeedError::TooMany(limit) => {
                let message = format!("Live-stream limit of this inbox reached ({limit})");
                Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(LIMIT_RETRY_DELAY)
            }
        })?;
        let token = caller.validity();
        Ok(Self { feed, opening, ended: false, ending: None, streams, token, _permit: permit })
    }

    /// Waits for the next events, at least one. `None` after [`FeedEvent::End`]. Cancel safe.
    pub(super) async fn next_events(&mut self) -> Option<Vec<FeedEvent>> {
        if self.ended {
            return None;
        }
        if !self.opening.is_empty() {
            return Some(std::mem::take(&mut self.opening));
        }
        if self.ending.is_none() {
            let mut events = self.await_events().await;
            match events.last() {
                Some(FeedEvent::End(reason @ (EndReason::Moved | EndReason::Shutdown))) => {
                    self.ending = Some((Instant::now() + self.streams.end_delay(), *reason));
                    events.pop();
                }
                Some(FeedEvent::End(_)) => self.ended = true,
                _ => {}
            }
            if !events.is_empty() {
                return Some(events);
            }
        }
        let (at, reason) = self.ending?;
        tokio::time::sleep_until(at).await;
        self.ended = true;
        Some(vec![FeedEvent::End(reason)])
    }

    async fn await_events(&mut self) -> Vec<FeedEvent> {
        let refused = self.token.check().err();
        let reason = if refused == Some(TokenRefusal::Expired) {
            EndReason::Expired
        } else {
            EndReason::Revoked
        };
        let events = tokio::select! {
            biased;
            () = self.streams.stopping.cancelled() => vec![FeedEvent::End(EndReason::Shutdown)],
            // Checked between events, so at the latest with the next heartbeat.
            () = std::future::ready(()), if refused.is_some() => vec![FeedEvent::End(reason)],
            () = self.token.until_withdrawn() => vec![FeedEvent::End(EndReason::Revoked)],
            events = self.feed.next_events() => events,
            () = tokio::time::sleep(self.streams.settings.heartbeat) => self.feed.heartbeat(),
        };
        self.record_delivery(&events);
        events
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
                self.streams.pushed.record(age_ms as f64 / 1000.0);
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
