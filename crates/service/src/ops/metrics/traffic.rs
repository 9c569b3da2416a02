//! Requests and connections of one service. On the path of every request, so a route's handles are
//! looked up once and then kept by the layer in front of the route.

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
    routes: RwLock<HashMap<Box<str>, Arc<RouteTraffic>>>,
}

/// The requests of one route.
pub(crate) struct RouteTraffic {
    service: &'static str,
    name: Box<str>,
    seconds: Histogram,
    /// By method label and status, which are few.
    answered: RwLock<Vec<((&'static str, StatusCode), Counter)>>,
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

    /// The requests of this route.
    pub(crate) fn route(&self, name: &str) -> Arc<RouteTraffic> {
        if let Some(route) = self.routes.read().get(name) {
            return Arc::clone(route);
        }
        let service = self.service;
        let mut routes = self.routes.write();
        let route = routes.entry(name.into()).or_insert_with(|| {
            let seconds =
                histogram!(HTTP_SECONDS, "service" => service, "route" => name.to_owned());
            let answered = RwLock::default();
            Arc::new(RouteTraffic { service, name: name.into(), seconds, answered })
        });
        Arc::clone(route)
    }

    pub(super) fn in_flight(&self) -> usize {
        Arc::strong_count(&self.requests) - 1
    }

    pub(super) fn open_connections(&self) -> usize {
        Arc::strong_count(&self.connections) - 1
    }
}

impl RouteTraffic {
    /// The pattern, or `-`.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Records that a response began `took` after its request.
    pub(crate) fn record_response(&self, method: &Method, status: StatusCode, took: Duration) {
        self.seconds.record(took);
        let key = (method_label(method), status);
        let find = |answered: &[((&'static str, StatusCode), Counter)]| {
            let found = answered.iter().find(|(known, _)| *known == key);
            found.map(|(_, counter)| counter.increment(1)).is_some()
        };
        if find(&self.answered.read()) {
            return;
        }
        let mut answered = self.answered.write();
        // Another request may have registered it meanwhile.
        if !find(&answered) {
            let (method, status) = key;
            let counter = counter!(HTTP_REQUESTS, "service" => self.service, "method" => method,
                "route" => self.name.to_string(), "status" => status.as_str().to_owned());
            counter.increment(1);
            answered.push((key, counter));
        }
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
        let route = metrics.traffic().route("/send");
        let begun = Instant::now();
        for _ in 0..REQUESTS {
            let _present = metrics.traffic().count_request();
            let took = Duration::from_millis(1);
            route.record_response(&Method::POST, StatusCode::OK, took);
        }
        eprintln!("{:?} a request", begun.elapsed() / REQUESTS);
    }
}
