//! `GET /notifications/{id}/ws`: a live stream over a WebSocket, on which the recipient can also
//! say what they did.

use std::{future::pending, pin::Pin, sync::Arc, time::Duration};

use axum::{
    extract::{
        State,
        ws::{
            CloseFrame, Message, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::{
        HeaderMap, HeaderName, HeaderValue, Uri,
        header::{self, CONNECTION},
    },
    response::{IntoResponse, Response},
};
use model::{Action, UserId};
use serde::Deserialize;
use serde_json::json;
use service::{
    auth::Caller,
    extract::{Path, Query},
    openapi::{ProblemBody, Refused},
    problem::Problem,
    server::origin,
};
use tokio::time::timeout;

use super::{
    App,
    live::{Kind, Live, write_json},
    problems::user,
    query::{QueryParams, StartParams},
    receipts::{Chosen, record},
    stream::LAST_EVENT_ID,
};
use crate::view::feed::{Ended, Event};

/// The longest message that a client may send, in bytes: 1000 ids have about 40 KiB.
const MAX_MESSAGE: usize = 64 << 10;
/// Allocated for each socket at once; the library's own choice is 128 KiB.
const READ_BUFFER: usize = 2 << 10;
/// How long a client may take to read what was sent to it.
const SEND: Duration = Duration::from_secs(30);

/// What a client may say: `{"read":{"ids":["…"]}}`, `{"unread":{"through":"3-7"}}`,
/// `{"dismiss":{}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Command {
    Read(Chosen),
    Unread(Chosen),
    Dismiss(Chosen),
}

/// The same over a WebSocket
///
/// Each event is a message, `{"event":…,"cursor":…,"data":…}`; `{"read":{"ids":["…"]}}`, and so on
/// with `unread` and `dismiss`, say what the recipient did.
#[utoipa::path(get, path = "/notifications/{id}/ws", tag = "inbox", operation_id = "socket",
    params(("id" = i64, Path, description = "The user", minimum = 1), StartParams,
        ("Last-Event-ID" = Option<String>, Header, description = "As for the stream")),
    responses(
        (status = 101, description = "It is a WebSocket now"),
        (status = 403, description = "A page of another origin asked", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 426, description = "The connection cannot become a WebSocket", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 429, description = "The inbox has too many streams open", body = ProblemBody,
         content_type = "application/problem+json"),
        Refused))]
pub(super) async fn open(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(raw): Query<QueryParams>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let user = user(&id)?;
    let start = raw.start(headers.get(LAST_EVENT_ID))?;
    let upgrade = upgrade.map_err(|error| {
        Problem::new(error.status(), format!("This address is for WebSockets: {error}"))
    })?;
    same_origin(&headers, &uri)?;
    let live = Live::open(&app, user, start, &caller, Kind::Socket).await?;
    let sockets = app.streams.sockets.clone();
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE)
        .max_frame_size(MAX_MESSAGE)
        .read_buffer_size(READ_BUFFER);
    Ok(upgrade
        .on_upgrade(move |socket| sockets.track_future(serve(app, user, live, socket)))
        .into_response())
}

/// The headers by which HTTP/1.1 becomes a WebSocket, on the way to an owner and back.
pub(super) const UPGRADE: [(HeaderName, HeaderValue); 2] = [
    (CONNECTION, HeaderValue::from_static("upgrade")),
    (header::UPGRADE, HeaderValue::from_static("websocket")),
];

/// Whether a request with these headers wants to become a WebSocket.
pub(super) fn is_asked_for(headers: &HeaderMap) -> bool {
    let wanted = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    wanted.is_some_and(|wanted| wanted.eq_ignore_ascii_case(b"websocket"))
}

/// A browser lets any page open a WebSocket to anywhere (RFC 6455, section 10.2); only our own
/// pages may.
pub(super) fn same_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    if origin::is_own(headers, uri) { Ok(()) } else { Err(origin::foreign()) }
}

/// Something that a client asked for and that is under way.
type Answer = Pin<Box<dyn Future<Output = String> + Send>>;

