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
const MAX_URI: usize = 16 << 10;

/// When one that found no place may come again.
const AGAIN: Duration = Duration::from_secs(1);

/// How often it is said that requests are turned away, while they are.
const SAY_AGAIN: Duration = Duration::from_secs(5);

/// What must be answered however much there is to do, or an operator would see nothing and an
/// orchestrator would restart what only is busy. Each is cheap.
const ALWAYS: [&str; 3] = ["/livez", "/readyz", "/metrics"];

/// The place that a request has among those under way, in its extensions. A handler that is going
/// to wait for long gives it back, and takes one among those who wait.
#[derive(Debug, Clone)]
pub struct Place {
    permit: Arc<Mutex<Option<OwnedSemaphorePermit>>>,
    metrics: Metrics,
}

impl Place {
    /// Lets another request in instead of this one.
    pub fn leave(&self) {
        *self.permit.lock() = None;
    }

    /// Counts the request as turned away, for this reason.
    pub fn shed(&self, reason: &'static str) {
        self.metrics.shed(reason);
    }
}

/// Lets so many requests in at a time.
#[derive(Debug, Clone)]
pub(crate) struct Admission {
    metrics: Metrics,
    places: Arc<Semaphore>,
    deadline: Duration,
    /// When it was last said that requests are turned away, and how many were since.
    said: Arc<Mutex<(Option<Instant>, u64)>>,
}

/// Marks the answer to a request that was turned away. There may be thousands a second: the request
/// log has them at debug, and what happens is said here, once in a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TurnedAway;

impl Admission {
    /// So many at a time, each with so long until its response begins.
    pub(crate) fn new(most: usize, deadline: Duration, metrics: Metrics) -> Self {
        Self { metrics, places: Arc::new(Semaphore::new(most)), deadline, said: Arc::default() }
    }

    fn say(&self) {
        let mut said = self.said.lock();
        said.1 += 1;
        if said.0.is_none_or(|at| at.elapsed() >= SAY_AGAIN) {
            tracing::warn!(
                http.turned_away = said.1,
                "as many requests are under way as --max-requests allows; others are told to come again"
            );
            *said = (Some(Instant::now()), 0);
        }
    }

    fn admit(
        &self,
        uri: &Uri,
        route: Option<&str>,
    ) -> Result<Option<OwnedSemaphorePermit>, Problem> {
        let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
        if length > MAX_URI {
            let message = format!("The address has {length} bytes, and may have {MAX_URI}.");
            return Err(Problem::new(StatusCode::URI_TOO_LONG, message).with("limit", MAX_URI));
        }
        if route.is_some_and(|route| ALWAYS.contains(&route)) {
            return Ok(None);
        }
        match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => Ok(Some(place)),
            Err(_) => {
                self.metrics.shed("requests");
                self.say();
                let message = "This service has too much to do just now; try again shortly.";
                Err(Problem::unavailable(message, AGAIN))
            }
        }
    }
}

impl<S> Layer<S> for Admission {
    type Service = Admitting<S>;

    fn layer(&self, inner: S) -> Admitting<S> {
        Admitting { inner, admission: self.clone() }
    }
}

#[derive(Debug, Clone)]
pub(crate) struct Admitting<S> {
    inner: S,
    admission: Admission,
}

impl<S> Service<Request> for Admitting<S>
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
        let place = match self.admission.admit(request.uri(), route) {
            Ok(permit) => Place {
                permit: Arc::new(Mutex::new(permit)),
                metrics: self.admission.metrics.clone(),
            },
            Err(problem) => {
                let answer = (Extension(TurnedAway), problem).into_response();
                return Box::pin(async { Ok(answer) });
            }
        };
        request.extensions_mut().insert(place.clone());
        let deadline = self.admission.deadline;
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = timeout(deadline, answer).await;
            // Whoever keeps the request's extensions does not keep its place.
            place.leave();
            answer.unwrap_or_else(|_| {
                place.shed("deadline");
                let message = format!(
                    "No answer within {} s; whether the request was carried out is not known.",
                    deadline.as_secs_f64()
                );
                Ok(Problem::new(StatusCode::GATEWAY_TIMEOUT, message).into_response())
            })
        })
    }
}
