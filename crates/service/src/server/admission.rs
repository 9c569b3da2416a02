//! Admission control: bounds concurrent requests, each with a deadline, and sheds the rest with 503
//! at once. A queue would only delay them beyond their clients' time-outs and cost memory.

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{StatusCode, Uri};
use parking_lot::Mutex;
use tokio::time::Instant;

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
pub struct RequestPermit(Arc<PermitState>);

#[derive(Debug)]
struct PermitState {
    admission: Admission,
    held: Mutex<HeldPermits>,
    /// Whose share the request, its body and its response count against. Authentication fills it in.
    owner: OnceLock<Option<Arc<str>>>,
}

/// The permits of a request.
#[derive(Debug, Default)]
struct HeldPermits {
    /// True if it counts against the requests under way.
    is_counted: bool,
    /// Of the caller's share, returned when it is dropped.
    share: Option<BudgetPermit<Arc<str>>>,
}

impl RequestPermit {
    /// Lets another request be admitted.
    pub fn release(&self) {
        self.0.release();
    }

    /// Counts the request, its body and its response against the share of its caller, once the token
    /// is verified. 429 if the caller has a quarter of all requests under way.
    pub(crate) fn count_caller(&self, caller: &Caller) -> Result<(), Problem> {
        let subject = caller.shared_subject();
        let _ = self.0.owner.set(subject.clone());
        let Some(subject) = subject else { return Ok(()) };
        let share = self.0.admission.0.shares.take(Some(subject), 1).map_err(|_| {
            self.count_shed("requests");
            let message = "Too many of your requests are under way; wait for their answers.";
            Problem::new(StatusCode::TOO_MANY_REQUESTS, message).retry_after(RETRY_DELAY)
        })?;
        self.0.held.lock().share = Some(share);
        Ok(())
    }

    /// The subject of the caller's token; `None` without one: a service, or authentication is off.
    /// Requests without a caller, such as those that lack a token, share one share.
    pub(crate) fn owner(&self) -> Option<Arc<str>> {
        self.0.owner.get().cloned().unwrap_or_else(|| Some(Arc::from("")))
    }

    /// Counts the request as shed, by this reason.
    pub fn count_shed(&self, reason: &'static str) {
        self.0.admission.0.metrics.count_shed(reason);
    }
}

impl PermitState {
    fn release(&self) {
        let held = std::mem::take(&mut *self.held.lock());
        if held.is_counted {
            self.admission.0.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Drop for PermitState {
    fn drop(&mut self) {
        self.release();
    }
}

/// Counts the requests under way. A cheap handle, to be cloned.
#[derive(Debug, Clone)]
pub(crate) struct Admission(Arc<AdmissionState>);

#[derive(Debug)]
struct AdmissionState {
    metrics: Metrics,
    max_requests: usize,
    under_way: AtomicUsize,
    shares: Budget<Arc<str>>,
    /// When the last warning was logged, and the number of requests shed since.
    last_warning: Mutex<(Option<Instant>, u64)>,
}

/// Marks the response to a shed request. There may be thousands a second: the request log has them
/// at debug level, and this module warns once in a while.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ShedRequest;

impl Admission {
    /// Admits up to `max_requests` at a time.
    pub(crate) fn new(max_requests: usize, metrics: Metrics) -> Self {
        Self(Arc::new(AdmissionState {
            metrics,
            max_requests,
            under_way: AtomicUsize::new(0),
            shares: Budget::new(max_requests),
            last_warning: Mutex::default(),
        }))
    }

    fn log_shedding(&self) {
        let mut last_warning = self.0.last_warning.lock();
        last_warning.1 += 1;
        if last_warning.0.is_none_or(|at| at.elapsed() >= LOG_INTERVAL) {
            tracing::warn!(
                http.shed = last_warning.1,
                "too many concurrent requests (--max-requests); shedding the rest"
            );
            *last_warning = (Some(Instant::now()), 0);
        }
    }

    /// Admits a request to this route, or refuses it.
    pub(crate) fn try_admit(&self, uri: &Uri, route: &str) -> Result<RequestPermit, Problem> {
        let length = uri.path_and_query().map_or(0, |path| path.as_str().len());
        if length > MAX_URI_BYTES {
            let message =
                format!("The path and query have {length} bytes; the maximum is {MAX_URI_BYTES}.");
            let problem = Problem::new(StatusCode::URI_TOO_LONG, message);
            return Err(problem.with("limit", MAX_URI_BYTES));
        }
        let is_counted = !ALWAYS_ADMITTED.contains(&route);
        if is_counted && !self.count_one_more() {
            self.0.metrics.count_shed("requests");
            self.log_shedding();
            let message = "Too many concurrent requests; try again shortly.";
            return Err(Problem::unavailable(message, RETRY_DELAY));
        }
        Ok(RequestPermit(Arc::new(PermitState {
            admission: self.clone(),
            held: Mutex::new(HeldPermits { is_counted, share: None }),
            owner: OnceLock::new(),
        })))
    }

    /// Returns false at the limit.
    fn count_one_more(&self) -> bool {
        let AdmissionState { under_way, max_requests, .. } = &*self.0;
        let is_below = under_way.fetch_add(1, Ordering::Relaxed) < *max_requests;
        if !is_below {
            under_way.fetch_sub(1, Ordering::Relaxed);
        }
        is_below
    }
}
