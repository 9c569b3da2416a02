//! What a WebSocket's and an `EventSource`'s client is told when it goes too far.

use std::time::Duration;

use e2e::{World, stream_client::StreamClient, stream_client::Transport, until};
use futures_util::{SinkExt as _, StreamExt as _};
use serde_json::Value;
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::coding::{CloseCode, Data, OpCode},
    protocol::frame::{Frame, FrameHeader},
};

/// The code with which the server closes after this frame or message.
async fn close_code(world: &World, message: Message) -> CloseCode {
    let url = world.consumer_url("/notifications/1/ws").replace("http://", "ws://");
    let (mut socket, _) = tokio_tungstenite::connect_async(url).await.expect("a socket");
    socket.next().await.expect("an event").expect("the state");
    // The server may close before it has read everything.
    let _ = socket.send(message).await;
    let closed = async {
        loop {
            match socket.next().await {
                Some(Ok(Message::Close(Some(frame)))) => return frame.code,
                Some(Ok(_)) => {}
                other => unreachable!("no close frame, but {other:?}"),
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), closed).await.expect("a close frame in time")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_socket_is_closed_with_the_reason_of_rfc_6455() {
    let world = World::embedded().await;
    world.await_ready(&world.consumer_url("")).await;
    let sized = |bytes: usize| Message::text("x".repeat(bytes));
    assert_eq!(close_code(&world, sized((64 << 10) + 1)).await, CloseCode::Size);
    assert_eq!(close_code(&world, sized(1 << 20)).await, CloseCode::Size);
    assert_eq!(close_code(&world, Message::binary("x")).await, CloseCode::Unsupported);
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    let not_utf_8 = Message::Frame(Frame::from_payload(header, vec![0xff, 0xfe].into()));
    assert_eq!(close_code(&world, not_utf_8).await, CloseCode::Invalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_source_beyond_the_limit_is_told_when_to_come_back_and_others_get_the_status() {
    let mut world = World::embedded().await;
    world.stop_consumer(0).await;
    world.start_consumer(0, &["--max-streams", "1"]).await;
    let base = world.consumer_url("");
    world.await_ready(&base).await;
    let held = StreamClient::open(Transport::WebSocket, &base, 1, "").await;
    let held = held.expect("the only stream");
    let url = format!("{base}/notifications/2/stream");
    let ask = async |accept: &str| {
        let request = world.http().get(&url).header("accept", accept);
        request.send().await.expect("an answer")
    };
    let refused = ask("text/event-stream").await;
    assert_eq!(refused.status(), 200);
    assert_eq!(refused.headers()["content-type"], "text/event-stream");
    let text = refused.text().await.expect("a body that ends");
    let mut lines = text.lines();
    let retry_ms = lines.next().and_then(|line| line.strip_prefix("retry: "));
    let retry_ms: u64 = retry_ms.expect("a time").parse().expect("milliseconds");
    assert!((5000..=10_000).contains(&retry_ms), "{text}");
    assert_eq!(lines.next(), Some("event: end"));
    let data = lines.next().and_then(|line| line.strip_prefix("data: ")).expect("data");
    let data: Value = serde_json::from_str(data).expect("JSON");
    assert_eq!((&data["reason"], &data["problem"]["status"]), (&"unavailable".into(), &503.into()));
    for other in ["*/*", "application/x-ndjson"] {
        assert_eq!(ask(other).await.status(), 503, "{other}");
    }
    drop(held);
    until(|| async {
        match StreamClient::open(Transport::Sse, &base, 2, "").await {
            Ok(_) => Ok(()),
            Err(refusal) => Err(refusal),
        }
    })
    .await;
}
