//! The limits of connections and requests.

use super::*;

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
    let request = Request::get(path).header("host", "test").body(Body::empty()).expect("a request");
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
    // Without a token, all share one share.
    timeout(FAR, async { while !ask().await.starts_with("HTTP/1.1 429 ") {} })
        .await
        .expect("no room");
    slow.send("9").await;
    assert!(slow.until("\r\n\r\n").await.starts_with("HTTP/1.1 200 "));
    let answer = ask().await;
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
}

#[tokio::test]
async fn a_body_that_is_read_keeps_its_memory_until_the_request_is_answered() {
    let (started, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let gates = (Arc::clone(&started), Arc::clone(&release));
    let handler = async move |extract::Body(body): extract::Body| {
        gates.0.add_permits(1);
        let _ = gates.1.acquire().await;
        body.len().to_string()
    };
    let limits = HttpLimits { max_bodies_bytes: 10, ..HttpLimits::default() };
    let metrics = Metrics::new("test", service::ops::metrics::describe_service);
    let app = add_layers(Router::new().route("/", post(handler)), &limits, &metrics);
    let waiting = tokio::spawn(app.clone().oneshot(request("POST", "/", "12345678")));
    started.acquire().await.expect("it has started").forget();
    let refused = ask(&app, request("POST", "/", "12345678")).await.0;
    // Those without a token share one share, a quarter.
    assert_eq!(refused, StatusCode::TOO_MANY_REQUESTS);
    release.add_permits(2);
    assert_eq!(waiting.await.expect("no panic").expect("infallible").status(), StatusCode::OK);
    assert_eq!(ask(&app, request("POST", "/", "12345678")).await.0, StatusCode::OK);
}

/// Larger than what the kernel keeps of a response that is not read.
const LARGE: usize = 32 << 20;

/// A large body that tells when it is dropped.
struct Watched(Vec<u8>, mpsc::UnboundedSender<()>);

impl AsRef<[u8]> for Watched {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        let _ = self.1.send(());
    }
}

/// A route with a large response, and a receiver that gets a message when one is freed.
fn large() -> (Router, mpsc::UnboundedReceiver<()>) {
    let (freed, freeing) = mpsc::unbounded_channel();
    let body = async move || Bytes::from_owner(Watched(vec![b'x'; LARGE], freed.clone()));
    let app = Router::new().route("/", get(body.clone()).post(body));
    (app.route("/livez", get(async || "live")), freeing)
}

#[tokio::test]
async fn a_response_that_its_client_does_not_read_is_given_up() {
    let (app, mut freed) = large();
    let limits = HttpLimits { write_timeout: NEAR, ..HttpLimits::default() };
    let server = Server::start(app, limits).await;
    let mut connection = server.connect().await;
    connection.send(GET).await;
    timeout(FAR, freed.recv()).await.expect("the memory is freed").expect("a message");
}

#[tokio::test]
async fn responses_that_are_not_read_share_a_bounded_memory() {
    let (app, mut freed) = large();
    let limits = HttpLimits { max_replies_bytes: LARGE + 1000, ..HttpLimits::default() };
    let server = Server::start(app, limits).await;
    let mut unread = server.connect().await;
    unread.send(GET).await;
    // Its response has begun, so it has taken its permits.
    unread.until("\r\n\r\n").await;
    let ask = async |method: &str, path: &str| {
        let mut other = server.connect().await;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: test\r\nConnection: close\r\n\r\n");
        other.send(&head).await;
        other.until("\r\n").await
    };
    assert_eq!(ask("GET", "/").await, "HTTP/1.1 429 Too Many Requests\r\n");
    timeout(FAR, freed.recv()).await.expect("the refused one is freed").expect("a message");
    assert_eq!(ask("GET", "/livez").await, "HTTP/1.1 200 OK\r\n");
    // What it did cannot be refused any more.
    assert_eq!(ask("POST", "/").await, "HTTP/1.1 200 OK\r\n");
    drop(unread);
    for _ in 0..2 {
        timeout(FAR, freed.recv()).await.expect("both are freed").expect("a message");
    }
    assert_eq!(ask("GET", "/").await, "HTTP/1.1 200 OK\r\n");
}

#[tokio::test]
async fn of_too_many_idle_connections_the_one_that_is_idle_longest_is_closed() {
    let limits =
        HttpLimits { max_idle_connections: 2, header_timeout: FAR * 2, ..HttpLimits::default() };
    let server = Server::start(hello(), limits).await;
    let open = async || {
        let mut connection = server.connect().await;
        connection.send(GET).await;
        connection.until("hello").await;
        // The beginning of another request.
        connection.send("GET / HT").await;
        connection
    };
    let mut first = open().await;
    let mut others = Vec::new();
    // A connection is idle a moment after its response was read, so it may take one more.
    timeout(FAR, async {
        loop {
            others.push(open().await);
            if timeout(NEAR, first.rest()).await.is_ok() {
                break;
            }
        }
    })
    .await
    .expect("the first is closed");
    let newest = others.last_mut().expect("one");
    newest.send("TP/1.1\r\nHost: test\r\n\r\n").await;
    newest.until("hello").await;
}

#[tokio::test]
async fn at_the_limit_of_connections_an_idle_one_makes_room_and_a_busy_one_does_not() {
    let (started, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let app = slow(&started, &release).route("/livez", get(async || "live"));
    let limits = HttpLimits { max_connections: 2, ..HttpLimits::default() };
    let server = Server::start(app, limits).await;
    let mut busy = server.connect().await;
    busy.send(GET).await;
    started.acquire().await.expect("it has started").forget();
    // It never asks anything.
    let mut idle = server.connect().await;
    for _ in 0..3 {
        let mut health = server.connect().await;
        health.send("GET /livez HTTP/1.1\r\nHost: test\r\n\r\n").await;
        health.until("live").await;
        assert_eq!(idle.rest().await, "");
        idle = health;
    }
    release.add_permits(1);
    busy.until("done").await;
}
