//! Requests and connections of one service. On the path of every request, so the handles of each
//! route, method and status are cached.

use std::{collections::HashMap, sync::Arc, time::Duration};

use crate::ops::metrics::{HTTP_REQUESTS, HTTP_SECONDS};
use axum::http::{Method, StatusCode};
use metrics::{Counter, Histogram, counter, histogram};
use parking_lot::RwLock;

#[derive(Default)]
pub(crate) struct Traffic {
    service: &'static str,
    /// A request under way holds a clone.
    requests: Arc<()>,
    /// An open connection holds a clone.
    connections: Arc<()>,
    /// By matched route.
    routes: RwLock<HashMap<Box<str>, Route>>,
}

struct Route {
    seconds: Histogram,
    /// By method label and status.
    answered: HashMap<(&'static str, StatusCode), Counter>,
}

impl Traffic {
    pub(super) fn new(service: &'static str) -> Self {
        Self { service, ..Self::default() }
    }

    /// Counts an open connection until the result is dropped.
    pub(crate) fn count_connection(&self) -> Arc<()> {
        Arc::clone(&self.connections)
    }

    /// Counts a request under way until the result is dropped.
    pub(crate) fn count_request(&self) -> Arc<()> {
        Arc::clone(&self.requests)
    }

    /// Records that a response began `took` after its request.
    pub(crate) fn record_response(
        &self,
        method: &Method,
        route: &str,
        status: StatusCode,
        took: Duration,
    ) {
        let key = (method_label(method), status);
        let known = self.routes.read().get(route).is_some_and(|route| {
            let Some(answered) = route.answered.get(&key) else { return false };
            answered.increment(1);
            route.seconds.record(took);
            true
        });
        if !known {
            self.register_handles(key, route);
            self.record_response(method, route, status, took);
        }
    }

    /// Registers the missing handles.
    fn register_handles(&self, (method, status): (&'static str, StatusCode), route: &str) {
        let (service, label) = (self.service, route.to_owned());
        let mut routes = self.routes.write();
        let route = routes.entry(route.into()).or_insert_with(|| Route {
            seconds: histogram!(HTTP_SECONDS, "service" => service, "route" => label.clone()),
            answered: HashMap::new(),
        });
        route.answered.entry((method, status)).or_insert_with(|| {
            counter!(HTTP_REQUESTS, "service" => service, "method" => method,
                "route" => label, "status" => status.as_str().to_owned())
        });
    }

    pub(super) fn in_flight(&self) -> usize {
        Arc::strong_count(&self.requests) - 1
    }

    pub(super) fn open_connections(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }
}

/// Clients may invent methods; those share one label.
fn method_label(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::PATCH => "PATCH",
        Method::CONNECT => "CONNECT",
        Method::TRACE => "TRACE",
        _ => "OTHER",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn methods_that_a_client_invents_are_one() {
        let made_up = Method::from_bytes(b"PROPFIND").expect("a token");
        assert_eq!([method_label(&Method::GET), method_label(&made_up)], ["GET", "OTHER"]);
    }

    #[test]
    fn who_is_counted_is_not_any_more_when_they_are_gone() {
        let traffic = Traffic::new("test");
        let (one, _other) = (traffic.count_request(), traffic.count_request());
        assert_eq!((traffic.in_flight(), traffic.open_connections()), (2, 0));
        drop(one);
        let _connection = traffic.count_connection();
        assert_eq!((traffic.in_flight(), traffic.open_connections()), (1, 1));
    }

    #[tokio::test]
    #[ignore = "a measurement: cargo test --release -p service -- --ignored --nocapture costs"]
    async fn what_a_request_costs() {
        let metrics =
            crate::ops::metrics::Metrics::new("test", crate::ops::metrics::describe_service);
        const REQUESTS: u32 = 1_000_000;
        let begun = Instant::now();
        for _ in 0..REQUESTS {
            let _present = metrics.traffic().count_request();
            let took = Duration::from_millis(1);
            metrics.traffic().record_response(&Method::POST, "/send", StatusCode::OK, took);
        }
        eprintln!("{:?} a request", begun.elapsed() / REQUESTS);
    }
}
