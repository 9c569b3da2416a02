//! The server as its clients meet it: over TCP, with small limits where a limit is the subject.

use std::{convert::Infallible, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Extension, Json, Router,
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Version, header},
    routing::{get, post},
};
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
    sync::Semaphore,
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

    /// What comes until the server closes the connection.
    async fn rest(&mut self) -> String {
        let mut bytes = Vec::new();
        // A reset is an end too: the server closed before it had read everything.
        let _ = timeout(FAR, self.0.read_to_end(&mut bytes)).await.expect("the server closes");
        String::from_utf8(bytes).expect("text")
    }

    /// What comes until this text.
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
    Request::builder().method(method).uri(path).body(Body::from(body)).expect("a request")
}

#[tokio::test]
async fn every_error_of_every_route_is_a_problem() {
    #[derive(serde::Deserialize)]
    struct Form {}
    let routes = Router::new()
        .route("/only-get", get(async || "hello").head(async || ()))
        .route("/body", post(async |_: extract::Body| ()))
        .route("/axum-body", post(async |_: bytes::Bytes| ()))
        .route("/axum-json", post(async |_: Json<Form>| ()))
        .route("/axum-path/{n}", get(async |_: axum::extract::Path<u8>| ()))
        .route("/panic", get(async || Json(Vec::<u8>::new()[0])))
        .route("/status", get(async || StatusCode::SERVICE_UNAVAILABLE))
        .route("/text", get(async || (StatusCode::INTERNAL_SERVER_ERROR, "password is hunter2")))
        .route("/problem", get(async || Problem::not_found("User not found")))
        .nest("/nested", Router::new().route("/x", get(async || ())));
    let app = add_layers(
        routes,
        &HttpLimits { max_body_bytes: 4, ..HttpLimits::default() },
        &Metrics::new("test", service::ops::metrics::describe_service),
    );
    for (method, path, body, status, message) in [
        ("GET", "/nowhere", "", 404, "No such route."),
        ("GET", "/nested/nowhere", "", 404, "No such route."),
        (
            "POST",
            "/only-get",
            "",
            405,
            "This route does not accept the method; see the Allow header.",
        ),
        (
            "BREW",
            "/nested/x",
            "",
            405,
            "This route does not accept the method; see the Allow header.",
        ),
        ("POST", "/body", "12345", 413, "The request body must have at most 4 bytes."),
        (
            "POST",
            "/axum-body",
            "12345",
            413,
            "Failed to buffer the request body: length limit exceeded",
        ),
        ("POST", "/axum-json", "{}", 415, "Expected request with `Content-Type: application/json`"),
        ("GET", "/axum-path/x", "", 400, "Invalid URL: Cannot parse `x` to a `u8`"),
        ("GET", "/panic", "", 500, "Internal error; your request is not at fault."),
        ("GET", "/status", "", 503, "The service is overloaded; try again."),
        ("GET", "/text", "", 500, "Internal error; your request is not at fault."),
        ("GET", "/problem", "", 404, "User not found"),
    ] {
        let (got, headers, body) = ask(&app, request(method, path, body)).await;
        assert_eq!(
            (got.as_u16(), &body["message"]),
            (status, &json!(message)),
            "{method} {path}: {body}"
        );
        assert_eq!(
            (&body["status"], &body["detail"]),
            (&json!(status), &json!(message)),
            "{method} {path}"
        );
        assert_eq!(body["type"], "about:blank", "{method} {path}");
        assert_eq!(headers[header::CONTENT_TYPE], "application/problem+json", "{method} {path}");
        assert_eq!(headers[header::CACHE_CONTROL], "no-store", "{method} {path}");
        assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff", "{method} {path}");
        assert_eq!(headers.get_all(header::CONTENT_TYPE).iter().count(), 1, "{method} {path}");
        let allow = headers.get(header::ALLOW).map(HeaderValue::as_bytes);
        assert_eq!(allow, (status == 405).then_some(&b"GET,HEAD"[..]), "{method} {path}");
        assert_eq!(headers.contains_key(header::RETRY_AFTER), status == 503, "{method} {path}");
    }
}

