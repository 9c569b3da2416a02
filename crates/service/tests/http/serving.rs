//! HTTP/2, drain, panics and the liveness probe.

use super::*;

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
async fn a_request_that_breaks_a_rule_of_http_is_refused_with_a_problem() {
    let server = Server::start(hello(), HttpLimits::default()).await;
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Encoding: gzip\r\nContent-Length: 1\r\n", 415),
    ] {
        let mut connection = server.connect().await;
        connection.send(&format!("{head}Connection: close\r\n\r\nx")).await;
        let answer = connection.rest().await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{head}: {answer}");
        assert!(answer.contains("application/problem+json"), "{head}: {answer}");
    }
    let mut old = server.connect().await;
    old.send("GET / HTTP/1.0\r\n\r\n").await;
    assert!(old.rest().await.starts_with("HTTP/1.0 200 "));
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
