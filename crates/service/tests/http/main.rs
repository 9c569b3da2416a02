//! The server as its clients meet it: over TCP, with small limits where a limit is the subject.

mod errors;
mod limits;
mod serving;
mod streaming;
mod counting;

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    routing::{get, post},
};
use bytes::Bytes;
use hyper_util::{client::legacy::Client, rt::TokioExecutor};
use serde_json::{Value, json};
use service::{
    Problem, extract,
    ops::health,
    ops::health::Health,
    ops::metrics::{Metrics, Scrape},
    server::detached::StreamingResponse,
    server::listen,
    server::{
        http::{add_layers, serve_app},
        limits::HttpLimits,
    },
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::{Semaphore, mpsc},
    task::JoinHandle,
    time::timeout,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt as _;

/// Longer than anything here takes: a test that runs into it has failed.
const FAR: Duration = Duration::from_secs(60);
/// A limit that is reached at once.
const NEAR: Duration = Duration::from_millis(30);

struct Server {
    address: SocketAddr,
    shutdown: CancellationToken,
    ended: JoinHandle<()>,
}

impl Server {
    async fn start(app: Router, limits: HttpLimits) -> Self {
        Self::counting(app, limits, Metrics::new("test", service::ops::metrics::describe_service))
            .await
    }

    async fn counting(app: Router, limits: HttpLimits, metrics: Metrics) -> Self {
        let listener = listen::bind_listener("test", "127.0.0.1:0", "--listen", "LISTEN")
            .await
            .expect("a port");
        let address = listener.local_addr().expect("an address");
        let shutdown = CancellationToken::new();
        let app = add_layers(app, &limits, &metrics);
        let ended = tokio::spawn(serve_app(listener, app, shutdown.clone(), limits, metrics));
        Self { address, shutdown, ended }
    }

    async fn connect(&self) -> Connection {
        Connection(TcpStream::connect(self.address).await.expect("a connection"))
    }

    async fn ended(self) {
        timeout(FAR, self.ended).await.expect("the server ends").expect("without a panic");
    }
}

struct Connection(TcpStream);

impl Connection {
    async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.expect("the server reads");
    }

    /// Reads until the server closes the connection.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset is an end too: the server closed before it had read everything.
        let _ = timeout(FAR, self.0.read_to_end(&mut bytes)).await.expect("the server closes");
        String::from_utf8(bytes).expect("text")
    }

    /// Reads until the response ends with this text.
    async fn until(&mut self, end: &str) -> String {
        let mut bytes = Vec::new();
        while !bytes.ends_with(end.as_bytes()) {
            let byte = timeout(FAR, self.0.read_u8()).await.expect("an answer").expect("more");
            bytes.push(byte);
        }
        String::from_utf8(bytes).expect("text")
    }
}

const GET: &str = "GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn hello() -> Router {
    Router::new().route("/", get(async || "hello"))
}

/// Answers when `release` has a permit; `started` gets one when it is asked.
fn slow(started: &Arc<Semaphore>, release: &Arc<Semaphore>) -> Router {
    let (started, release) = (Arc::clone(started), Arc::clone(release));
    Router::new().route(
        "/",
        get(async move || {
            started.add_permits(1);
            let _ = release.acquire().await;
            "done"
        }),
    )
}

async fn ask(app: &Router, request: Request) -> (StatusCode, HeaderMap, Value) {
    let response = app.clone().oneshot(request).await.expect("infallible");
    let (status, headers) = (response.status(), response.headers().clone());
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    (status, headers, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

fn request(method: &str, path: &str, body: &'static str) -> Request {
    let request = Request::builder().method(method).uri(path).header("host", "test");
    request.body(Body::from(body)).expect("a request")
}
