//! What is counted, as text for Prometheus on `GET /metrics`.
//!
//! Whatever happens is counted where it happens, through the facade `metrics`; one recorder a
//! process keeps it. What is a state rather than a happening (how many partitions are live) is not
//! kept here at all: it is asked for at the scrape, so it is never old, and gone when it is gone.
//!
//! - `names`: the metrics of this crate, described;
//! - `catalogue`: the metrics of a whole service, as they were described;
//! - `traffic`: requests and connections;
//! - `scrape`: one answer, put together from the recorder and from what was asked;
//! - `process`: what the system says of this process.

mod names;
mod catalogue;
mod traffic;
mod scrape;
mod process;

use std::{
    pin::Pin,
    sync::{Arc, OnceLock},
    time::Duration,
};

use axum::{
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use metrics::counter;
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use utoipa_axum::{router::OpenApiRouter, routes};

pub use catalogue::{Catalogue, MetricDescription};
pub use names::*;
pub use scrape::Scrape;
use traffic::Traffic;

/// Upper bounds of the buckets that durations are counted in, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// The same for rebuilds.
const REBUILD_BUCKETS: [f64; 12] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// How often the recorder puts what it was told into buckets. Until then it keeps each value, 16
/// bytes of it, of which a busy service has 100,000 a second.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The format's media type, see <https://prometheus.io/docs/instrumenting/exposition_formats/>.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The metrics of one service. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Metrics(Arc<MetricsInner>);

struct MetricsInner {
    /// `producer` or `consumer`: the label by which those are told apart that share a process.
    service: &'static str,
    recorder: &'static PrometheusHandle,
    /// The service's own metrics: of what the recorder has, these alone are served.
    catalogue: Arc<Catalogue>,
    traffic: Traffic,
}

type Asked = Pin<Box<dyn Future<Output = Scrape> + Send>>;
type Ask = Arc<dyn Fn(Scrape) -> Asked + Send + Sync>;

#[derive(Clone)]
struct MetricsState {
    metrics: Metrics,
    ask: Ask,
}

impl Metrics {
    /// Of this service, whose metrics `describe` describes. To be called within a tokio runtime, before anything of the service is
    /// made that keeps a counter: without a recorder it would count for nobody.
    ///
    /// Any number of services may run in one process, at the same time or in turn.
    #[must_use]
    pub fn new(service: &'static str, describe: fn()) -> Self {
        let recorder = RECORDER.get_or_init(install_recorder);
        describe();
        let catalogue = Arc::new(Catalogue::from_descriptions(describe));
        let shared =
            Arc::new(MetricsInner { service, recorder, catalogue, traffic: Traffic::new(service) });
        let served = Arc::downgrade(&shared);
        tokio::spawn(async move {
            // It ends with the service, whose last handle is that of its routes.
            while served.strong_count() > 0 {
                recorder.run_upkeep();
                tokio::time::sleep(UPKEEP_INTERVAL).await;
            }
        });
        Self(shared)
    }

    /// `GET /metrics`. At each scrape `ask` is given the answer, to add what it knows.
    pub fn routes<S, F, R>(&self, ask: F) -> OpenApiRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(Scrape) -> R + Send + Sync + 'static,
        R: Future<Output = Scrape> + Send + 'static,
    {
        let ask: Ask = Arc::new(move |scrape| Box::pin(ask(scrape)));
        OpenApiRouter::new()
            .routes(routes!(serve_metrics))
            .with_state(MetricsState { metrics: self.clone(), ask })
    }

    /// A request or a connection was turned away, for this reason.
    pub(crate) fn count_shed(&self, reason: &'static str) {
        counter!(HTTP_SHED, "service" => self.0.service, "reason" => reason).increment(1);
    }

    pub(crate) fn traffic(&self) -> &Traffic {
        &self.0.traffic
    }
}

impl std::fmt::Debug for Metrics {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Metrics({})", self.0.service)
    }
}

/// What is counted, for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "Every metric of this service, in Prometheus' text format",
        body = String, content_type = "text/plain")))]
async fn serve_metrics(State(MetricsState { metrics, ask }): State<MetricsState>) -> Response {
    let MetricsInner { service, recorder, catalogue, traffic } = &*metrics.0;
    let mut scrape = Scrape::new(service, Arc::clone(catalogue));
    let version = env!("CARGO_PKG_VERSION");
    scrape.add_sample(BUILD_INFO, &[("service", service), ("version", version)], 1.0);
    scrape.add_sample(HTTP_IN_FLIGHT, &[("service", service)], traffic.in_flight() as f64);
    scrape.add_sample(HTTP_CONNECTIONS, &[("service", service)], traffic.open_connections() as f64);
    let mut scrape = ask(scrape).await;
    // Thousands of streams are as many files to count.
    if let Ok(Some(process)) = tokio::task::spawn_blocking(process::read_process).await {
        process.add_to(&mut scrape);
    }
    let text = scrape.render_text(&recorder.render());
    ([(header::CONTENT_TYPE, MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")], text)
        .into_response()
}

fn install_recorder() -> PrometheusHandle {
    let recorder = build_recorder().unwrap_or_else(|error| {
        tracing::error!(%error, "the buckets of the metrics are wrong");
        PrometheusBuilder::new()
    });
    let recorder = recorder.build_recorder();
    let handle = recorder.handle();
    if let Err(error) = metrics::set_global_recorder(recorder) {
        tracing::warn!(%error, "somebody else in this process keeps its metrics");
    }
    handle
}

fn build_recorder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&LATENCY_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_rebuild_seconds".to_owned()), &REBUILD_BUCKETS)
}
