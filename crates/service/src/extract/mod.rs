//! Extractors whose rejections are [`Problem`]s, and the media type of a request.

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;

use std::{error::Error as _, sync::Arc, time::Duration};

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

use crate::{
    problem::Problem,
    server::{
        admission::RequestPermit,
        budget::{Budget, BudgetExceeded, BudgetPermit},
    },
};

/// A whole request body, within the route's `DefaultBodyLimit` (2 MiB by default) and
/// [`BodyBounds`].
///
/// Rejections: 413 with the limit in bytes (also as the member `limit`); 408 if it did not arrive
/// in time; 400 if the client broke it off; 503 if there is no memory for it; 429 if this caller's
/// bodies take their whole share of it.
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

/// The limits of request [`Body`]s. A layer of the server puts it into each request's extensions.
#[derive(Debug, Clone)]
pub struct BodyBounds {
    /// Bounds the arrival of a body, from when the handler extracts it.
    pub timeout: Duration,
    /// A permit a byte, for all bodies in memory.
    memory: Budget<Arc<str>>,
}

impl BodyBounds {
    /// Limits the time of each body, and the bytes of all bodies in memory.
    #[must_use]
    pub fn new(timeout: Duration, memory: usize) -> Self {
        Self { timeout, memory: Budget::new(memory) }
    }
}

impl Default for BodyBounds {
    /// 30 s: a body of 1 MiB then needs 280 kbit/s.
    fn default() -> Self {
        Self::new(Duration::from_secs(30), usize::MAX)
    }
}

impl<S: Send + Sync> FromRequest<S> for Body {
    type Rejection = Problem;

    async fn from_request(request: Request, _: &S) -> Result<Self, Problem> {
        read_body(request).await.map(|(_, body)| Self(body))
    }
}

/// Reads a request's body as [`Body`] does, and returns it beside the rest of the request.
pub async fn read_body(request: Request) -> Result<(Parts, Bytes), Problem> {
    let (parts, body) = request.with_limited_body().into_parts();
    let extensions = &parts.extensions;
    let BodyBounds { timeout, memory } = extensions.get().cloned().unwrap_or_default();
    let owner = extensions.get().and_then(RequestPermit::owner);
    let announced = parts.headers.get(header::CONTENT_LENGTH);
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    // The upper size hint is the smaller of the limit and the announced length. If the limit is
    // exceeded, it is the limit.
    let limit = body.size_hint().upper();
    if announced > limit && limit.is_some() {
        return Err(too_large(limit)); // Without reading what would be thrown away.
    }
    let collected = collect_body(body, announced, &memory, owner);
    let error = match tokio::time::timeout(timeout, collected).await {
        Ok(Ok(body)) => return Ok((parts, body)),
        Ok(Err(error)) => error,
        Err(_) => {
            let seconds = timeout.as_secs_f64();
            let message = format!("The request body did not arrive within {seconds} s.");
            return Err(Problem::new(StatusCode::REQUEST_TIMEOUT, message));
        }
    };
    Err(match error {
        BodyError::NoMemory(exceeded) => {
            if let Some(permit) = extensions.get::<RequestPermit>() {
                permit.count_shed("bodies");
            }
            memory_problem(exceeded)
        }
        BodyError::Failed(error) if is_too_large(&error) => too_large(limit),
        BodyError::Failed(error) => {
            tracing::debug!(%error, "cannot read a request body");
            let message = "The request body broke off before its end.";
            Problem::new(StatusCode::BAD_REQUEST, message)
        }
    })
}

/// Why a body could not be read.
enum BodyError {
    /// `--max-bodies-bytes` is exhausted, or this caller's share of it.
    NoMemory(BudgetExceeded),
    Failed(axum::Error),
}

/// Bounds the allocation for announced bytes that have not arrived.
const MAX_RESERVED: usize = 64 << 10;

