//! `GET /notifications/{id}/ws`: a live stream over a WebSocket, on which the client can also send
//! receipts.

use std::{slice, sync::Arc, time::Duration};

use axum::{
    extract::{
        State,
        ws::{
            CloseFrame, Message, Utf8Bytes, WebSocket, WebSocketUpgrade, close_code,
            rejection::WebSocketUpgradeRejection,
        },
    },
    http::{HeaderMap, Uri},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use model::{Action, UserId};
use serde::Deserialize;
use serde_json::json;
use service::{
    auth::Caller,
    extract::{Path, Query},
    openapi::{CommonProblems, ProblemBody},
    problem::Problem,
    server::origin,
};
use tokio::time::timeout;

use super::{
    app::App,
    live::{LiveStream, write_json},
    problems::{InboxUnavailable, parse_user},
    query::{QueryParams, StartParams},
    receipts::{SelectorBody, write_receipts},
    stream::LAST_EVENT_ID,
    streams::StreamKind,
};
use crate::view::feed::{EndReason, FeedEvent};

/// Bound of a client's message: 1000 ids take about 40 KiB.
const MAX_MESSAGE_BYTES: usize = 64 << 10;
/// The library's default is 128 KiB. A receipt of a few ids fits; each socket keeps the buffer.
const READ_BUFFER_BYTES: usize = 512;
const SEND_TIMEOUT: Duration = Duration::from_secs(30);
/// Time for the client to read why its connection is closed. Closing at once would reset the
/// connection while more of the message arrives, and the reset could overtake the reason.
const CLOSE_LINGER: Duration = Duration::from_secs(1);

/// A client's message: `{"read":{"ids":["…"]}}`, `{"unread":{"through":"3-7-5f3a9c01"}}`, `{"dismiss":{}}`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "lowercase")]
enum SocketCommand {
    Read(SelectorBody),
    Unread(SelectorBody),
    Dismiss(SelectorBody),
}

/// Follow an inbox over a WebSocket
///
/// Each event is a message, `{"event":…,"cursor":…,"data":…}`. The client sends receipts as
/// `{"read":{"ids":["…"]}}`, and likewise with `unread` and `dismiss`.
#[utoipa::path(get, path = "/notifications/{id}/ws", tag = "inbox", operation_id = "socket",
    params(("id" = i64, Path, description = "The user", minimum = 1), StartParams,
        ("Last-Event-ID" = Option<String>, Header, description = "As for the stream")),
    responses(
        CommonProblems, InboxUnavailable,
        (status = 101, description = "The connection is a WebSocket"),
        (status = 403, description = "The token lacks the permission, or the request comes from a page of another origin", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 426, description = "The connection cannot become a WebSocket", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 429, description = "The inbox has `--max-streams-per-user` live streams open", body = ProblemBody,
         content_type = "application/problem+json")))]
pub(super) async fn open_socket(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(raw): Query<QueryParams>,
    caller: Caller,
    uri: Uri,
    headers: HeaderMap,
    upgrade: Result<WebSocketUpgrade, WebSocketUpgradeRejection>,
) -> Result<Response, Problem> {
    let user = parse_user(&id)?;
    let start = raw.parse_start(headers.get(LAST_EVENT_ID))?;
    let upgrade = upgrade.map_err(|error| {
        Problem::new(error.status(), format!("This address is for WebSockets: {error}"))
    })?;
    check_same_origin(&headers, &uri)?;
    let live = LiveStream::open_feed(&app, user, start, &caller, StreamKind::Socket).await?;
    let sockets = app.streams.sockets.clone();
    let upgrade = upgrade
        .max_message_size(MAX_MESSAGE_BYTES)
        .max_frame_size(MAX_MESSAGE_BYTES)
        .read_buffer_size(READ_BUFFER_BYTES);
    Ok(upgrade
        .on_upgrade(move |socket| sockets.track_future(serve_socket(app, user, live, socket)))
        .into_response())
}

/// Refuses pages of other origins with 403: browsers let any page open a WebSocket to any host
/// (RFC 6455 §10.2).
pub(super) fn check_same_origin(headers: &HeaderMap, uri: &Uri) -> Result<(), Problem> {
    if origin::is_own(headers, uri) { Ok(()) } else { Err(origin::foreign_origin()) }
}

