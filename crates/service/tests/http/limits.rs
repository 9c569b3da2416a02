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
