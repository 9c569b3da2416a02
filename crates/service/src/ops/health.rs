//! Health: `/livez`, `/readyz`, and the client of the `healthcheck` subcommand. Services add their
//! own checks.

use std::{
    fmt::Display,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse as _, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};
use tokio::{
    io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader},
    net::{TcpStream, lookup_host},
    sync::Mutex,
    time::{Instant, timeout},
};

use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{openapi::ProblemBody, problem::Problem};

/// Bounds one check; a slower one has failed.
const CHECK_DEADLINE: Duration = Duration::from_secs(2);

/// A report answers all requests of this time, so that probes cause no load.
const REPORT_TTL: Duration = Duration::from_millis(500);

/// Bounds [`check_liveness`].
const LIVENESS_DEADLINE: Duration = Duration::from_secs(3);

type Outcome = Result<Value, String>;
type Check = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Outcome> + Send>> + Send + Sync>;

/// The checks behind `/readyz`.
pub struct Health {
    checks: Vec<(&'static str, Check)>,
    check_deadline: Duration,
    report_ttl: Duration,
    /// Locked while the checks run, so that concurrent requests wait for one run.
    last_report: Mutex<Option<(Instant, Arc<HealthReport>)>>,
}

impl Default for Health {
    fn default() -> Self {
        Self::new()
    }
}

impl Health {
    /// Without checks: always ready.
    #[must_use]
    pub fn new() -> Self {
        Self {
            checks: Vec::new(),
            check_deadline: CHECK_DEADLINE,
            report_ttl: REPORT_TTL,
            last_report: Mutex::default(),
        }
    }

    /// Adds a check. It returns details or the reason why this part is not ready; both are public
    /// and must hold no secret. A check that takes longer than 2 s is dropped.
    #[must_use]
    pub fn with_check<F, R>(mut self, name: &'static str, check: F) -> Self
    where
        F: Fn() -> R + Send + Sync + 'static,
        R: Future<Output = Outcome> + Send + 'static,
    {
        self.checks.push((name, Arc::new(move || Box::pin(check()))));
        self
    }

    /// `GET /livez`: 200 while the process answers. `GET /readyz`: 200 if every check passes,
    /// otherwise a 503 problem; both list the checks. All checks run concurrently, and a report is
    /// shared for half a second.
    pub fn routes<S: Clone + Send + Sync + 'static>(self) -> OpenApiRouter<S> {
        OpenApiRouter::new().routes(routes!(livez)).routes(routes!(readyz)).with_state(self.into())
    }
}

/// The body of `/livez`.
#[derive(Serialize, ToSchema)]
struct LiveBody {
    #[schema(example = "live")]
    status: &'static str,
}

/// The body of `/readyz`.
#[derive(Serialize, ToSchema)]
struct ReadyBody {
    #[schema(example = "ready")]
    status: &'static str,
    /// Each check by name, with `ok` and `detail`.
    checks: Map<String, Value>,
}

/// Check that the process answers
#[utoipa::path(get, path = "/livez", tag = "health",
    responses((status = 200, description = "It is alive", body = LiveBody)))]
async fn livez() -> Response {
    no_store(&LiveBody { status: "live" })
}

/// Check that the service can do its job
#[utoipa::path(get, path = "/readyz", tag = "health", responses(
    (status = 200, description = "It is ready", body = ReadyBody),
    (status = 503, description = "It is not ready; `checks` has the reasons", body = ProblemBody,
     content_type = "application/problem+json")))]
async fn readyz(State(health): State<Arc<Health>>) -> Response {
    // A task of its own: a client that disconnects must not stop checks that others wait for.
    match tokio::spawn(health.latest_report()).await {
        Ok(report) if report.failed.is_empty() => {
            no_store(&ReadyBody { status: "ready", checks: report.checks.clone() })
        }
        Ok(report) => Problem::unavailable(
            format!("not ready: {}", report.failed.join(", ")),
            Duration::from_secs(1),
        )
        .with("checks", &report.checks)
        .into_response(),
        Err(_) => Problem::internal().into_response(),
    }
}

