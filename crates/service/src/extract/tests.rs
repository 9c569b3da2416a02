//! The values that handlers get from the extractors, and the problems that clients get.

use super::*;
use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::{HeaderMap, StatusCode, header},
    response::Response,
    routing::{get, post},
};
use futures_util::{Stream, stream};
use http_body_util::BodyExt as _;
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;
use tower::ServiceExt as _;

async fn ask(app: Router, request: Request) -> (StatusCode, Value) {
    let response: Response = app.oneshot(request).await.expect("infallible");
    let status = response.status();
    let body = response.into_body().collect().await.expect("a body").to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or(Value::Null))
}

async fn get_from(app: Router, path: &str) -> (StatusCode, Value) {
    ask(app, Request::get(path).body(axum::body::Body::empty()).expect("a request")).await
}

/// A body of these chunks, whose length is not announced.
fn chunks(
    chunks: impl Stream<Item = std::io::Result<&'static str>> + Send + 'static,
) -> axum::body::Body {
    axum::body::Body::from_stream(chunks)
}

/// A body of so many bytes, one by one.
fn chunked(bytes: usize) -> axum::body::Body {
    chunks(stream::iter((0..bytes).map(|_| Ok("x"))))
}

fn sized() -> Router {
    Router::new()
        .route("/", post(async |Body(body): Body| body.len().to_string()))
        .layer(DefaultBodyLimit::max(10))
}

#[tokio::test]
async fn a_body_within_the_limit_arrives_whole() {
    for body in [chunked(10), axum::body::Body::from("0123456789")] {
        let request = Request::post("/").body(body).expect("a request");
        assert_eq!(ask(sized(), request).await, (StatusCode::OK, 10.into()));
    }
}

#[tokio::test]
async fn a_body_over_the_limit_is_refused_with_the_limit_in_the_message() {
    let announced = Request::post("/").header(header::CONTENT_LENGTH, 11);
    for request in [
        Request::post("/").body(chunked(11)),
        Request::post("/").body("01234567890".into()),
        announced.body(chunked(0)),
    ] {
        let (status, body) = ask(sized(), request.expect("a request")).await;
        assert_eq!(status, StatusCode::PAYLOAD_TOO_LARGE);
        assert_eq!(body["limit"], 10);
        assert!(body["message"].as_str().is_some_and(|m| m.contains("10 bytes")), "{body}");
    }
}

#[tokio::test]
async fn a_body_that_never_comes_or_breaks_off_is_the_clients_error() {
    let mut request = Request::post("/").body(chunks(stream::pending())).expect("a request");
    request.extensions_mut().insert(BodyBounds::new(Duration::from_millis(1), 100));
    assert_eq!(ask(sized(), request).await.0, StatusCode::REQUEST_TIMEOUT);

    let broken = stream::iter([Ok("x"), Err(std::io::ErrorKind::ConnectionReset.into())]);
    let request = Request::post("/").body(chunks(broken)).expect("a request");
    assert_eq!(ask(sized(), request).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn a_path_parameter_that_cannot_be_used_is_named_with_the_reason() {
    /// A newtype that refuses some numbers, as ids do.
    #[derive(Debug)]
    struct Positive;
    impl<'de> Deserialize<'de> for Positive {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match i64::deserialize(deserializer)? {
                1.. => Ok(Self),
                _ => Err(serde::de::Error::custom("must be a positive whole number")),
            }
        }
    }
    let app = Router::new()
        .route("/one/{id}", get(async |_: Path<Positive>| ""))
        .route("/two/{id}/{n}", get(async |_: Path<(String, u32)>| ""))
        .route("/text/{id}", get(async |_: Path<String>| ""))
        .route("/wrong/{id}", get(async |_: Path<(String, String)>| ""));
    for (path, status, message) in [
        ("/one/1", 200, ""),
        ("/one/0", 400, "id: must be a positive whole number"),
        ("/one/x", 400, "id: must be a whole number"),
        ("/two/x/-1", 400, "n: must be a whole number from 0"),
        ("/text/%FF", 400, "id: must be UTF-8"),
    ] {
        let (got, body) = get_from(app.clone(), path).await;
        assert_eq!(
            (got.as_u16(), body["message"].as_str().unwrap_or_default()),
            (status, message),
            "{path}"
        );
    }
    assert_eq!(get_from(app, "/wrong/1").await.0, StatusCode::INTERNAL_SERVER_ERROR);
}

#[tokio::test]
async fn a_query_parameter_that_cannot_be_used_is_named_with_the_reason() {
    #[derive(Deserialize)]
    #[expect(dead_code, reason = "only whether it can be read matters")]
    struct Page {
        limit: Option<u32>,
        q: String,
    }
    let app = Router::new().route("/", get(async |_: Query<Page>| ""));
    assert_eq!(get_from(app.clone(), "/?q=x%20y&limit=3&other=1").await.0, StatusCode::OK);
    let (status, body) = get_from(app.clone(), "/?q=x&limit=many").await;
    assert_eq!((status, body["field"].as_str()), (StatusCode::BAD_REQUEST, Some("limit")));
    assert_eq!(body["message"], "limit: invalid digit found in string");
    let (status, body) = get_from(app, "/").await;
    assert_eq!((status, body["field"].as_str()), (StatusCode::BAD_REQUEST, Some("query")));
    assert_eq!(body["message"], "query: missing field `q`");
}

#[test]
fn a_media_type_is_lower_case_and_without_parameters() {
    let of = |values: &[&str]| {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(header::CONTENT_TYPE, value.parse().expect("a header value"));
        }
        media_type(&headers)
    };
    assert_eq!(of(&["application/json"]).as_deref(), Some("application/json"));
    assert_eq!(of(&["Application/JSON ; charset=UTF-8"]).as_deref(), Some("application/json"));
    for none in [&[][..], &[""], &["json"], &["/json"], &["text/"], &["text/plain", "text/html"]] {
        assert_eq!(of(none), None, "{none:?}");
    }
}
