//! The metrics of requests and connections.

use super::*;

/// The value of the line that begins so.
fn value(text: &str, line: &str) -> f64 {
    let rest = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(' '));
    rest.map_or(0.0, |value| value.parse().expect("a number"))
}

async fn scrape(app: &Router) -> String {
    let request =
        Request::get("/metrics").header("host", "test").body(Body::empty()).expect("a request");
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
        let request =
            Request::builder().method(method).uri(path).header("host", "test").body(Body::empty());
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