async fn serve(app: Arc<App>, user: UserId, mut live: Live, mut socket: WebSocket) {
    let mut answer: Option<Answer> = None;
    loop {
        tokio::select! {
            events = live.next() => {
                let Some(events) = events else { return };
                for event in events {
                    if !tell(&mut socket, &event).await {
                        return;
                    }
                }
            }
            said = async { match &mut answer {
                Some(answer) => answer.await,
                None => pending().await,
            }} => {
                answer = None;
                if !send(&mut socket, Message::Text(said.into())).await {
                    return;
                }
            }
            // One thing at a time: who asks for more than is done is not read from.
            message = socket.recv(), if answer.is_none() => match message {
                Some(Ok(Message::Text(text))) => {
                    let app = app.clone();
                    answer = Some(Box::pin(async move { obey(&app, user, &text).await }));
                }
                Some(Ok(Message::Binary(_))) => {
                    close(&mut socket, close_code::UNSUPPORTED, "only text is understood").await;
                    return;
                }
                // Pings are answered for us.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Ok(Message::Close(_)) | Err(_)) | None => return,
            }
        }
    }
}

/// Sends an event, and the goodbye that follows from it. False: it is over.
async fn tell(socket: &mut WebSocket, event: &Event) -> bool {
    let mut json = String::new();
    write_json(event, &mut json);
    if !send(socket, Message::Text(json.into())).await {
        return false;
    }
    let Event::End(ended) = event else { return true };
    match ended {
        Ended::Moved => close(socket, close_code::RESTART, "moved").await,
        Ended::Shutdown => close(socket, close_code::AWAY, "shutdown").await,
        Ended::Expired => close(socket, close_code::POLICY, "expired").await,
    }
    false
}

/// False: the client is gone, or does not read.
async fn send(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SEND, socket.send(message)).await, Ok(Ok(())))
}

async fn close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    send(socket, Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
}

/// Does what a client asks for: `{"event":"done","data":{"changed":1,…}}`, or
/// `{"event":"error","data":{…}}` with a problem's body.
async fn obey(app: &App, user: UserId, text: &str) -> String {
    let done = async {
        let (action, chosen) = said(text)?;
        record(app, user, action, &chosen.which(app.view.home(user))?).await
    };
    match done.await {
        Ok(done) => format!("{{\"event\":\"done\",\"data\":{}}}", done.to_json()),
        Err(problem) => json!({ "event": "error", "data": problem }).to_string(),
    }
}

/// What a client says.
fn said(text: &str) -> Result<(Action, Chosen), Problem> {
    let command: Command = serde_json::from_str(text).map_err(|error| {
        let expected = r#"{"read":{"ids":["…"]}}, {"read":{"through":"3-1042"}} or {"read":{}}; or unread, or dismiss, in place of read"#;
        Problem::bad_request("message", format!("must be {expected}: {error}"))
    })?;
    Ok(match command {
        Command::Read(chosen) => (Action::Read, chosen),
        Command::Unread(chosen) => (Action::Unread, chosen),
        Command::Dismiss(chosen) => (Action::Dismissed, chosen),
    })
}

#[cfg(test)]
mod fuzz {
    use inputs::{mutated_text, text};
    use proptest::{prelude::*, sample::select};

    use super::{super::receipts::fuzz::chosen, *};

    proptest! {
        #[test]
        fn a_message_is_refused_or_chooses_what_it_says(
            message in prop_oneof![
                1 => text(),
                6 => mutated_text((select(&["read", "unread", "dismiss", "x"][..]), chosen()).prop_map(
                    |(action, chosen)| format!("{{\"{action}\":{}}}", String::from_utf8_lossy(&chosen)),
                )),
            ],
        ) {
            match said(&message) {
                Err(problem) => prop_assert_eq!(problem.status().as_u16(), 400),
                Ok((_, chosen)) => {
                    // An object within an object, or nothing was chosen.
                    prop_assert!(message.matches('{').count() >= 2, "{} is {:?}", message, chosen);
                }
            }
        }
    }
}
