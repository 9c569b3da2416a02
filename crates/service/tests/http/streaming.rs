//! Long-lived responses.

use super::*;

/// Says what is sent to it, until that is nothing.
fn endless(said: tokio::sync::broadcast::Sender<&'static str>) -> Router {
    Router::new().route(
        "/",
        get(async move || {
            let said = futures_util::stream::unfold(said.subscribe(), async |mut said| {
                let text = said.recv().await.ok().filter(|text| !text.is_empty())?;
                Some((Ok::<_, std::io::Error>(text), said))
            });
            (Extension(StreamingResponse), Body::from_stream(said))
        }),
    )
}

#[tokio::test]
async fn an_endless_response_is_written_as_it_comes_and_ends_with_the_connection() {
    let said = tokio::sync::broadcast::Sender::new(8);
    let server = Server::start(endless(said.clone()), HttpLimits::default()).await;
    let mut connection = server.connect().await;
    connection.send(GET).await;
    let head = connection.until("\r\n\r\n").await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("transfer-encoding: chunked\r\n"), "{head}");
    for text in ["hello", "a longer text, of more than 15 bytes"] {
        said.send(text).expect("somebody listens");
        let chunk = format!("{:x}\r\n{text}\r\n", text.len());
        assert_eq!(connection.until(text).await + &connection.until("\r\n").await, chunk);
    }
    said.send("").expect("somebody listens");
    assert_eq!(connection.rest().await, "0\r\n\r\n");
}

#[tokio::test]
async fn an_endless_response_goes_when_its_client_does_and_is_cut_at_the_drain_deadline() {
    let said = tokio::sync::broadcast::Sender::new(8);
    let limits = HttpLimits { drain_timeout: NEAR, ..HttpLimits::default() };
    let server = Server::start(endless(said.clone()), limits).await;
    let mut gone = server.connect().await;
    gone.send(GET).await;
    gone.until("\r\n\r\n").await;
    assert_eq!(said.receiver_count(), 1);
    drop(gone);
    let nobody = async {
        while said.receiver_count() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(FAR, nobody).await.expect("the body is dropped");

    // Of a HEAD there is only the head, and the connection goes on.
    let mut other = server.connect().await;
    other.send("HEAD / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    other.until("\r\n\r\n").await;
    other.send(GET).await;
    other.until("\r\n\r\n").await;
    server.shutdown.cancel();
    assert_eq!(other.rest().await, "", "cut, without the chunk that says that all is there");
    server.ended().await;
}
