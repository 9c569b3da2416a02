//! Bounds the memory of responses that are being written. A response that its client does not read
//! keeps its bytes, so each takes permits for them until the last one is with the kernel.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};

use crate::{
    ops::metrics::Metrics,
    problem::Problem,
    server::admission::{ALWAYS_ADMITTED, RequestPermit, ShedRequest},
    server::budget::{Budget, BudgetExceeded, BudgetPermit},
};

/// The memory of a response beside its body.
const OVERHEAD_BYTES: usize = 256;

/// The `Retry-After` of a response that found no memory.
const RETRY_DELAY: Duration = Duration::from_secs(1);

type ReplyPermit = BudgetPermit<Arc<str>>;

/// The budget of the bytes of responses. Responses of unknown length are streams, which have limits
/// of their own.
#[derive(Debug, Clone)]
pub(crate) struct ReplyBudget {
    bytes: Budget<Arc<str>>,
    metrics: Metrics,
}

impl ReplyBudget {
    pub(crate) fn new(max_bytes: usize, metrics: Metrics) -> Self {
        Self { bytes: Budget::new(max_bytes), metrics }
    }

    /// Counts the bytes of a response until they are written. The response to a `GET` is refused if
    /// there is no memory for it; a refusal would deny what another method has done already.
    pub(crate) fn count_reply(
        &self,
        response: Response,
        method: &Method,
        route: &str,
        permit: Option<&RequestPermit>,
    ) -> Response {
        let bytes = response.body().size_hint().exact().unwrap_or_default();
        if bytes == 0 {
            return response;
        }
        let amount = usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(OVERHEAD_BYTES);
        let owner = permit.map_or_else(|| Some(Arc::from("")), RequestPermit::owner);
        let permit = if method == Method::GET && !ALWAYS_ADMITTED.contains(&route) {
            self.bytes.take(owner, amount)
        } else {
            Ok(self.bytes.take_anyway(owner, amount))
        };
        match permit {
            Ok(permit) => response.map(|body| Body::new(CountedBody::new(body, permit))),
            Err(exceeded) => {
                self.metrics.count_shed("replies");
                (Extension(ShedRequest), memory_problem(exceeded)).into_response()
            }
        }
    }
}

fn memory_problem(exceeded: BudgetExceeded) -> Problem {
    match exceeded {
        BudgetExceeded::Total => {
            let message = "Too many responses that are not read yet; try again shortly.";
            Problem::unavailable(message, RETRY_DELAY)
        }
        BudgetExceeded::Share => {
            let message = "Too many of your responses are not read yet; read them first.";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_DELAY)
        }
    }
}

/// A body each of whose chunks holds the permit. hyper drops a chunk once it is written.
struct CountedBody {
    inner: Body,
    permit: Arc<ReplyPermit>,
}

struct CountedChunk {
    bytes: Bytes,
    _permit: Arc<ReplyPermit>,
}

impl AsRef<[u8]> for CountedChunk {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl CountedBody {
    fn new(inner: Body, permit: ReplyPermit) -> Self {
        Self { inner, permit: Arc::new(permit) }
    }
}

impl hyper::body::Body for CountedBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let frame = Pin::new(&mut self.inner).poll_frame(cx);
        frame.map_ok(|frame| {
            frame.map_data(|bytes| {
                Bytes::from_owner(CountedChunk { bytes, _permit: Arc::clone(&self.permit) })
            })
        })
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
