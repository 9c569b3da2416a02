//! `GET /notifications/{id}/stream`: a live stream as Server-Sent Events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), or as JSON lines if the client
//! accepts `application/x-ndjson`.

use std::{convert::Infallible, fmt::Write as _, ops::Range, sync::Arc, time::Duration};

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
use futures_util::stream;
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
    let begin = match framing {
        Framing::Sse => format!("retry: {}\n", jittered(RETRY_DELAYS).as_millis()),
        Framing::Lines => String::new(),
    };
    let chunks = stream::unfold((live, begin), move |(mut live, begin)| async move {
        let events = live.next_events().await?;
        let mut text = begin;
        for event in &events {
            framing.write_event(event, &mut text);
        }
        Some((Ok::<_, Infallible>(Bytes::from(text)), (live, String::new())))
    });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(framing.media_type())),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
        // Turns off nginx's response buffering, which would delay the events.
        (HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no")),
    ];
    Ok((Extension(StreamingResponse), headers, Body::from_stream(chunks)).into_response())
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
