//! One log line a request: the method, the matched route, the status and the time until the
//! response began. The same measurement feeds metrics and traces. Paths and queries as sent are
//! never logged: they hold ids and tokens.

use std::time::Duration;

use axum::{http::Method, response::Response};

use crate::{ops::printable::printable, problem::Problem, server::admission::ShedRequest};

/// The most characters of a problem's message in a log line.
const MAX_MESSAGE_CHARS: usize = 200;

/// Logs a request under the target `http`: 500 at error, other 5xx at warn, everything else at debug.
pub(crate) fn log_request(method: &Method, route: &str, response: &Response, took: Duration) {
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
    use crate::{ops::metrics::Metrics, server::http::add_layers, server::limits::HttpLimits};
    use axum::{Router, body::Body, extract::Request, http::StatusCode, routing::get};
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
            .route("/broken", get(async || StatusCode::INTERNAL_SERVER_ERROR));
        let metrics = Metrics::new("test", crate::ops::metrics::describe_service);
        let app = add_layers(app, &HttpLimits::default(), &metrics);
        {
            let _guard = tracing::subscriber::set_default(subscriber);
            for path in ["/inbox/4711?access_token=hunter2", "/away", "/broken", "/nowhere/4711"] {
                let request = Request::get(path)
                    .header("host", "test")
                    .body(Body::empty())
                    .expect("a request");
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
