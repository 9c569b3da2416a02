//! What a handler takes from a request, with rejections that are [`Problem`]s: the body, the
//! path's parameters, the query, the media type. What the values mean is the handler's matter.

use std::{borrow::Cow, error::Error as _, sync::Arc, time::Duration};

use axum::{
    RequestExt as _,
    extract::{
        self, FromRequest, FromRequestParts, RawPathParams, Request,
        path::ErrorKind,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError};
use hyper::body::Body as _;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use crate::{problem::Problem, server::admission::Place};

/// A whole request body, within the limit that axum's `DefaultBodyLimit` sets for the route
/// (2 MiB where there is none), and within [`BodyBounds`].
///
/// Rejections: 413, which names the limit in bytes (and as the member `limit`); 408 when it did
/// not arrive in time; 400 when the client broke it off; 503 when there is no memory for it.
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

/// What request [`Body`]s may cost. A layer of the server puts it into each request's extensions;
/// where it is missing, it is the default.
#[derive(Debug, Clone)]
pub struct BodyBounds {
    /// How long a body may take to arrive, from when the handler wants it.
    pub timeout: Duration,
    /// Bytes for all that are arriving now.
    room: Arc<Semaphore>,
}

impl BodyBounds {
    /// So long for each, and so many bytes for all together.
    #[must_use]
    pub fn new(timeout: Duration, room: usize) -> Self {
        Self { timeout, room: Arc::new(Semaphore::new(room.min(Semaphore::MAX_PERMITS))) }
    }
}

impl Default for BodyBounds {
    /// 30 s: a body of 1 MiB then needs 280 kbit/s.
    fn default() -> Self {
        Self::new(Duration::from_secs(30), Semaphore::MAX_PERMITS)
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        let BodyBounds { timeout, room } = request.extensions().get().cloned().unwrap_or_default();
        let place = request.extensions().get::<Place>().cloned();
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let body = request.into_limited_body();
        // A limited body hints that it yields no more than the limit, or than was announced,
        // whichever is less. So wherever the limit is overrun, this is the limit.
        let limit = body.size_hint().upper();
        if announced > limit && limit.is_some() {
            return Err(too_large(limit)); // Without reading what would be thrown away.
        }
        match tokio::time::timeout(timeout, collect(body, announced, room)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(Broken::NoRoom)) => {
                place.inspect(|place| place.shed("bodies"));
                let message = "Too many large requests are arriving just now; try again shortly.";
                Err(Problem::unavailable(message, Duration::from_secs(1)))
            }
            Ok(Err(Broken::Failed(error))) if is_too_large(&error) => Err(too_large(limit)),
            Ok(Err(Broken::Failed(error))) => {
                tracing::debug!(%error, "cannot read a request body");
                Err(Problem::new(
                    StatusCode::BAD_REQUEST,
                    "The request body broke off before its end.",
                ))
            }
            Err(_) => Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("The request body did not arrive within {} s.", timeout.as_secs_f64()),
            )),
        }
    }
}

/// Why a body is not there.
enum Broken {
    /// No memory is left for it.
    NoRoom,
    Failed(axum::Error),
}

/// Collects a body, and takes room for its bytes as they come. A body that comes at once, as nearly
/// all do, is not copied.
async fn collect(
    mut body: axum::body::Body,
    announced: Option<u64>,
    room: Arc<Semaphore>,
) -> Result<Bytes, Broken> {
    let mut taken = None;
    let mut take = |bytes: usize| {
        let bytes = u32::try_from(bytes).map_err(|_| Broken::NoRoom)?;
        let more = Arc::clone(&room).try_acquire_many_owned(bytes).map_err(|_| Broken::NoRoom)?;
        match &mut taken {
            None => taken = Some(more),
            Some(taken) => taken.merge(more),
        }
        Ok(())
    };
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        // What is no data are trailers, which say nothing to us.
        let Ok(chunk) = frame.map_err(Broken::Failed)?.into_data() else { continue };
        take(chunk.len())?;
        if first.is_empty() && all.is_empty() {
            first = chunk;
            continue;
        }
        if all.is_empty() {
            let length = announced.and_then(|length| usize::try_from(length).ok());
            all.reserve(length.unwrap_or_default().min(MAX_RESERVED));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&chunk);
    }
    Ok(if all.is_empty() { first } else { all.freeze() })
}

/// A client that announces much has not sent it yet.
const MAX_RESERVED: usize = 64 << 10;