/// Collects a body and takes memory permits as it arrives, which are returned when it is dropped. A
/// body of one frame, as nearly all are, is not copied.
async fn collect_body(
    mut body: axum::body::Body,
    announced: Option<u64>,
    memory: &Budget<Arc<str>>,
    owner: Option<Arc<str>>,
) -> Result<Bytes, BodyError> {
    let mut permit = memory.take(owner, 0).map_err(BodyError::NoMemory)?;
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        // Trailers are ignored.
        let Ok(chunk) = frame.map_err(BodyError::Failed)?.into_data() else { continue };
        permit.grow(chunk.len()).map_err(BodyError::NoMemory)?;
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
    let bytes = if all.is_empty() { first } else { all.freeze() };
    if bytes.is_empty() {
        return Ok(bytes);
    }
    Ok(Bytes::from_owner(CountedBytes { bytes, _permit: permit }))
}

/// A body, and the permits for its memory.
struct CountedBytes {
    bytes: Bytes,
    _permit: BudgetPermit<Arc<str>>,
}

impl AsRef<[u8]> for CountedBytes {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

fn memory_problem(exceeded: BudgetExceeded) -> Problem {
    let delay = Duration::from_secs(1);
    match exceeded {
        BudgetExceeded::Total => {
            Problem::unavailable("Too many concurrent request bodies; try again shortly.", delay)
        }
        BudgetExceeded::Share => {
            let message = "Too many of your request bodies are under way; finish them first.";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(delay)
        }
    }
}

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

/// Like axum's `Path`. Rejection: 400, which names the parameter and the reason.
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
                tracing::error!(%error, "a route lacks the path parameters of its handler");
                return Err(Problem::internal());
            }
        };
        let names = RawPathParams::from_request_parts(parts, state).await;
        let names: Vec<&str> = names.iter().flatten().map(|(name, _)| name).collect();
        let only = if let [name] = names[..] { name } else { "path" };
        Err(match error.into_kind() {
            ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                Problem::bad_request(&key, describe_type(expected_type))
            }
            ErrorKind::ParseErrorAtIndex { index, expected_type, .. } => Problem::bad_request(
                names.get(index).copied().unwrap_or(only),
                describe_type(expected_type),
            ),
            ErrorKind::ParseError { expected_type, .. } => {
                Problem::bad_request(only, describe_type(expected_type))
            }
            ErrorKind::DeserializeError { key, message, .. } => Problem::bad_request(&key, message),
            ErrorKind::InvalidUtf8InPathParam { key } => {
                Problem::bad_request(&key, "must be UTF-8")
            }
            other => Problem::bad_request(only, other),
        })
    }
}

/// The expected value in the client's words.
fn describe_type(expected: &str) -> &'static str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" => "must be a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "i128" => "must be a whole number",
        "f32" | "f64" => "must be a number",
        "bool" => "must be true or false",
        _ => "cannot be used",
    }
}

/// Like axum's `Query`. Rejection: 400, which names the parameter and the reason.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let found = extract::Query::from_request_parts(parts, state).await;
        found.map(|extract::Query(value)| Self(value)).map_err(|error| query_problem(&error))
    }
}

fn query_problem(error: &QueryRejection) -> Problem {
    // The innermost error is `field: reason`, or only a reason.
    let text = error.source().map_or_else(|| error.body_text(), ToString::to_string);
    match text.split_once(": ") {
        Some((field, why)) if !field.contains(char::is_whitespace) => {
            Problem::bad_request(field, why)
        }
        _ => Problem::bad_request("query", text),
    }
}

/// The media type of `Content-Type`, in lower case and without parameters: `application/json` of
/// `Application/JSON; charset=utf-8`. `None` if the header is missing, repeated or invalid (RFC
/// 9110, section 8.3).
#[must_use]
pub fn media_type(headers: &HeaderMap) -> Option<String> {
    let mut values = headers.get_all(header::CONTENT_TYPE).iter();
    let (Some(value), None) = (values.next(), values.next()) else {
        return None;
    };
    let essence = value.to_str().ok()?.split(';').next()?.trim();
    let (main, sub) = essence.split_once('/')?;
    if main.is_empty() || sub.is_empty() {
        return None;
    }
    Some(essence.to_ascii_lowercase())
}
