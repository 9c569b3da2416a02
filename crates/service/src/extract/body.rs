//! The extractor of request bodies.

use std::{error::Error as _, sync::Arc, time::Duration};

use axum::{
    RequestExt as _,
    extract::{FromRequest, Request},
    http::{StatusCode, header},
};
use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt as _, LengthLimitError};
use hyper::body::Body as _;
use tokio::sync::Semaphore;

use crate::{problem::Problem, server::admission::RequestPermit};

/// A whole request body, within the route's `DefaultBodyLimit` (2 MiB by default) and
/// [`BodyBounds`].
///
/// Rejections: 413 with the limit in bytes (also as the member `limit`); 408 if it did not arrive
/// in time; 400 if the client broke it off; 503 if there is no memory for it.
#[derive(Debug, Clone)]
pub struct Body(pub Bytes);

/// The limits of request [`Body`]s. A layer of the server puts it into each request's extensions.
#[derive(Debug, Clone)]
pub struct BodyBounds {
    /// Bounds the arrival of a body, from when the handler extracts it.
    pub timeout: Duration,
    /// A permit a byte, for all bodies that are arriving.
    memory: Arc<Semaphore>,
}

impl BodyBounds {
    /// Limits the time of each body, and the bytes of all bodies that are arriving.
    #[must_use]
    pub fn new(timeout: Duration, memory: usize) -> Self {
        Self { timeout, memory: Arc::new(Semaphore::new(memory.min(Semaphore::MAX_PERMITS))) }
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
        let BodyBounds { timeout, memory } =
            request.extensions().get().cloned().unwrap_or_default();
        let permit = request.extensions().get::<RequestPermit>().cloned();
        let announced = request.headers().get(header::CONTENT_LENGTH);
        let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        let body = request.into_limited_body();
        // The upper size hint is the smaller of the limit and the announced length. If the limit is
        // exceeded, it is the limit.
        let limit = body.size_hint().upper();
        if announced > limit && limit.is_some() {
            return Err(too_large(limit)); // Without reading what would be thrown away.
        }
        match tokio::time::timeout(timeout, collect_body(body, announced, memory)).await {
            Ok(Ok(body)) => Ok(Self(body)),
            Ok(Err(BodyError::NoMemory)) => {
                permit.inspect(|permit| permit.count_shed("bodies"));
                let message = "Too many concurrent request bodies; try again shortly.";
                Err(Problem::unavailable(message, Duration::from_secs(1)))
            }
            Ok(Err(BodyError::Failed(error))) if is_too_large(&error) => Err(too_large(limit)),
            Ok(Err(BodyError::Failed(error))) => {
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

/// Why a body could not be read.
enum BodyError {
    /// `--max-bodies-bytes` is exhausted.
    NoMemory,
    Failed(axum::Error),
}

/// Collects a body and takes memory permits as it arrives. A body of one frame, as nearly all are,
/// is not copied.
async fn collect_body(
    mut body: axum::body::Body,
    announced: Option<u64>,
    memory: Arc<Semaphore>,
) -> Result<Bytes, BodyError> {
    let mut taken = None;
    let mut take = |bytes: usize| {
        let bytes = u32::try_from(bytes).map_err(|_| BodyError::NoMemory)?;
        let more =
            Arc::clone(&memory).try_acquire_many_owned(bytes).map_err(|_| BodyError::NoMemory)?;
        match &mut taken {
            None => taken = Some(more),
            Some(taken) => taken.merge(more),
        }
        Ok(())
    };
    let (mut first, mut all) = (Bytes::new(), BytesMut::new());
    while let Some(frame) = body.frame().await {
        // Trailers are ignored.
        let Ok(chunk) = frame.map_err(BodyError::Failed)?.into_data() else { continue };
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

/// Bounds the allocation for announced bytes that have not arrived.
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
