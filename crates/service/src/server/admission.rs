//! Admission control: bounds concurrent requests, each with a deadline, and sheds the rest with 503
//! at once. A queue would only delay them beyond their clients' time-outs and cost memory.

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
use tower::{Layer, Service, layer::layer_fn};

use crate::{
    auth::Caller,
    ops::metrics::Metrics,
    problem::Problem,
    server::budget::{Budget, BudgetPermit},
};

/// A cursor and a token fit in a quarter of it.
const MAX_URI_BYTES: usize = 16 << 10;

/// The `Retry-After` of a shed request.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// Least time between two warnings of shed requests.
const LOG_INTERVAL: Duration = Duration::from_secs(5);

/// Cheap routes that are never shed: operators and orchestrators need them most under load.
pub(super) const ALWAYS_ADMITTED: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// A request's permit, in its extensions. A handler that waits for long releases it and takes a
/// permit of its own kind.
#[derive(Debug, Clone)]
pub struct RequestPermit {
    held: Arc<Mutex<HeldPermits>>,
    shares: Budget<Arc<str>>,
    metrics: Metrics,
}

/// The permits of a request, which are returned when they are dropped.
#[derive(Debug, Default)]
struct HeldPermits {
    _request: Option<OwnedSemaphorePermit>,
    /// Of the caller's share.
    share: Option<BudgetPermit<Arc<str>>>,
}

impl RequestPermit {
    /// Lets another request be admitted.
    pub fn release(&self) {
        *self.held.lock() = HeldPermits::default();
    }

    /// Counts the request against the share of its caller, once the token is verified. 429 if the
    /// caller has a quarter of all requests under way.
    pub(crate) fn take_share(&self, caller: &Caller) -> Result<(), Problem> {
        let Some(subject) = caller.subject() else { return Ok(()) };
        let share = self.shares.take(Some(Arc::from(subject)), 1).map_err(|_| {
            self.count_shed("requests");
            let message = "Too many of your requests are under way; wait for their answers.";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_DELAY)
        })?;
        self.held.lock().share = Some(share);
        Ok(())
    }

    /// Counts the request as shed, by this reason.
    pub fn count_shed(&self, reason: &'static str) {
        self.metrics.count_shed(reason);
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Admission {
    metrics: Metrics,
    permits: Arc<Semaphore>,
    shares: Budget<Arc<str>>,
    deadline: Duration,
    /// When the last warning was logged, and the number of requests shed since.
    last_warning: Arc<Mutex<(Option<Instant>, u64)>>,
}

/// Marks the response to a shed request. There may be thousands a second: the request log has them
/// at debug level, and this module warns once in a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShedRequest;

impl Admission {
    /// Admits up to `max_requests` at a time, each with `deadline` until its response begins.
    pub(crate) fn new(max_requests: usize, deadline: Duration, metrics: Metrics) -> Self {
        Self {
            metrics,
            permits: Arc::new(Semaphore::new(max_requests)),
            shares: Budget::new(max_requests),
            deadline,
            last_warning: Arc::default(),
        }
    }

    pub(crate) fn into_layer<S>(self) -> impl Layer<S, Service = AdmissionService<S>> + Clone {
        layer_fn(move |inner| AdmissionService { inner, admission: self.clone() })
    }

    fn log_shedding(&self) {
        let mut last_warning = self.last_warning.lock();
        last_warning.1 += 1;
        if last_warning.0.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(
                http.shed = last_warning.1,
                "too many concurrent requests (--max-requests); shedding the rest"
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
            let message =
                format!("The path and query have {length} bytes; the maximum is {MAX_URI_BYTES}.");
            let problem = Problem::new(StatusCode::URI_TOO_LONG, message);
            return Err(problem.with("limit", MAX_URI_BYTES));
        }
        if route.is_some_and(|route| ALWAYS_ADMITTED.contains(&route)) {
            return Ok(None);
        }
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Ok(Some(permit));
        }
        self.metrics.count_shed("requests");
        self.log_shedding();
        let message = "Too many concurrent requests; try again shortly.";
        Err(Problem::unavailable(message, RETRY_DELAY))
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
                held: Arc::new(Mutex::new(HeldPermits { _request: permit, share: None })),
                shares: self.admission.shares.clone(),
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
            // A handler may keep the extensions, but not the permit.
            permit.release();
            answer.unwrap_or_else(|_| {
                permit.count_shed("deadline");
                let message = format!(
                    "No response within {} s; the outcome of the request is unknown.",
                    deadline.as_secs_f64()
                );
                Ok(Problem::new(StatusCode::GATEWAY_TIMEOUT, message).into_response())
            })
        })
    }
}
