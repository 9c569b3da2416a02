//! Bounds the memory of responses that are being written. A response that its client does not read
//! keeps its bytes, so each takes permits for them until the last one is with the kernel.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    body::Body,
    extract::{MatchedPath, Request},
    http::{Method, StatusCode},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use hyper::body::{Body as _, Frame, SizeHint};
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    auth::Caller,
    ops::metrics::Metrics,
    problem::Problem,
    server::admission::{ALWAYS_ADMITTED, ShedRequest},
    server::budget::{Budget, BudgetExceeded, BudgetPermit},
};

/// The memory of a response beside its body.
const OVERHEAD_BYTES: usize = 256;

/// The `Retry-After` of a response that found no memory.
const RETRY_DELAY: Duration = Duration::from_secs(1);

type ReplyPermit = BudgetPermit<Arc<str>>;

/// Whose share a request's body and response count against, in the request's extensions.
/// Authentication fills it in.
#[derive(Debug, Clone, Default)]
pub(crate) struct ShareOwner(Arc<OnceLock<Option<Arc<str>>>>);

impl ShareOwner {
    pub(crate) fn set_caller(&self, caller: &Caller) {
        let _ = self.0.set(caller.subject().map(Arc::from));
    }

    /// The subject of the caller's token; `None` without one: a service, or authentication is off.
    /// Requests without a caller, such as those that lack a token, share one share.
    pub(crate) fn name(&self) -> Option<Arc<str>> {
        self.0.get().cloned().unwrap_or_else(|| Some(Arc::from("")))
    }
}

/// Counts the bytes of responses against a budget of `max_bytes`. Responses of unknown length are
/// streams, which have limits of their own.
pub(crate) fn count_replies<S>(
    max_bytes: usize,
    metrics: Metrics,
) -> impl Layer<S, Service = ReplyService<S>> + Clone {
    let budget = Budget::new(max_bytes);
    layer_fn(move |inner| ReplyService { inner, budget: budget.clone(), metrics: metrics.clone() })
}

#[derive(Debug, Clone)]
pub(crate) struct ReplyService<S> {
    inner: S,
    budget: Budget<Arc<str>>,
    metrics: Metrics,
}

impl<S> Service<Request> for ReplyService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>();
        let is_refusable = request.method() == Method::GET
            && !route.is_some_and(|route| ALWAYS_ADMITTED.contains(&route.as_str()));
        let owner = ShareOwner::default();
        request.extensions_mut().insert(owner.clone());
        let (budget, metrics) = (self.budget.clone(), self.metrics.clone());
        let answer = self.inner.call(request);
        Box::pin(async move {
            let response = answer.await?;
            let Some(bytes) = response.body().size_hint().exact() else { return Ok(response) };
            if bytes == 0 {
                return Ok(response);
            }
            let amount =
                usize::try_from(bytes).unwrap_or(usize::MAX).saturating_add(OVERHEAD_BYTES);
            // A refusal would deny what another method has done already.
            let permit = if is_refusable {
                budget.take(owner.name(), amount)
            } else {
                Ok(budget.take_anyway(owner.name(), amount))
            };
            Ok(match permit {
                Ok(permit) => response.map(|body| Body::new(CountedBody::new(body, permit))),
                Err(exceeded) => {
                    metrics.count_shed("replies");
                    (Extension(ShedRequest), memory_problem(exceeded)).into_response()
                }
            })
        })
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
