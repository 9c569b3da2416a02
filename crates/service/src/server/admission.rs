//! Who is let in while there is much to do: so many requests at a time, each with a deadline. The
//! rest is told at once to come again (load shedding), because a request that waits long for its
//! turn is answered to nobody, and costs memory until then.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension,
    extract::{MatchedPath, Request},
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
};
use parking_lot::Mutex;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, timeout},
};
use tower::{Layer, Service};

use crate::{ops::metrics::Metrics, problem::Problem};

/// The longest path and query, in bytes. A cursor and a token fit in a quarter of it.
const MAX_URI_BYTES: usize = 16 << 10;

/// When one that found no permit may come again.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// How often it is last_warning that requests are turned away, while they are.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// What must be answered however much there is to do, or an operator would see nothing and an
/// orchestrator would restart what only is busy. Each is cheap.
const ALWAYS_ADMITTED: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// The permit that a request has among those under way, in its extensions. A handler that is going
/// to wait for long gives it back, and takes one among those who wait.
#[derive(Debug, Clone)]
pub struct RequestPermit {
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    metrics: Metrics,
}

impl RequestPermit {
    /// Lets another request in instead of this one.
    pub fn release(&self) {
        *self.permit.lock() = None;
    }

    /// Counts the request as turned away, for this reason.
    pub fn count_shed(&self, reason: &'static str) {
        self.metrics.count_shed(reason);
    }
}

/// Lets so many requests in at a time.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    metrics: Metrics,
    permits: Arc<Semaphore>,
    deadline: Duration,
    /// When it was last last_warning that requests are turned away, and how many were since.
    last_warning: Arc<Mutex<(Option<Instant>, u64)>>,
}

/// Marks the answer to a request that was turned away. There may be thousands a second: the request
/// log has them at debug, and what happens is last_warning here, once in a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShedRequest;

impl Admission {
    /// So many at a time, each with so long until its response begins.
    pub(crate) fn new(most: usize, deadline: Duration, metrics: Metrics) -> Self {
        Self {
            metrics,
            permits: Arc::new(Semaphore::new(most)),
            deadline,
            last_warning: Arc::default(),
        }
    }

    fn log_shedding(&self) {
        let mut last_warning = self.last_warning.lock();
        last_warning.1 += 1;
        if last_warning.0.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(
                http.turned_away = last_warning.1,
                "as many requests are under way as --max-requests allows; others are told to come again"
            );
            *last_warning = (Some(Instant::now()), 0);
        }
    }

    fn try_admit(
        &self,
        uri: &Uri,
        route: Option<&str>,
    ) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
        if length > MAX_URI_BYTES {
            let message = format!("The address has {length} bytes, and may have {MAX_URI_BYTES}.");
            return Err(
                Problem::new(StatusCode::URI_TOO_LONG, message).with("limit", MAX_URI_BYTES)
            );
        }
        if route.is_some_and(|route| ALWAYS_ADMITTED.contains(&route)) {
            return Ok(None);
        }
        match Arc::clone(&self.permits).try_acquire_owned() {
            Ok(permit) => Ok(Some(permit)),
            Err(_) => {
                self.metrics.count_shed("requests");
                self.log_shedding();
                let message = "This service has too much to do just now; try again shortly.";
                Err(Problem::unavailable(message, RETRY_DELAY))
            }
        }
    }
}

impl<S> Layer<S> for Admission {
    type Service = AdmissionService<S>;

    fn layer(&self, inner: S) -> AdmissionService<S> {
        AdmissionService { inner, admission: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct AdmissionService<S> {
    inner: S,
    admission: Admission,
}

impl<S> Service<Request> for AdmissionService<S>
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
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let permit = match self.admission.try_admit(request.uri(), route) {
            Ok(permit) => RequestPermit {
                permit: Arc::new(Mutex::new(permit)),
                metrics: self.admission.metrics.clone(),
            },
            Err(problem) => {
                let answer = (Extension(ShedRequest), problem).into_response();
                return Box::pin(async { Ok(answer) });
            }
        };
        request.extensions_mut().insert(permit.clone());
        let deadline = self.admission.deadline;
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = timeout(deadline, answer).await;
            // Whoever keeps the request's extensions does not keep its permit.
            permit.release();
            answer.unwrap_or_else(|_| {
                permit.count_shed("deadline");
                let message = format!(
                    "No answer within {} s; whether the request was carried out is not known.",
                    deadline.as_secs_f64()
                );
                Ok(Problem::new(StatusCode::GATEWAY_TIMEOUT, message).into_response())
            })
        })
    }
}
