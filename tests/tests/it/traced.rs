//! One notification's trace, over both services, at a collector.

use axum::{Router, body::Bytes, extract::State, routing::post};
use e2e::{process::Standalone, until};
use serde_json::json;
use tokio::{net::TcpListener, sync::mpsc};

const TRACE: [u8; 16] = [
    0x4b, 0xf9, 0x2f, 0x35, 0x77, 0xb3, 0x4d, 0xa6, 0xa3, 0xce, 0x92, 0x9d, 0x0e, 0x0e, 0x47, 0x36,
];

#[tokio::test(flavor = "multi_thread")]
async fn a_trace_goes_on_from_the_sender_through_the_log_to_the_view() {
    // A collector. Posted protocol buffers contain texts and ids as plain bytes.
    let (exports, mut exported) = mpsc::unbounded_channel::<Bytes>();
    let collect = async |State(exports): State<mpsc::UnboundedSender<Bytes>>, body: Bytes| {
        let _ = exports.send(body);
    };
    let collector = Router::new().route("/v1/traces", post(collect)).with_state(exports);
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    tokio::spawn(async move { axum::serve(listener, collector).await });

    let folder = tempfile::tempdir().expect("a folder");
    let flags = ["--otlp-endpoint", &url, "--trace-ratio", "0"];
    let standalone = Standalone::start_with(folder.path(), &flags).await;
    let send = async |traceparent: &str| {
        until(|| async {
            let url = format!("{}/send", standalone.producer);
            let body = json!({ "from_id": 2, "to_id": 1, "message": "hello" });
            let request = reqwest::Client::new().post(url).json(&body);
            let status = request.header("traceparent", traceparent).send().await;
            let status = status.expect("an answer").status().as_u16();
            if status == 200 { Ok(()) } else { Err(status) }
        })
        .await;
    };
    // One sampled trace, and one that is not sampled.
    send("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").await;
    send("00-5bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00").await;
    // The shutdown flushes the remaining spans.
    assert!(standalone.interrupt().await);
    let mut all = Vec::new();
    while let Ok(export) = exported.try_recv() {
        all.extend_from_slice(&export);
    }
    let times = |bytes: &[u8]| all.windows(bytes.len()).filter(|window| *window == bytes).count();
    assert!(times(b"POST /send") >= 1, "the producer's part");
    assert_eq!(times(b"notifications process"), 1, "the view's part");
    assert!(times(&TRACE) >= 2, "both are of the sender's trace");
    let mut other = TRACE;
    other[0] = 0x5b;
    assert_eq!(times(&other), 0, "what is not to be recorded is not");
}
