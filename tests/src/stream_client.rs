//! A live stream of an inbox over one of the three transports, read with third-party clients.

use std::time::Duration;

use eventsource_stream::Eventsource;
use futures_util::{SinkExt, Stream, StreamExt, stream::BoxStream};
use reqwest::Client;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::{Error, Message};

use crate::until::DEADLINE;

/// The protocol of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// Server-Sent Events.
    Sse,
    /// JSON lines.
    Ndjson,
    /// A WebSocket.
    WebSocket,
}

impl Transport {
    /// All transports.
    pub const ALL: [Self; 3] = [Self::Sse, Self::Ndjson, Self::WebSocket];
}

/// An open stream. Each event is `{"event":…,"cursor":…,"data":…}`.
pub struct StreamClient {
    events: BoxStream<'static, Value>,
    to_server: Option<mpsc::Sender<Value>>,
    /// The cursor of the last event.
    pub cursor: Option<String>,
}

impl StreamClient {
    /// Opens the stream at `{base}/notifications/{user}/…?{query}`.
    ///
    /// # Errors
    /// Status and body, if the server refuses the stream.
    pub async fn open(
        transport: Transport,
        base: &str,
        user: i64,
        query: &str,
    ) -> Result<Self, (u16, String)> {
        let (events, to_server) = match transport {
            Transport::Sse => {
                let events =
                    open_http_stream(base, user, query, "text/event-stream").await?.eventsource();
                let events = events.map(|event| event.expect("an event")).map(|event| {
                    let data: Value = serde_json::from_str(&event.data).expect("JSON");
                    json!({ "event": event.event, "cursor": event.id, "data": data })
                });
                (events.boxed(), None)
            }
            Transport::Ndjson => {
                let bytes = open_http_stream(base, user, query, "application/x-ndjson").await?;
                (parse_lines(bytes).boxed(), None)
            }
            Transport::WebSocket => {
                let base = base.replace("http://", "ws://");
                let url = format!("{base}/notifications/{user}/ws?{query}");
                let opened = tokio_tungstenite::connect_async(url).await;
                let (mut socket, _) = opened.map_err(|error| match error {
                    Error::Http(answer) => (answer.status().as_u16(), String::new()),
                    error => (0, error.to_string()),
                })?;
                let (to_server, mut said) = mpsc::channel::<Value>(8);
                let (events, received) = mpsc::channel(1024);
                tokio::spawn(async move {
                    loop {
                        tokio::select! {
                            message = socket.next() => match message {
                                Some(Ok(Message::Text(text))) => {
                                    let event = serde_json::from_str(&text).expect("JSON");
                                    if events.send(event).await.is_err() { return }
                                }
                                Some(Ok(_)) => {}
                                Some(Err(_)) | None => return,
                            },
                            message = said.recv() => {
                                let Some(message) = message else { return };
                                let text = Message::text(message.to_string());
                                if socket.send(text).await.is_err() { return }
                            }
                        }
                    }
                });
                let received = futures_util::stream::unfold(received, async |mut received| {
                    received.recv().await.map(|event| (event, received))
                });
                (received.boxed(), Some(to_server))
            }
        };
        Ok(Self { events, to_server, cursor: None })
    }

    /// The next event, without heartbeats; `None` at the end of the stream.
    pub async fn next_event(&mut self) -> Option<Value> {
        loop {
            let next = tokio::time::timeout(DEADLINE, self.events.next());
            let event = next.await.expect("an event within the deadline")?;
            if let Some(cursor) = event["cursor"].as_str().filter(|cursor| !cursor.is_empty()) {
                self.cursor = Some(cursor.to_owned());
            }
            if event["event"] != "heartbeat" {
                return Some(event);
            }
        }
    }

    /// The data of the next event, which must have this name.
    pub async fn expect_event(&mut self, name: &str) -> Value {
        let event = self.next_event().await.expect("not the end");
        assert_eq!(event["event"], name, "{event}");
        event["data"].clone()
    }

    /// The messages of the next `count` notifications.
    pub async fn next_messages(&mut self, count: usize) -> Vec<String> {
        let mut messages = Vec::new();
        while messages.len() < count {
            let data = self.expect_event("notification").await;
            messages.push(data["message"].as_str().expect("a message").to_owned());
        }
        messages
    }

    /// Returns true if no event but heartbeats comes for this long.
    pub async fn is_silent(&mut self, time: Duration) -> bool {
        tokio::time::timeout(time, self.next_event()).await.is_err()
    }

    /// Sends a command over the WebSocket.
    pub async fn send_command(&self, message: Value) {
        self.to_server.as_ref().expect("a WebSocket").send(message).await.expect("an open socket");
    }
}

async fn open_http_stream(
    base: &str,
    user: i64,
    query: &str,
    accept: &str,
) -> Result<impl Stream<Item = reqwest::Result<impl AsRef<[u8]> + use<>>> + use<>, (u16, String)> {
    let url = format!("{base}/notifications/{user}/stream?{query}");
    let request = Client::new().get(url).header("accept", accept);
    let response = request.send().await.expect("an answer");
    let status = response.status().as_u16();
    if status != 200 {
        return Err((status, response.text().await.unwrap_or_default()));
    }
    assert_eq!(response.headers()["content-type"], accept);
    // An `EventSource` gets a refusal as a stream that ends at once.
    if response.content_length().is_some() {
        let text = response.text().await.unwrap_or_default();
        let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap_or_default();
        let end: Value = serde_json::from_str(data).expect("the data of the end");
        let status =
            end["problem"]["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        return Err((status.expect("a status"), text));
    }
    Ok(response.bytes_stream())
}

fn parse_lines(
    bytes: impl Stream<Item = reqwest::Result<impl AsRef<[u8]>>> + Send + 'static,
) -> impl Stream<Item = Value> + Send {
    let lines = bytes.scan(Vec::new(), |rest: &mut Vec<u8>, bytes| {
        rest.extend_from_slice(bytes.expect("bytes").as_ref());
        let end = rest.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
        let whole: Vec<u8> = rest.drain(..end).collect();
        let lines = whole.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
        let events: Vec<Value> =
            lines.map(|line| serde_json::from_slice(line).expect("JSON")).collect();
        std::future::ready(Some(events))
    });
    lines.flat_map(futures_util::stream::iter)
}
