//! Metrics in Prometheus' text format on `GET /metrics`.
//!
//! Events are counted where they happen, through the facade `metrics`, in one recorder a process.
//! States (such as the number of live partitions) are read at each scrape instead, so they are
//! never stale.

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
pub(crate) use traffic::RouteTraffic;
use traffic::Traffic;

/// Bucket bounds of durations, in seconds.
const LATENCY_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];
/// Bucket bounds of rebuilds, in seconds.
const REBUILD_BUCKETS: [f64; 12] =
    [0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0];

/// The recorder moves samples into buckets this often. Until then each takes 16 bytes, of which a
/// busy service has 100,000 a second.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);

/// The format's media type, see <https://prometheus.io/docs/instrumenting/exposition_formats/>.
const MEDIA_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

static RECORDER: OnceLock<PrometheusHandle> = OnceLock::new();

/// The metrics of one service. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Metrics(Arc<MetricsInner>);

struct MetricsInner {
    /// `producer` or `consumer`: the label that separates services in one process.
    service: &'static str,
    recorder: &'static PrometheusHandle,
    /// The service's metrics; only these are served.
    catalogue: Arc<Catalogue>,
    traffic: Traffic,
}

type ScrapeFuture = Pin<Box<dyn Future<Output = Scrape> + Send>>;
type Collector = Arc<dyn Fn(Scrape) -> ScrapeFuture + Send + Sync>;

#[derive(Clone)]
struct MetricsState {
    metrics: Metrics,
    collect: Collector,
}

impl Metrics {
    /// The metrics of this service, described by `describe`. Call it within a tokio runtime, before
    /// the service makes any counter: counters made without a recorder are lost.
    ///
    /// Any number of services may run in one process.
    #[must_use]
    pub fn new(service: &'static str, describe: fn()) -> Self {
        let recorder = RECORDER.get_or_init(install_recorder);
        describe();
        let catalogue = Arc::new(Catalogue::from_descriptions(describe));
        let shared =
            Arc::new(MetricsInner { service, recorder, catalogue, traffic: Traffic::new(service) });
        let served = Arc::downgrade(&shared);
        tokio::spawn(async move {
            // Ends with the last handle of the service.
            while served.strong_count() > 0 {
                recorder.run_upkeep();
                tokio::time::sleep(UPKEEP_INTERVAL).await;
            }
        });
        Self(shared)
    }

    /// `GET /metrics`. At each scrape `collect` adds the current states.
    pub fn routes<S, F, R>(&self, collect: F) -> OpenApiRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        F: Fn(Scrape) -> R + Send + Sync + 'static,
        R: Future<Output = Scrape> + Send + 'static,
    {
        let collect: Collector = Arc::new(move |scrape| Box::pin(collect(scrape)));
        OpenApiRouter::new()
            .routes(routes!(serve_metrics))
            .with_state(MetricsState { metrics: self.clone(), collect })
    }

    /// Counts a shed request or connection.
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

/// Metrics for Prometheus
#[utoipa::path(get, path = "/metrics", tag = "operation", operation_id = "metrics",
    responses((status = 200, description = "Every metric of this service, in Prometheus' text format",
        body = String, content_type = "text/plain")))]
async fn serve_metrics(State(MetricsState { metrics, collect }): State<MetricsState>) -> Response {
    let MetricsInner { service, recorder, catalogue, traffic } = &*metrics.0;
    let mut scrape = Scrape::new(service, Arc::clone(catalogue));
    let version = env!("CARGO_PKG_VERSION");
    scrape.add_sample(BUILD_INFO, &[("service", service), ("version", version)], 1.0);
    scrape.add_sample(HTTP_IN_FLIGHT, &[("service", service)], traffic.in_flight() as f64);
    scrape.add_sample(HTTP_CONNECTIONS, &[("service", service)], traffic.open_connections() as f64);
    let mut scrape = collect(scrape).await;
    // Counting open files takes long with thousands of streams.
    if let Ok(Some(process)) = tokio::task::spawn_blocking(process::read_process).await {
        process.iter().for_each(|(metric, value)| scrape.add_sample(metric, &[], *value));
    }
    let text = scrape.render_text(&recorder.render());
    ([(header::CONTENT_TYPE, MEDIA_TYPE), (header::CACHE_CONTROL, "no-store")], text)
        .into_response()
}

fn install_recorder() -> PrometheusHandle {
    let recorder = build_recorder().unwrap_or_else(|error| {
        tracing::error!(%error, "invalid histogram buckets");
        PrometheusBuilder::new()
    });
    let recorder = recorder.build_recorder();
    let handle = recorder.handle();
    if let Err(error) = metrics::set_global_recorder(recorder) {
        tracing::warn!(%error, "this process already has another metrics recorder");
    }
    handle
}

fn build_recorder() -> Result<PrometheusBuilder, BuildError> {
    PrometheusBuilder::new()
        .set_buckets(&LATENCY_BUCKETS)?
        .set_buckets_for_metric(Matcher::Suffix("_rebuild_seconds".to_owned()), &REBUILD_BUCKETS)
}
