//! One log line a request: the method, the matched route, the status and the time until the
//! response began. The same measurement feeds metrics and traces. Paths and queries as sent are
//! never logged: they hold ids and tokens.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::{Duration, Instant},
};

use axum::{
    extract::{MatchedPath, Request},
    http::Method,
    response::Response,
};
use tower::{Layer, Service, layer::layer_fn};
use tracing::Instrument as _;

use crate::{
    ops::metrics::Metrics,
    ops::printable::printable,
    ops::trace::{TraceParent, begin_span},
    problem::Problem,
    server::admission::ShedRequest,
};

/// The most characters of a problem's message in a log line.
const MAX_MESSAGE_CHARS: usize = 200;

/// Counts each request and logs it under the target `http`: 500 at error, other 5xx at warn,
/// everything else at debug. Handlers find a [`TraceParent`] in the extensions. With `http=debug`,
/// their events are in a span with the method and the route.
pub(crate) fn log_requests<S>(metrics: Metrics) -> impl Layer<S, Service = RequestLog<S>> + Clone {
    layer_fn(move |inner| RequestLog { inner, metrics: metrics.clone() })
}

#[derive(Clone)]
pub(crate) struct RequestLog<S> {
    inner: S,
    metrics: Metrics,
}

impl<S> Service<Request> for RequestLog<S>
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
        let started = Instant::now();
        let metrics = self.metrics.clone();
        let present = metrics.traffic().count_request();
        let method = request.method().clone();
        let route = request.extensions().get::<MatchedPath>().cloned();
        let name = route.as_ref().map_or("-", MatchedPath::as_str);
        let span = tracing::debug_span!(target: "http", "request", http.method = %method, http.route = name);
        let parent = TraceParent::from_headers(request.headers());
        let (trace_parent, end_span) = begin_span(&method, name, parent);
        if let Some(trace_parent) = trace_parent {
            request.extensions_mut().insert(trace_parent);
        }
        let response = span.in_scope(|| self.inner.call(request)).instrument(span);
        Box::pin(async move {
            let response = response.await?;
            let took = started.elapsed();
            drop(present);
            end_span(response.status().as_u16());
            let name = route.as_ref().map_or("-", MatchedPath::as_str);
            metrics.traffic().record_response(&method, name, response.status(), took);
            log_request(&method, name, &response, took);
            Ok(response)
        })
    }
}

fn log_request(method: &Method, route: &str, response: &Response, took: Duration) {
    let status = response.status().as_u16();
    let latency = || took.as_micros() as f64 / 1000.0;
    // A message may repeat what the client sent.
    let problem = response.extensions().get::<Problem>();
    let message = || problem.map(|problem| printable(problem.message(), MAX_MESSAGE_CHARS));
    match status {
        500 => tracing::error!(
            target: "http",
            { http.method = %method, http.route = route, http.status = status,
               http.latency_ms = latency(), problem.message = message() },
            "request failed"
        ),
        // A probe asks every second; not being ready is a normal answer.
        501.. if route != "/readyz" && response.extensions().get::<ShedRequest>().is_none() => {
            tracing::warn!(
                target: "http",
                { http.method = %method, http.route = route, http.status = status,
                   http.latency_ms = latency(), problem.message = message() },
                "request failed"
            );
        }
        _ => tracing::debug!(
            target: "http",
            { http.method = %method, http.route = route, http.status = status,
               http.latency_ms = latency(), problem.message = message() },
            "request"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, http::StatusCode, routing::get};
    use std::{
        io,
        sync::{Arc, Mutex, PoisonError},
    };
    use tower::ServiceExt as _;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_request_is_logged_with_its_route_and_never_with_its_path_or_query() {
        let lines = Lines::default();
        let writer = lines.clone();
        let subscriber = tracing_subscriber::fmt()
            .json()
            .flatten_event(true)
            .with_max_level(tracing::Level::DEBUG)
            .with_writer(move || writer.clone())
            .finish();
        let app = Router::new()
            .route("/inbox/{id}", get(async || "hello"))
            .route("/away", get(async || Problem::unavailable("Kafka is away.", Duration::ZERO)))
            .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR))
            .layer(log_requests(Metrics::new("test", crate::ops::metrics::describe_service)));
        {
            let _guard = tracing::subscriber::set_default(subscriber);
            for path in ["/inbox/4711?access_token=hunter2", "/away", "/broken", "/nowhere/4711"] {
                let request = Request::get(path).body(Body::empty()).expect("a request");
                app.clone().oneshot(request).await.expect("infallible");
            }
        }
        let text = lines.0.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let text = String::from_utf8(text).expect("text");
        assert!(!text.contains("hunter2") && !text.contains("4711"), "{text}");
        let events: Vec<serde_json::Value> =
            text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let seen: Vec<_> = events
            .iter()
            .map(|event| (&event["level"], &event["http.route"], &event["http.status"]))
            .map(|(level, route, status)| format!("{level} {route} {status}").replace('"', ""))
            .collect();
        assert_eq!(
            seen,
            ["DEBUG /inbox/{id} 200", "WARN /away 503", "ERROR /broken 500", "DEBUG - 404"]
        );
        assert!(
            events
                .iter()
                .all(|event| event["http.method"] == "GET" && event["http.latency_ms"].is_f64())
        );
        assert_eq!(events[1]["problem.message"], "Kafka is away.");
    }
}