async fn serve_socket(app: Arc<App>, user: UserId, mut live: LiveStream, mut socket: WebSocket) {
    // The client's command under way resolves to its reply.
    let mut reply: Option<BoxFuture<'static, String>> = None;
    loop {
        tokio::select! {
            events = live.next_events() => {
                let Some(events) = events else { return };
                for event in events {
                    let json = live.render(slice::from_ref(&event), "ws", write_json);
                    if !send_event(&mut socket, json, &event).await {
                        return;
                    }
                }
            }
            Some(text) = async { Some(reply.as_mut()?.await) } => {
                reply = None;
                if !send_message(&mut socket, Message::Text(text.into())).await {
                    return;
                }
            }
            // One command at a time: the next message is not read before the reply is sent.
            message = socket.recv(), if reply.is_none() => match message {
                // The next turn sends the end.
                Some(Ok(Message::Text(_))) if live.check_token().is_err() => {}
                Some(Ok(Message::Text(text))) => {
                    let app = app.clone();
                    reply = Some(async move { run_command(&app, user, &text).await }.boxed());
                }
                Some(Ok(Message::Binary(_))) => {
                    send_close(&mut socket, close_code::UNSUPPORTED, "only text messages are supported").await;
                    return;
                }
                // The library answers pings.
                Some(Ok(Message::Ping(_) | Message::Pong(_))) => {}
                Some(Err(error)) => {
                    if let Some((code, reason)) = close_reason(error) {
                        send_close(&mut socket, code, reason).await;
                        tokio::time::sleep(CLOSE_LINGER).await;
                    }
                    return;
                }
                Some(Ok(Message::Close(_))) | None => return,
            }
        }
    }
}

/// Sends an event, and after the last one the closing frame. Returns false if the socket is done.
async fn send_event(socket: &mut WebSocket, json: Bytes, event: &FeedEvent) -> bool {
    let Ok(json) = Utf8Bytes::try_from(json) else { return false };
    if !send_message(socket, Message::Text(json)).await {
        return false;
    }
    let FeedEvent::End(reason) = event else { return true };
    let (code, reason) = match reason {
        EndReason::Moved => (close_code::RESTART, "moved"),
        EndReason::Shutdown => (close_code::AWAY, "shutdown"),
        EndReason::Expired => (close_code::POLICY, "expired"),
        EndReason::Revoked => (close_code::POLICY, "revoked"),
    };
    send_close(socket, code, reason).await;
    false
}

/// How to close after this error (RFC 6455 §7.4.1); `None` if the connection itself is gone.
fn close_reason(error: axum::Error) -> Option<(u16, &'static str)> {
    let error = error.into_inner();
    Some(match error.downcast_ref()? {
        tungstenite::Error::Capacity(_) => (close_code::SIZE, "a message has at most 64 KiB"),
        tungstenite::Error::Utf8(_) => (close_code::INVALID, "text must be UTF-8"),
        tungstenite::Error::Protocol(_) => (close_code::PROTOCOL, "not the WebSocket protocol"),
        _ => return None,
    })
}

/// Returns false if the client is gone, or does not read in time.
async fn send_message(socket: &mut WebSocket, message: Message) -> bool {
    matches!(timeout(SEND_TIMEOUT, socket.send(message)).await, Ok(Ok(())))
}

async fn send_close(socket: &mut WebSocket, code: u16, reason: &'static str) {
    send_message(socket, Message::Close(Some(CloseFrame { code, reason: reason.into() }))).await;
}

/// Runs a client's command. The reply is `{"event":"done","data":{"changed":1,…}}`, or
/// `{"event":"error","data":{…}}` with a problem's body.
async fn run_command(app: &App, user: UserId, text: &str) -> String {
    let result = async {
        let (action, selector) = parse_command(text)?;
        let selector = selector.into_selector(app.view.home_partition(user))?;
        write_receipts(app, user, action, &selector).await
    };
    match result.await {
        Ok(result) => {
            let data = serde_json::to_string(&result).unwrap_or_default();
            format!("{{\"event\":\"done\",\"data\":{data}}}")
        }
        Err(problem) => json!({ "event": "error", "data": problem }).to_string(),
    }
}

fn parse_command(text: &str) -> Result<(Action, SelectorBody), Problem> {
    let command: SocketCommand = serde_json::from_str(text).map_err(|error| {
        let expected = r#"{"read":{"ids":["…"]}}, {"read":{"through":"3-1042-5f3a9c01"}} or {"read":{}}; or unread, or dismiss, in place of read"#;
        Problem::bad_request("message", format!("must be {expected}: {error}"))
    })?;
    Ok(match command {
        SocketCommand::Read(selector) => (Action::Read, selector),
        SocketCommand::Unread(selector) => (Action::Unread, selector),
        SocketCommand::Dismiss(selector) => (Action::Dismissed, selector),
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
            match parse_command(&message) {
                Err(problem) => prop_assert_eq!(problem.status().as_u16(), 400),
                Ok((_, chosen)) => {
                    // The selection is an object within the command's object.
                    prop_assert!(message.matches('{').count() >= 2, "{} is {:?}", message, chosen);
                }
            }
        }
    }
}