fn too_large(limit: Option<u64>) -> Problem {
    let limit = limit.unwrap_or_default();
    Problem::new(
        StatusCode::PAYLOAD_TOO_LARGE,
        format!("The request body must have at most {limit} bytes."),
    )
    .with("limit", limit)
}

fn is_too_large(error: &axum::Error) -> bool {
    std::iter::successors(error.source(), |&error| error.source())
        .any(<dyn std::error::Error>::is::<LengthLimitError>)
}

/// The path's parameters, as axum's own `Path` takes them. Rejection: 400, which names the
/// parameter and says what is wrong with it.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let error = match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(value)) => return Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error))
                if error.status().is_client_error() =>
            {
                error
            }
            Err(error) => {
                tracing::error!(%error, "a route does not have the parameters that its handler takes");
                return Err(Problem::internal());
            }
        };
        let names = RawPathParams::from_request_parts(parts, state).await;
        let names: Vec<&str> = names.iter().flatten().map(|(name, _)| name).collect();
        let only = if let [name] = names[..] { name } else { "path" };
        Err(match error.into_kind() {
            ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                Problem::bad_request(&key, kind(expected_type))
            }
            ErrorKind::ParseErrorAtIndex { index, expected_type, .. } => {
                Problem::bad_request(names.get(index).copied().unwrap_or(only), kind(expected_type))
            }
            ErrorKind::ParseError { expected_type, .. } => {
                Problem::bad_request(only, kind(expected_type))
            }
            ErrorKind::DeserializeError { key, message, .. } => Problem::bad_request(&key, message),
            ErrorKind::InvalidUtf8InPathParam { key } => {
                Problem::bad_request(&key, "must be UTF-8")
            }
            other => Problem::bad_request(only, other),
        })
    }
}

/// What a value of this Rust type is in the client's words.
fn kind(expected: &str) -> &'static str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" => "must be a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "i128" => "must be a whole number",
        "f32" | "f64" => "must be a number",
        "bool" => "must be true or false",
        _ => "cannot be used",
    }
}

/// The query's parameters, as axum's own `Query` takes them. Rejection: 400, which names the
/// parameter and says what is wrong with it.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(query_problem(&error)),
        }
    }
}

fn query_problem(error: &QueryRejection) -> Problem {
    // The innermost text is `field: why`, or only why where it is not about one field.
    let text = error.source().map_or_else(|| error.body_text(), ToString::to_string);
    match text.split_once(": ") {
        Some((field, why)) if !field.contains(char::is_whitespace) => {
            Problem::bad_request(field, why)
        }
        _ => Problem::bad_request("query", text),
    }
}

/// The media type that `Content-Type` names, in lower case and without its parameters:
/// `application/json` of `Application/JSON; charset=utf-8`. None where the header is missing, is
/// there twice, or holds none (RFC 9110, section 8.3).
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<Cow<'_, str>> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let essence = value.to_str().ok()?.split(';').next()?.trim();
    let (main, sub) = essence.split_once('/')?;
    if main.is_empty() || sub.is_empty() {
        return None;
    }
    let upper = essence.bytes().any(|byte| byte.is_ascii_uppercase());
    Some(if upper { essence.to_ascii_lowercase().into() } else { essence.into() })
}

#[cfg(test)]
mod fuzz {
    use axum::http::HeaderValue;
    use inputs::{bytes, mutated};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn a_media_type_that_is_taken_is_one_in_lower_case(
            values in vec(
                prop_oneof![
                    bytes(),
                    mutated("[a-zA-Z]{1,9}/[a-zA-Z+-]{1,9} ?(; ?charset=[a-z]{1,4})?".prop_map(String::into_bytes)),
                ],
                0..3,
            ),
        ) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                headers.append(header::CONTENT_TYPE, value);
            }
            if let Some(essence) = media_type(&headers) {
                prop_assert_eq!(headers.len(), 1);
                prop_assert_eq!(essence.trim().to_ascii_lowercase(), essence.as_ref());
                prop_assert!(essence.contains('/') && !essence.contains(';'));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{
        Router,
        extract::DefaultBodyLimit,
        response::Response,
        routing::{get, post},
    };
    use futures_util::{Stream, stream};
    use serde::Deserialize;
    use serde_json::Value;
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
            media_type(&headers).map(Cow::into_owned)
        };
        assert_eq!(of(&["application/json"]).as_deref(), Some("application/json"));
        assert_eq!(of(&["Application/JSON ; charset=UTF-8"]).as_deref(), Some("application/json"));
        for none in
            [&[][..], &[""], &["json"], &["/json"], &["text/"], &["text/plain", "text/html"]]
        {
            assert_eq!(of(none), None, "{none:?}");
        }
    }
}
