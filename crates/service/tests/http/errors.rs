//! Error bodies and security headers.

use super::*;

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