fn no_store(body: &impl Serialize) -> Response {
    ([(header::CACHE_CONTROL, "no-store")], Json(body)).into_response()
}

struct HealthReport {
    /// The names of the checks that failed.
    failed: Vec<&'static str>,
    /// Each check's name with `ok` and `detail`.
    checks: Map<String, Value>,
}

impl Health {
    async fn latest_report(self: Arc<Self>) -> Arc<HealthReport> {
        let mut last = self.last_report.lock().await;
        if let Some((at, report)) = &*last
            && at.elapsed() < self.report_ttl
        {
            return Arc::clone(report);
        }
        let report = Arc::new(self.run_checks().await);
        *last = Some((Instant::now(), Arc::clone(&report)));
        report
    }

    async fn run_checks(&self) -> HealthReport {
        let deadline = self.check_deadline;
        let running: Vec<_> = self
            .checks
            .iter()
            .map(|(name, check)| {
                let check = Arc::clone(check);
                // One task a check: they run concurrently, and a panic fails only its own.
                (*name, tokio::spawn(async move { timeout(deadline, check()).await }))
            })
            .collect();
        let mut report = HealthReport { failed: Vec::new(), checks: Map::new() };
        for (name, outcome) in running {
            let outcome = match outcome.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(format!("no answer within {} s", deadline.as_secs_f64())),
                Err(_) => Err("the check itself failed".to_owned()),
            };
            let entry = match outcome {
                Ok(detail) => json!({ "ok": true, "detail": detail }),
                Err(why) => {
                    report.failed.push(name);
                    json!({ "ok": false, "detail": why })
                }
            };
            report.checks.insert(name.to_owned(), entry);
        }
        report
    }
}

/// Sends `GET /livez` to `address`, a socket address or `host:port`, within 3 s. An unspecified
/// address (0.0.0.0, ::) means loopback. Lets an image's health check work without an HTTP client.
pub async fn check_liveness(address: impl Display) -> Result<(), String> {
    check_liveness_within(LIVENESS_DEADLINE, &address.to_string()).await
}

async fn check_liveness_within(deadline: Duration, address: &str) -> Result<(), String> {
    match timeout(deadline, status_line(address)).await {
        Ok(Ok(line)) if line.split(' ').nth(1) == Some("200") => Ok(()),
        Ok(Ok(line)) => Err(format!("{address} answered {line:?} to GET /livez")),
        Ok(Err(error)) => Err(format!("{address} does not answer: {error}")),
        Err(_) => Err(format!("{address} did not answer within {} s", deadline.as_secs_f64())),
    }
}

