//! `GET /notifications/{id}/stream`: a live stream as Server-Sent Events
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>), or as JSON lines if the client
//! accepts `application/x-ndjson`.

use std::{convert::Infallible, fmt::Write as _, sync::Arc};

use axum::{
    Extension,
    body::Body,
    extract::State,
    http::{
        HeaderMap, HeaderName, HeaderValue,
        header::{ACCEPT, CACHE_CONTROL, CONTENT_TYPE},
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
    app::App,
    live::{LiveStream, write_json},
    problems::{InboxUnavailable, parse_user},
    query::{QueryParams, StartParams},
    streams::StreamKind,
};
use crate::view::feed::FeedEvent;

/// The last `id` that an `EventSource` received before it reconnects.
pub(super) const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");
const NDJSON: &str = "application/x-ndjson";
/// Reconnection delay of an `EventSource`, in milliseconds. Browsers default to seconds.
const RETRY_FIELD: &str = "retry: 500\n";

/// Follow an inbox live
///
/// Server-Sent Events, or JSON lines if the client accepts `application/x-ndjson`: `state` first, then
/// `notification`, `receipt`, `gap`, `heartbeat`, `end`.
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
    let begin = if framing == Framing::Sse { RETRY_FIELD } else { "" };
    let chunks = stream::unfold((live, begin), move |(mut live, begin)| async move {
        let events = live.next_events().await?;
        let mut text = begin.to_owned();
        for event in &events {
            framing.write_event(event, &mut text);
        }
        Some((Ok::<_, Infallible>(Bytes::from(text)), (live, "")))
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
    /// Lines if the client accepts them and does not name `text/event-stream`, otherwise SSE.
    fn from_accept(headers: &HeaderMap) -> Self {
        let names = |wanted: &str| {
            let values = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
            let mut types = values.flat_map(|value| value.split(','));
            types.any(|one| one.split(';').next().is_some_and(|one| one.trim() == wanted))
        };
        if names(NDJSON) && !names("text/event-stream") { Self::Lines } else { Self::Sse }
    }

    fn media_type(self) -> &'static str {
        match self {
            Self::Sse => "text/event-stream",
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
    fn what_the_client_accepts_decides_the_framing() {
        for (accept, framing) in [
            (None, Framing::Sse),
            (Some("*/*"), Framing::Sse),
            (Some("text/event-stream"), Framing::Sse),
            (Some("application/x-ndjson"), Framing::Lines),
            (Some("application/json, application/x-ndjson;q=0.9"), Framing::Lines),
            (Some("application/x-ndjson, text/event-stream"), Framing::Sse),
        ] {
            let mut headers = HeaderMap::new();
            if let Some(accept) = accept {
                headers.insert(ACCEPT, HeaderValue::from_static(accept));
            }
            assert_eq!(Framing::from_accept(&headers), framing, "{accept:?}");
        }
    }

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
