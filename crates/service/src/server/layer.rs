//! The layer in front of every route: log, metrics and trace of a request, security headers, problem
//! bodies, panics, rules of HTTP, admission, origin, limits of bodies and of responses.
//!
//! It is one service with one future, because each layer of a router costs two boxes and a copy of
//! the request. A request that is answered without waiting has no timer.

use std::{
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use axum::{
    Extension,
    extract::{DefaultBodyLimit, MatchedPath, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use hyper::body::Body as _;
use tokio::time::{Sleep, sleep_until};
use tower::{Layer, Service};
use tracing::Span;

use crate::{
    extract::BodyBounds,
    ops::metrics::{Metrics, RouteTraffic},
    ops::trace::{RequestSpan, TraceParent, begin_span},
    problem::Problem,
    server::admission::{Admission, RequestPermit, ShedRequest},
    server::fallback,
    server::limits::HttpLimits,
    server::origin::OriginRule,
    server::replies::ReplyBudget,
    server::request_log::log_request,
    server::request_rules,
};

/// The layer of every service. To be the last layer of a router, with all routes.
///
/// - Counts each request and logs it under the target `http`. Handlers find a
///   [`TraceParent`] in the extensions; with `http=debug`, their events are in a span.
/// - Handlers find a [`RequestPermit`]. Requests with a body also have a `DefaultBodyLimit` and
///   [`BodyBounds`], which apply to extractors: a handler that streams its body must bound it itself.
/// - A response's own security headers win.
#[derive(Clone)]
pub struct ServerLayer(Arc<LayerState>);

#[derive(Clone)]
struct LayerState {
    metrics: Metrics,
    admission: Admission,
    request_timeout: Duration,
    max_body_bytes: usize,
    body_bounds: BodyBounds,
    replies: ReplyBudget,
    origins: Option<OriginRule>,
}

impl ServerLayer {
    /// A layer with these limits.
    #[must_use]
    pub fn new(limits: &HttpLimits, metrics: &Metrics) -> Self {
        Self(Arc::new(LayerState {
            metrics: metrics.clone(),
            admission: Admission::new(limits.max_requests, metrics.clone()),
            request_timeout: limits.request_timeout,
            max_body_bytes: limits.max_body_bytes,
            body_bounds: BodyBounds::new(limits.body_timeout, limits.max_bodies_bytes),
            replies: ReplyBudget::new(limits.max_replies_bytes, metrics.clone()),
            origins: None,
        }))
    }

    /// Also refuses requests of foreign origins.
    #[must_use]
    pub fn with_origin_rule(self, rule: OriginRule) -> Self {
        Self(Arc::new(LayerState { origins: Some(rule), ..(*self.0).clone() }))
    }
}

impl<S> Layer<S> for ServerLayer {
    type Service = ServerService<S>;

    fn layer(&self, inner: S) -> ServerService<S> {
        ServerService { inner, state: Arc::clone(&self.0), route: Arc::default() }
    }
}

/// The service of [`ServerLayer`].
#[derive(Clone)]
pub struct ServerService<S> {
    inner: S,
    state: Arc<LayerState>,
    /// The metrics of the route that was matched last: axum wraps each route on its own.
    route: Arc<OnceLock<Arc<RouteTraffic>>>,
}

impl<S> ServerService<S> {
    fn find_route(&self, request: &Request) -> Arc<RouteTraffic> {
        let name = request.extensions().get().map_or("-", MatchedPath::as_str);
        match self.route.get() {
            Some(route) if route.name() == name => Arc::clone(route),
            _ => {
                let route = self.state.metrics.traffic().route(name);
                let _ = self.route.set(Arc::clone(&route));
                route
            }
        }
    }
}

impl<S> Service<Request> for ServerService<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = ServerFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let started = Instant::now();
        let route = self.find_route(&request);
        let state = Arc::clone(&self.state);
        let present = state.metrics.traffic().count_request();
        let method = request.method().clone();
        let name = route.name();
        let span = tracing::debug_span!(target: "http", "request", http.method = %method, http.route = name);
        let parent = TraceParent::from_headers(request.headers());
        let (trace_parent, trace) = begin_span(&method, name, parent);
        if let Some(trace_parent) = trace_parent {
            request.extensions_mut().insert(trace_parent);
        }
        let (stage, permit) = match state.admit_request(&mut request, name) {
            Err(refusal) => (Stage::Answered(Some(*refusal)), None),
            Ok(permit) => {
                let inner = &mut self.inner;
                let call = AssertUnwindSafe(|| span.in_scope(|| inner.call(request)));
                let stage = match catch_unwind(call) {
                    Ok(handler) => Stage::Handler { handler, timer: None },
                    Err(panic) => Stage::Answered(Some(fallback::respond_to_panic(panic))),
                };
                (stage, Some(permit))
            }
        };
        let request = RequestUnderWay { started, state, route, method, permit, present, trace };
        ServerFuture { stage, span, request: Some(request) }
    }
}

impl LayerState {
    /// The request's permit, which is then in its extensions; or the response that refuses it.
    fn admit_request(
        &self,
        request: &mut Request,
        route: &str,
    ) -> Result<RequestPermit, Box<Response>> {
        let refuse = |problem: Problem| Box::new(problem.into_response());
        request_rules::check_rules(request).map_err(refuse)?;
        let permit = self
            .admission
            .try_admit(request.uri(), route)
            .map_err(|problem| Box::new((Extension(ShedRequest), problem).into_response()))?;
        if let Some(rule) = &self.origins {
            rule.check(request).map_err(refuse)?;
        }
        request.extensions_mut().insert(permit.clone());
        if !request.body().is_end_stream() {
            DefaultBodyLimit::max(self.max_body_bytes).apply(request);
            request.extensions_mut().insert(self.body_bounds.clone());
        }
        Ok(permit)
    }
}

/// The future of [`ServerService`].
pub struct ServerFuture<F> {
    stage: Stage<F>,
    span: Span,
    /// `None` once it was answered.
    request: Option<RequestUnderWay>,
}

enum Stage<F> {
    /// The handler works. `timer` is set once it waits.
    Handler { handler: F, timer: Option<Pin<Box<Sleep>>> },
    /// `None` once it was taken.
    Answered(Option<Response>),
    /// An error gets the body of a problem.
    Rewriting(Pin<Box<dyn Future<Output = Response> + Send>>),
}

struct RequestUnderWay {
    started: Instant,
    state: Arc<LayerState>,
    route: Arc<RouteTraffic>,
    method: Method,
    /// `None` if it was not admitted.
    permit: Option<RequestPermit>,
    /// Counts it as under way.
    present: Arc<()>,
    trace: Option<RequestSpan>,
}

impl<F> Future for ServerFuture<F>
where
    F: Future<Output = Result<Response, Infallible>> + Unpin,
{
    type Output = Result<Response, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Self { stage, span, request } = self.get_mut();
        let _entered = span.enter();
        loop {
            let response = match stage {
                Stage::Handler { handler, timer } => {
                    let poll = AssertUnwindSafe(|| Pin::new(handler).poll(cx));
                    match catch_unwind(poll) {
                        Ok(Poll::Ready(Ok(response))) => response,
                        Ok(Poll::Pending) => {
                            let Some(request) = request else { return Poll::Pending };
                            ready!(request.poll_deadline(timer, cx))
                        }
                        Err(panic) => fallback::respond_to_panic(panic),
                    }
                }
                Stage::Answered(response) => response.take().unwrap_or_default(),
                Stage::Rewriting(rewritten) => {
                    let response = ready!(rewritten.as_mut().poll(cx));
                    let answered = request.take().map(|request| request.finish(response));
                    return Poll::Ready(Ok(answered.unwrap_or_default()));
                }
            };
            // A handler may keep the extensions, but not the permit.
            if let Some(permit) = request.as_ref().and_then(|request| request.permit.as_ref()) {
                permit.release();
            }
            if fallback::lacks_problem_body(&response) {
                *stage = Stage::Rewriting(Box::pin(fallback::write_problem_body(response)));
                continue;
            }
            *stage = Stage::Answered(None);
            let answered = request.take().map(|request| request.finish(response));
            return Poll::Ready(Ok(answered.unwrap_or_default()));
        }
    }
}