async fn status_line(address: &str) -> io::Result<String> {
    let addresses: Vec<_> = lookup_host(address).await?.map(reachable_address).collect();
    let mut stream = TcpStream::connect(&*addresses).await?;
    let request = format!("GET /livez HTTP/1.1\r\nHost: {address}\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    // A longer first line is not from one of our services.
    let mut line = Vec::new();
    BufReader::new(stream.take(256)).read_until(b'\n', &mut line).await?;
    Ok(String::from_utf8_lossy(&line).trim_end().to_owned())
}

/// The address at which a listener on `address` is reachable from this machine.
fn reachable_address(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        ip if !ip.is_unspecified() => ip,
        IpAddr::V4(_) => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(_) => Ipv6Addr::LOCALHOST.into(),
    };
    SocketAddr::new(ip, address.port())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{Router, body::Body, extract::Request, http::StatusCode};
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::Semaphore;
    use tower::ServiceExt as _;

    async fn ask(app: &Router, path: &str) -> (StatusCode, Value) {
        let request = Request::get(path).body(Body::empty()).expect("a request");
        let response = app.clone().oneshot(request).await.expect("infallible");
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        let status = response.status();
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        (status, serde_json::from_slice(&body).expect("JSON"))
    }

    #[tokio::test]
    async fn a_process_lives_as_long_as_it_answers() {
        let app: Router =
            Health::new().with_check("kafka", async || Err("away".to_owned())).routes().into();
        assert_eq!(ask(&app, "/livez").await, (StatusCode::OK, json!({ "status": "live" })));
    }

    #[tokio::test]
    async fn it_is_ready_when_every_check_passes() {
        let app: Router = Health::new()
            .with_check("kafka", async || Ok(json!({ "brokers": 3 })))
            .with_check("postgres", async || Ok(Value::Null))
            .routes()
            .into();
        let expected = json!({ "status": "ready", "checks": {
            "kafka": { "ok": true, "detail": { "brokers": 3 } },
            "postgres": { "ok": true, "detail": null }
        }});
        assert_eq!(ask(&app, "/readyz").await, (StatusCode::OK, expected));
    }

    #[tokio::test]
    async fn one_check_that_fails_panics_or_hangs_makes_it_not_ready_and_is_named() {
        let mut health = Health::new()
            .with_check("good", async || Ok(json!("fine")))
            .with_check("bad", async || Err("no brokers".to_owned()))
            .with_check("broken", async || Ok(json!(Vec::<u8>::new()[0])))
            .with_check("stuck", std::future::pending);
        health.check_deadline = Duration::from_millis(5);
        let (status, body) = ask(&health.routes().into(), "/readyz").await;
        assert_eq!((status, &body["status"]), (StatusCode::SERVICE_UNAVAILABLE, &json!(503)));
        assert_eq!(body["message"], "not ready: bad, broken, stuck");
        assert_eq!(body["retry_after"], 1);
        assert_eq!(body["checks"]["good"], json!({ "ok": true, "detail": "fine" }));
        assert_eq!(body["checks"]["bad"], json!({ "ok": false, "detail": "no brokers" }));
        assert_eq!(body["checks"]["stuck"]["detail"], "no answer within 0.005 s");
    }

    #[tokio::test]
    async fn those_who_ask_at_the_same_time_share_one_run_even_when_the_first_goes_away() {
        let runs = Arc::new(AtomicUsize::new(0));
        let (started, release) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let mut health = {
            let (runs, started, release) =
                (Arc::clone(&runs), Arc::clone(&started), Arc::clone(&release));
            Health::new().with_check("slow", move || {
                let (runs, started, release) =
                    (Arc::clone(&runs), Arc::clone(&started), Arc::clone(&release));
                async move {
                    runs.fetch_add(1, Ordering::SeqCst);
                    started.add_permits(1);
                    let _ = release.acquire().await;
                    Ok(Value::Null)
                }
            })
        };
        (health.check_deadline, health.report_ttl) =
            (Duration::from_secs(60), Duration::from_secs(60));
        let app: Router = health.routes().into();
        let asked = |app: &Router| {
            let app: Router = app.clone();
            tokio::spawn(async move { ask(&app, "/readyz").await.0 })
        };
        let first = asked(&app);
        started.acquire().await.expect("an open semaphore").forget();
        first.abort();
        let others: Vec<_> = (0..10).map(|_| asked(&app)).collect();
        tokio::task::yield_now().await;
        release.add_permits(1);
        for other in others {
            assert_eq!(other.await.expect("an answer"), StatusCode::OK);
        }
        assert_eq!(runs.load(Ordering::SeqCst), 1);
    }

    #[tokio::test]
    async fn an_answer_that_is_no_longer_fresh_is_asked_for_again() {
        let runs = Arc::new(AtomicUsize::new(0));
        let mut health = {
            let runs = Arc::clone(&runs);
            Health::new().with_check("count", move || {
                let run = runs.fetch_add(1, Ordering::SeqCst);
                async move { Ok(json!(run)) }
            })
        };
        health.report_ttl = Duration::ZERO;
        let app: Router = health.routes().into();
        ask(&app, "/readyz").await;
        ask(&app, "/readyz").await;
        assert_eq!(runs.load(Ordering::SeqCst), 2);
    }

    #[tokio::test]
    async fn a_probe_does_not_wait_for_ever() {
        // It takes connections and never answers.
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address").to_string();
        let error =
            check_liveness_within(Duration::from_millis(5), &address).await.expect_err("no answer");
        assert!(error.contains("within 0.005 s"), "{error}");
    }
}
