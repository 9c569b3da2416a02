//! `GET /notifications/{id}/stream`: a live stream as Server-Sent Events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), or as JSON lines if the client
//! accepts `application/x-ndjson`.

use std::{
    convert::Infallible,
    fmt::Write as _,
    ops::Range,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::Stream;
use service::{
    auth::Caller,
    extract::{Path, Query},
    openapi::{CommonProblems, ProblemBody},
    problem::Problem,
    server::detached::StreamingResponse,
};

use super::{
    accept,
    app::App,
    jitter::jittered,
    live::{LiveStream, write_json},
    problems::{InboxUnavailable, parse_user},
    query::{QueryParams, StartParams},
    streams::StreamKind,
};
use crate::view::feed::FeedEvent;

/// The last `id` that an `EventSource` received before it reconnects.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NDJSON: &str = "application/x-ndjson";
pub(super) const EVENT_STREAM: &str = "text/event-stream";
pub(super) const STREAM_PATH: &str = "/notifications/{id}/stream";
/// Reconnection delay of an `EventSource`. Browsers default to seconds. Each stream has its own,
/// because thousands may be cut off at one moment.
const RETRY_DELAYS: Range<Duration> = Duration::from_millis(500)..Duration::from_secs(3);

/// Follow an inbox live
///
/// Server-Sent Events, or JSON lines if the client accepts `application/x-ndjson`: `state` first, then
/// `notification`, `receipt`, `gap`, `heartbeat`, `end`. For a client that names `text/event-stream` in
/// `Accept`, as an `EventSource` does, 429 and 503 are a 200 with `retry` and `end` (`reason` is
/// `unavailable`, `problem` the error), because an `EventSource` does not come back after another
/// status.
#[utoipa::path(get, path = "/notifications/{id}/stream", tag = "inbox", operation_id = "stream",
    params(("id" = i64, Path, description = "The user", minimum = 1), StartParams,
        ("Last-Event-ID" = Option<String>, Header,
         description = "The last cursor that the client received; takes precedence over `since`")),
    responses(
        CommonProblems, InboxUnavailable,
        (status = 200, description = "Events, until either side ends the stream", content(
            (String = "text/event-stream"), (String = "application/x-ndjson"))),
        (status = 429, description = "The inbox has `--max-streams-per-user` live streams open", body = ProblemBody,
         content_type = "application/problem+json")))]
pub(super) async fn open_stream(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(raw): Query<QueryParams>,
    caller: Caller,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = parse_user(&id)?;
    let start = raw.parse_start(headers.get(LAST_EVENT_ID))?;
    let framing = Framing::from_accept(&headers);
    let kind = if framing == Framing::Sse { StreamKind::Sse } else { StreamKind::Ndjson };
    let live = LiveStream::open_feed(&app, user, start, &caller, kind).await?;
    // Sent before the first event, so that it applies however the stream ends.
    let begin = (framing == Framing::Sse).then(|| jittered(RETRY_DELAYS));
    let chunks = EventChunks { live, framing, begin };
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(framing.media_type())),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Turns off nginx's response buffering, which would delay the events.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((Extension(StreamingResponse), headers, Body::from_stream(chunks)).into_response())
}

/// A stream's body.
struct EventChunks {
    live: LiveStream,
    framing: Framing,
    /// The reconnection delay, before the first events.
    begin: Option<Duration>,
}

impl Stream for EventChunks {
    type Item = Result<Bytes, Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(events) = ready!(self.live.poll_events(cx)) else { return Poll::Ready(None) };
        let framing = self.framing;
        if let Some(delay) = self.begin.take() {
            let mut text = format!("retry: {}\n", delay.as_millis());
            events.iter().for_each(|event| framing.write_event(event, &mut text));
            return Poll::Ready(Some(Ok(text.into())));
        }
        let write = |event: &FeedEvent, text: &mut String| framing.write_event(event, text);
        Poll::Ready(Some(Ok(self.live.render(&events, framing.media_type(), write))))
    }
}

pub(super) fn is_event_stream(headers: &HeaderMap) -> bool {
    let types = [Framing::Sse, Framing::Lines].map(Framing::media_type);
    headers.get(CONTENT_TYPE).is_some_and(|found| types.iter().any(|known| found == known))
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Sse,
    Lines,
}

impl Framing {
    /// Lines if the client prefers them, otherwise SSE.
    fn from_accept(headers: &HeaderMap) -> Self {
        if accept::prefers(headers, NDJSON, EVENT_STREAM) { Self::Lines } else { Self::Sse }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Sse => EVENT_STREAM,
            Self::Lines => NDJSON,
        }
    }

    fn write_event(self, event: &FeedEvent, text: &mut String) {
        match self {
            Self::Lines => {
                write_json(event, text);
                text.push('\n');
            }
            Self::Sse => {
                if let Some(cursor) = event.cursor() {
                    let _ = writeln!(text, "id: {cursor}");
                }
                // An `EventSource` remembers an id without data and dispatches no event, so scripts
                // do not see heartbeats.
                if event.has_data() {
                    let _ = write!(text, "event: {}\ndata: ", event.name());
                    event.write_data(text);
                    text.push('\n');
                }
                text.push('\n');
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Cursor;

    #[test]
    fn a_heartbeat_is_an_id_that_no_script_sees() {
        let heartbeat = FeedEvent::Heartbeat(Cursor::new(3, 7));
        let (mut sse, mut line) = (String::new(), String::new());
        Framing::Sse.write_event(&heartbeat, &mut sse);
        Framing::Lines.write_event(&heartbeat, &mut line);
        assert_eq!(sse, "id: 3-7\n\n");
        assert_eq!(line, "{\"event\":\"heartbeat\",\"cursor\":\"3-7\"}\n");
    }
}