#[tokio::test]
async fn an_answer_is_left_as_it_is_but_for_the_security_headers() {
    let own = async || ([(header::REFERRER_POLICY, "same-origin")], Json(json!({ "a": 1 })));
    let error = async || (StatusCode::CONFLICT, Json(json!({ "mine": true })));
    let routes = Router::new().route("/", get(own)).route("/error", get(error));
    let app = add_layers(
        routes,
        &HttpLimits::default(),
        &Metrics::new("test", service::ops::metrics::describe_service),
    );
    let (status, headers, body) = ask(&app, request("GET", "/", "")).await;
    assert_eq!((status, body), (StatusCode::OK, json!({ "a": 1 })));
    assert_eq!(headers[header::REFERRER_POLICY], "same-origin");
    assert_eq!(headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert!(!headers.contains_key(header::SERVER));
    let (status, headers, body) = ask(&app, request("GET", "/error", "")).await;
    assert_eq!((status, body), (StatusCode::CONFLICT, json!({ "mine": true })));
    assert_eq!(headers[header::CONTENT_TYPE], "application/json");
    assert_eq!(headers[header::REFERRER_POLICY], "no-referrer");
}

#[tokio::test]
async fn a_client_that_sends_its_first_headers_too_slowly_is_cut_off() {
    let server =
        Server::start(hello(), HttpLimits { header_timeout: NEAR, ..HttpLimits::default() }).await;
    // The second and third could still become HTTP/1 or HTTP/2; the last is HTTP/2 without a request.
    for beginning in [
        "",
        "P",
        "PRI * HTTP/2.0\r\n",
        "GET / HTTP/1.1\r\nHost: te",
        "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        let mut connection = server.connect().await;
        connection.send(beginning).await;
        let mut bytes = Vec::new();
        let end = timeout(FAR, connection.0.read_to_end(&mut bytes)).await;
        assert!(end.is_ok(), "{beginning:?} is still connected");
        assert!(!bytes.starts_with(b"HTTP/1.1 200"), "{beginning:?}");
    }
}

#[tokio::test]
async fn a_connection_that_had_an_answer_may_idle_longer_than_its_first_headers_might_have_taken() {
    let server =
        Server::start(hello(), HttpLimits { header_timeout: NEAR * 8, ..HttpLimits::default() })
            .await;
    let mut used = server.connect().await;
    used.send(GET).await;
    used.until("hello").await;
    server.connect().await.rest().await; // It was connected later, and its time is up.
    used.send(GET).await;
    used.until("hello").await;
}

#[tokio::test]
async fn an_idle_connection_is_closed_at_the_idle_time_out() {
    let server =
        Server::start(hello(), HttpLimits { idle_timeout: NEAR, ..HttpLimits::default() }).await;
    let mut connection = server.connect().await;
    connection.send(GET).await;
    connection.until("hello").await;
    assert_eq!(connection.rest().await, "");
}

#[tokio::test]
async fn a_body_that_dribbles_in_is_answered_with_408() {
    let app = Router::new().route("/", post(async |_: extract::Body| ()));
    let server =
        Server::start(app, HttpLimits { body_timeout: NEAR, ..HttpLimits::default() }).await;
    let mut connection = server.connect().await;
    connection.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 10\r\n\r\n12345").await;
    let answer = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
}

#[tokio::test]
async fn headers_over_the_limit_are_answered_with_431() {
    let server =
        Server::start(hello(), HttpLimits { max_header_bytes: 8192, ..HttpLimits::default() })
            .await;
    let mut connection = server.connect().await;
    connection.send(&format!("GET / HTTP/1.1\r\nHost: test\r\nCookie: {}", "x".repeat(8192))).await;
    let answer = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 431 "), "{answer}");
}

#[tokio::test]
async fn an_address_over_the_limit_is_answered_with_414() {
    let path = format!("/?{}", "x".repeat(17 << 10));
    let app = add_layers(
        hello(),
        &HttpLimits::default(),
        &Metrics::new("test", service::ops::metrics::describe_service),
    );
    let request = Request::get(path).body(Body::empty()).expect("a request");
    assert_eq!(ask(&app, request).await.0, StatusCode::URI_TOO_LONG);
}

#[tokio::test]
async fn requests_beyond_those_that_may_be_under_way_are_turned_away_and_health_is_not() {
    let (started, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let app = slow(&started, &release).route("/livez", get(async || "live"));
    let limits = HttpLimits { max_requests: 2, ..HttpLimits::default() };
    let app =
        add_layers(app, &limits, &Metrics::new("test", service::ops::metrics::describe_service));
    let under_way: Vec<_> =
        (0..2).map(|_| tokio::spawn(app.clone().oneshot(request("GET", "/", "")))).collect();
    started.acquire_many(2).await.expect("two have started").forget();
    let (status, headers, problem) = ask(&app, request("GET", "/", "")).await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(
        (&headers[header::RETRY_AFTER], &problem["retry_after"]),
        (&"1".parse().expect("1"), &json!(1))
    );
    assert_eq!(ask(&app, request("GET", "/livez", "")).await.0, StatusCode::OK);
    release.add_permits(3);
    for one in under_way {
        let response = one.await.expect("no panic").expect("infallible");
        assert_eq!(response.status(), StatusCode::OK);
    }
    // Their places are free again.
    assert_eq!(ask(&app, request("GET", "/", "")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_answered_with_504_and_gives_its_place_back() {
    let app = Router::new()
        .route("/", get(async || std::future::pending::<()>().await))
        .route("/other", get(async || "hello"));
    let limits = HttpLimits { max_requests: 1, request_timeout: NEAR, ..HttpLimits::default() };
    let app =
        add_layers(app, &limits, &Metrics::new("test", service::ops::metrics::describe_service));
    assert_eq!(ask(&app, request("GET", "/", "")).await.0, StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(ask(&app, request("GET", "/other", "")).await.0, StatusCode::OK);
}

#[tokio::test]
async fn bodies_that_arrive_share_a_bounded_memory() {
    let app = Router::new().route("/", post(async |extract::Body(body)| body.len().to_string()));
    let limits = HttpLimits { max_bodies_bytes: 10, ..HttpLimits::default() };
    let server = Server::start(app.clone(), limits.clone()).await;
    // One that is slow has taken room for what has come.
    let mut slow = server.connect().await;
    slow.send("POST / HTTP/1.1\r\nHost: test\r\nContent-Length: 9\r\n\r\n12345678").await;
    let ask = async || {
        let mut other = server.connect().await;
        other.send("POST / HTTP/1.1\r\nHost: test\r\nConnection: close\r\nContent-Length: 4\r\n\r\n1234").await;
        other.rest().await
    };
    timeout(FAR, async { while !ask().await.starts_with("HTTP/1.1 503 ") {} })
        .await
        .expect("no room");
    slow.send("9").await;
    assert!(slow.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_one_to_end() {
    let limits = HttpLimits { max_connections: 1, ..HttpLimits::default() };
    let server = Server::start(hello(), limits).await;
    let mut first = server.connect().await;
    first.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    first.until("hello").await;
    let mut second = server.connect().await;
    second.send("GET / HTTP/1.1\r\nHost: test\r\n\r\n").await;
    assert!(timeout(NEAR, second.until("hello")).await.is_err(), "not let in");
    drop(first);
    second.until("hello").await;
}

#[tokio::test]
async fn http_2_is_served_on_the_same_port() {
    let server = Server::start(hello(), HttpLimits::default()).await;
    let client = Client::builder(TokioExecutor::new()).http2_only(true).build_http();
    let request =
        Request::get(format!("http://{}/", server.address)).body(Body::empty()).expect("a request");
    let response =
        timeout(FAR, client.request(request)).await.expect("in time").expect("an answer");
    assert_eq!((response.version(), response.status()), (Version::HTTP_2, StatusCode::OK));
}

#[tokio::test]
async fn a_drain_accepts_nobody_and_lets_a_request_under_way_finish() {
    let (started, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let limits = HttpLimits { drain_timeout: FAR, ..HttpLimits::default() };
    let server = Server::start(slow(&started, &release), limits).await;
    let mut connection = server.connect().await;
    connection.send(GET).await;
    started.acquire().await.expect("an open semaphore").forget();
    server.shutdown.cancel();
    while TcpStream::connect(server.address).await.is_ok() {}
    assert!(!server.ended.is_finished());
    release.add_permits(1);
    let answer = connection.rest().await;
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("done"), "{answer}");
    server.ended().await;
}

#[tokio::test]
async fn a_request_that_is_stuck_is_cut_off_at_the_drain_deadline() {
    let started = Arc::new(Semaphore::new(0));
    let limits = HttpLimits { drain_timeout: NEAR, ..HttpLimits::default() };
    let server = Server::start(slow(&started, &Arc::new(Semaphore::new(0))), limits).await;
    let mut connection = server.connect().await;
    connection.send(GET).await;
    started.acquire().await.expect("an open semaphore").forget();
    server.shutdown.cancel();
    assert_eq!(connection.rest().await, "");
    server.ended().await;
}

#[tokio::test]
async fn connections_without_a_request_do_not_delay_the_end() {
    let limits =
        HttpLimits { drain_timeout: FAR * 60, header_timeout: FAR * 60, ..HttpLimits::default() };
    let server = Server::start(hello(), limits).await;
    let mut silent = server.connect().await;
    let mut idle = server.connect().await;
    idle.send(GET).await;
    idle.until("hello").await;
    server.shutdown.cancel();
    assert_eq!((silent.rest().await, idle.rest().await), (String::new(), String::new()));
    server.ended().await;
}

#[tokio::test]
async fn a_handler_that_panics_takes_only_its_own_request_along() {
    let app = hello().route("/panic", get(async || Json(Vec::<u8>::new()[0])));
    let server = Server::start(app, HttpLimits::default()).await;
    let mut connection = server.connect().await;
    connection.send("GET /panic HTTP/1.1\r\nHost: test\r\n\r\n").await;
    let answer = connection.until("}").await;
    assert!(answer.starts_with("HTTP/1.1 500 "), "{answer}");
    connection.send(GET).await;
    connection.until("hello").await;
}

#[tokio::test]
async fn a_probe_knows_the_living_from_the_dead() {
    let server = Server::start(Health::new().routes().into(), HttpLimits::default()).await;
    let port = server.address.port();
    for address in
        [server.address.to_string(), format!("0.0.0.0:{port}"), format!("localhost:{port}")]
    {
        assert_eq!(health::check_liveness(&address).await, Ok(()), "{address}");
    }

    let other = Server::start(hello(), HttpLimits::default()).await;
    let error = health::check_liveness(other.address).await.expect_err("no such route there");
    assert!(error.contains("404"), "{error}");

    server.shutdown.cancel();
    let address = server.address;
    server.ended().await;
    assert!(health::check_liveness(address).await.is_err());
}

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

/// The value of the line that begins so.
fn value(text: &str, line: &str) -> f64 {
    let rest = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    rest.map_or(0.0, |value| value.parse().expect("a number"))
}

async fn scrape(app: &Router) -> String {
    let request = Request::get("/metrics").body(Body::empty()).expect("a request");
    let response = app.clone().oneshot(request).await.expect("infallible");
    assert_eq!(
        response.headers()[header::CONTENT_TYPE],
        "text/plain; version=0.0.4; charset=utf-8"
    );
    let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
    String::from_utf8(body.into()).expect("text")
}

#[tokio::test]
async fn requests_are_counted_by_route_and_never_by_path_and_states_are_asked_for() {
    let metrics = Metrics::new("counting", service::ops::metrics::describe_service);
    let routes = metrics.routes(async |mut scrape: Scrape| {
        scrape.add_sample("notifications_partitions", &[("state", "live")], 12.0);
        scrape
    });
    let routes = Router::from(routes).route("/inbox/{id}", get(async || "hello"));
    let app = add_layers(routes, &HttpLimits::default(), &metrics);
    for (method, path) in [
        ("GET", "/inbox/4711?access_token=hunter2"),
        ("GET", "/inbox/4712"),
        ("FROB", "/inbox/4711"),
        ("GET", "/nowhere/4711"),
    ] {
        let request = Request::builder().method(method).uri(path).body(Body::empty());
        app.clone().oneshot(request.expect("a request")).await.expect("infallible");
    }
    let text = scrape(&app).await;
    assert!(
        !text.contains("4711") && !text.contains("hunter2") && !text.contains("FROB"),
        "{text}"
    );
    let of = |method: &str, route: &str, status: u16| {
        let line = format!(
            "notifications_http_requests_total{{service=\"counting\",method=\"{method}\",\
             route=\"{route}\",status=\"{status}\"}}"
        );
        value(&text, &line)
    };
    assert_eq!(of("GET", "/inbox/{id}", 200), 2.0, "{text}");
    assert_eq!((of("OTHER", "/inbox/{id}", 405), of("GET", "-", 404)), (1.0, 1.0), "{text}");
    let seconds = "notifications_http_request_duration_seconds";
    let route = "service=\"counting\",route=\"/inbox/{id}\"";
    assert_eq!(value(&text, &format!("{seconds}_count{{{route}}}")), 3.0, "{text}");
    assert_eq!(value(&text, &format!("{seconds}_bucket{{{route},le=\"+Inf\"}}")), 3.0, "{text}");
    assert!(text.contains(&format!("{seconds}_bucket{{{route},le=\"0.0005\"}}")), "{text}");
    // This one is under way.
    assert_eq!(value(&text, "notifications_http_requests_in_flight{service=\"counting\"}"), 1.0);
    assert_eq!(value(&text, "notifications_partitions{state=\"live\"}"), 12.0);
    assert!(text.contains("notifications_build_info{service=\"counting\",version=\""), "{text}");
}

#[tokio::test]
async fn connections_are_counted_as_long_as_they_are_open_streams_too() {
    let metrics = Metrics::new("connecting", service::ops::metrics::describe_service);
    let stream = async || {
        let events =
            Body::from_stream(futures_util::stream::pending::<Result<bytes::Bytes, Infallible>>());
        (Extension(StreamingResponse), events)
    };
    let routes = Router::from(metrics.routes(async |scrape: Scrape| scrape));
    let app = routes.route("/stream", get(stream));
    let server = Server::counting(app.clone(), HttpLimits::default(), metrics).await;
    let open = async |expected: f64| {
        let reached = async {
            let line = "notifications_http_connections{service=\"connecting\"}";
            while value(&scrape(&app).await, line) != expected {
                tokio::task::yield_now().await;
            }
        };
        timeout(FAR, reached).await.expect("as many connections");
    };
    let idle = server.connect().await;
    let mut streaming = server.connect().await;
    streaming.send("GET /stream HTTP/1.1\r\nHost: x\r\n\r\n").await;
    streaming.until("\r\n\r\n").await;
    open(2.0).await;
    drop(idle);
    open(1.0).await;
    drop(streaming);
    open(0.0).await;
}