impl RequestUnderWay {
    /// Resolves at the deadline of the request, with a 504.
    fn poll_deadline(
        &self,
        timer: &mut Option<Pin<Box<Sleep>>>,
        cx: &mut Context<'_>,
    ) -> Poll<Response> {
        let limit = self.state.request_timeout;
        let timer =
            timer.get_or_insert_with(|| Box::pin(sleep_until((self.started + limit).into())));
        ready!(timer.as_mut().poll(cx));
        self.state.metrics.count_shed("deadline");
        let message = format!(
            "No response within {} s; the outcome of the request is unknown.",
            limit.as_secs_f64()
        );
        Poll::Ready(Problem::new(StatusCode::GATEWAY_TIMEOUT, message).into_response())
    }

    fn finish(self, mut response: Response) -> Response {
        add_security_headers(&mut response);
        let Self { started, state, route, method, permit, present, trace } = self;
        let response = state.replies.count_reply(response, &method, route.name(), permit.as_ref());
        let took = started.elapsed();
        drop(present);
        if let Some(trace) = trace {
            trace.end(response.status().as_u16());
        }
        route.record_response(&method, response.status(), took);
        log_request(&method, route.name(), &response, took);
        response
    }
}

/// Forbids framing, cross-origin loads (CORP) and MIME sniffing.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

fn add_security_headers(response: &mut Response) {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
}
