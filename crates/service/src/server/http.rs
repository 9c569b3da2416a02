//! The server: it accepts connections, bounds what each may cost, and ends them in good order.
//! What is answered is the router's matter; [`layers`] puts what every router has around it.

use std::{
    convert::Infallible,
    io::ErrorKind,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Extension, Router,
    body::Body,
    extract::DefaultBodyLimit,
    http::{HeaderName, HeaderValue, Request, header},
    response::{IntoResponse as _, Response},
};
use clap::builder::RangedU64ValueParser;
use hyper::body::Incoming;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tower::{Service as _, ServiceBuilder};
use tower_http::catch_panic::CatchPanicLayer;

use crate::{
    cli::settings::{parse_duration, parse_positive_duration},
    extract::BodyBounds,
    ops::metrics::Metrics,
    server::admission::Admission,
    server::detached::{self, DetachedConnection},
    server::fallback,
    server::request_log::RequestLog,
};

/// What one connection and one request may cost.
#[derive(clap::Args, Clone, Debug, PartialEq, Eq)]
#[command(next_help_heading = "HTTP limits")]
pub struct HttpLimits {
    /// The largest request body, in bytes; a larger one is answered with 413.
    #[arg(long, env = "HTTP_MAX_BODY_BYTES", default_value = "1048576", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 30))]
    pub max_body_bytes: usize,
    /// Memory for request bodies that are still arriving, in bytes; one for which there is none is
    /// answered with 503.
    #[arg(long, env = "HTTP_MAX_BODIES_BYTES", default_value = "268435456", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1 << 40))]
    pub max_bodies_bytes: usize,
    /// Requests under way at a time; one more is answered with 503. Live streams and long polls are
    /// counted by limits of their own.
    #[arg(long, env = "HTTP_MAX_REQUESTS", default_value = "2048", value_name = "COUNT",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_requests: usize,
    /// Connections at a time, those of live streams among them; more wait until one ends.
    #[arg(long, env = "HTTP_MAX_CONNECTIONS", default_value = "30000", value_name = "COUNT",
        value_parser = RangedU64ValueParser::<usize>::new().range(1..=1_000_000))]
    pub max_connections: usize,
    /// The largest request line and headers together, in bytes; larger ones are answered with 431.
    #[arg(long, env = "HTTP_MAX_HEADER_BYTES", default_value = "32768", value_name = "BYTES",
        value_parser = RangedU64ValueParser::<usize>::new().range(MIN_HEADER_BYTES as u64..=1 << 20))]
    pub max_header_bytes: usize,
    /// How long a new connection may take to send its first request's headers.
    #[arg(long, env = "HTTP_HEADER_TIMEOUT", default_value = "10s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub header_timeout: Duration,
    /// How long a connection may take from one response to the next request's last header. Longer
    /// than the load balancer's own idle time-out, or it meets connections that just closed.
    #[arg(long, env = "HTTP_IDLE_TIMEOUT", default_value = "75s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub idle_timeout: Duration,
    /// How long a request body may take to arrive; a later one is answered with 408.
    #[arg(long, env = "HTTP_BODY_TIMEOUT", default_value = "30s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub body_timeout: Duration,
    /// How long a request may take until its response begins; then it is answered with 504. Longer
    /// than any limit of what it does: a long poll waits up to 60 s.
    #[arg(long, env = "HTTP_REQUEST_TIMEOUT", default_value = "90s", value_name = "TIME",
        value_parser = parse_positive_duration)]
    pub request_timeout: Duration,
    /// How long requests under way may take after a signal to shut down; then they are cut off.
    #[arg(long, env = "HTTP_DRAIN_TIMEOUT", default_value = "10s", value_name = "TIME",
        value_parser = parse_duration)]
    pub drain_timeout: Duration,
}

impl Default for HttpLimits {
    /// The same as the flags' defaults.
    fn default() -> Self {
        Self {
            max_body_bytes: 1 << 20,
            max_bodies_bytes: 256 << 20,
            max_requests: 2048,
            max_connections: 30_000,
            max_header_bytes: 32 << 10,
            header_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(75),
            body_timeout: Duration::from_secs(30),
            request_timeout: Duration::from_secs(90),
            drain_timeout: Duration::from_secs(10),
        }
    }
}

/// The least buffer that hyper reads headers into.
const MIN_HEADER_BYTES: usize = 8192;

/// How many requests one HTTP/2 connection may have under way: peers forward many streams over one.
const MAX_STREAMS: u32 = 1000;

/// How often an HTTP/2 client is asked whether it is still there, and how long it may take to say
/// so. HTTP/1 streams notice by their heartbeat.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// How much of a response waits in memory for a slow HTTP/2 client, in bytes a request.
const SEND_BUFFER: usize = 64 << 10;

/// How long to wait after the system could not give us a connection, at first and at most.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How long tasks may take to notice that they were cut off; one that blocks its thread never does.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Puts around a whole router what every service has: the request log with its counts, security headers, problem
/// bodies for all errors, a panic's 500, the body's limits. Call it last, after all routes.
///
/// The security headers are set where a response does not say otherwise. The body limits hold for extractors; a handler that streams its body
/// has to bound it itself, and a route may have its own `DefaultBodyLimit`.
pub fn add_layers(router: Router, limits: &HttpLimits, metrics: &Metrics) -> Router {
    router.layer(
        ServiceBuilder::new()
            .layer(RequestLog(metrics.clone()))
            .map_response(add_security_headers)
            .and_then(fallback::problem_bodies)
            .map_response(|response: axum::http::Response<_>| response.into_response())
            .layer(CatchPanicLayer::custom(fallback::respond_to_panic))
            .layer(Admission::new(limits.max_requests, limits.request_timeout, metrics.clone()))
            .layer(DefaultBodyLimit::max(limits.max_body_bytes))
            .layer(Extension(BodyBounds::new(limits.body_timeout, limits.max_bodies_bytes))),
    )
}

/// Nothing here is meant to be shown in a frame, to be loaded by other sites, or to be taken for
/// what it does not say that it is.
const SECURITY_HEADERS: [(HeaderName, &str); 4] = [
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

fn add_security_headers(mut response: Response) -> Response {
    for (name, value) in SECURITY_HEADERS {
        response.headers_mut().entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Serves `app` on `listener`, counting connections in `metrics`: HTTP/1.1 and HTTP/2 without TLS (prior knowledge), until `shutdown`
/// is cancelled. Then it accepts no more, lets the requests under way finish for at most
/// `limits.drain_timeout`, closes what is left, and returns.
///
/// It returns for no other reason: a connection that fails ends alone, and when the system has no
/// file handles left it waits for some. A stream without an end must watch the token itself, or it
/// is cut at the deadline; an upgraded connection (WebSocket) is not waited for.
pub async fn serve_app(
    listener: TcpListener,
    app: Router,
    shutdown: CancellationToken,
    limits: HttpLimits,
    metrics: Metrics,
) {
    let server = Arc::new(Server {
        // Every route is made now, instead of at each request.
        app: app.with_state(()),
        protocol: build_protocol(&limits),
        header_timeout: limits.header_timeout,
        permits: Arc::new(Semaphore::new(limits.max_connections)),
        metrics,
        shutdown,
        cut: CancellationToken::new(),
    });
    let connections = TaskTracker::new();
    accept_connections(&listener, &server, &connections).await;
    drop(listener);
    connections.close();
    tracing::debug!(http.connections = connections.len(), "draining");
    if timeout(limits.drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(
            http.connections = connections.len(),
            "cutting connections off at the drain deadline"
        );
        server.cut.cancel();
        let _ = timeout(CUT_TIMEOUT, connections.wait()).await;
    }
}

struct Server {
    app: Router,
    protocol: auto::Builder<TokioExecutor>,
    header_timeout: Duration,
    /// One for each connection that may be open.
    permits: Arc<Semaphore>,
    metrics: Metrics,
    /// Cancelled: no further request on any connection.
    shutdown: CancellationToken,
    /// Cancelled: the drain's time is up.
    cut: CancellationToken,
}

impl Server {
    /// A permit for one more connection, when there is one. None: there is no limit any more.
    async fn await_permit(&self, said: &mut Option<Instant>) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        self.metrics.count_shed("connections");
        if said.is_none_or(|at| at.elapsed() >= ACCEPT_PAUSE.1) {
            *said = Some(Instant::now());
            tracing::warn!("as many connections are open as --max-connections allows; others wait");
        }
        Arc::clone(&self.permits).acquire_owned().await.ok()
    }
}

fn build_protocol(limits: &HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    let header_bytes = limits.max_header_bytes.max(MIN_HEADER_BYTES);
    protocol
        .http1()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last response, so this is the idle time-out too.
        .header_read_timeout(limits.idle_timeout)
        .max_buf_size(header_bytes);
    protocol
        .http2()
        .timer(TokioTimer::new())
        .max_header_list_size(u32::try_from(header_bytes).unwrap_or(u32::MAX))
        .max_concurrent_streams(MAX_STREAMS)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING.0)
        .keep_alive_timeout(PING.1);
    protocol
}

/// Accepts connections until shutdown.
async fn accept_connections(
    listener: &TcpListener,
    server: &Arc<Server>,
    connections: &TaskTracker,
) {
    let mut pause = ACCEPT_PAUSE.0;
    let (mut said, mut said_full): (Option<Instant>, Option<Instant>) = (None, None);
    loop {
        let accepted = tokio::select! {
            biased;
            () = server.shutdown.cancelled() => return,
            accepted = async {
                let permit = server.await_permit(&mut said_full).await;
                (listener.accept().await, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                pause = ACCEPT_PAUSE.0;
                let connection =
                    serve_connection(Arc::clone(server), connections.clone(), stream, permit);
                connections.spawn(connection);
            }
            // That connection is gone; the next one is fine.
            (Err(error), _)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted
                        | ErrorKind::ConnectionReset
                        | ErrorKind::ConnectionRefused
                ) => {}
            // No file handles or memory left (EMFILE, ENFILE, ENOBUFS, ENOMEM). Connections that
            // end give them back; trying at once would only burn the processor.
            (Err(error), _) => {
                if said.is_none_or(|at| at.elapsed() >= ACCEPT_PAUSE.1) {
                    said = Some(Instant::now());
                    tracing::warn!(
                        %error, http.connections = connections.len(),
                        "cannot accept connections; raise the limit of open files if this lasts"
                    );
                }
                tokio::select! {
                    () = server.shutdown.cancelled() => return,
                    () = sleep(pause) => pause = (pause * 2).min(ACCEPT_PAUSE.1),
                }
            }
        }
    }
}

/// One connection, from its first byte to its last, or to the head of an endless response, whose
/// rest is then written by a task of its own.
async fn serve_connection(
    server: Arc<Server>,
    connections: TaskTracker,
    stream: TcpStream,
    permit: Option<OwnedSemaphorePermit>,
) {
    // Small writes, such as a stream's events, must not wait for an acknowledgement (Nagle).
    let _ = stream.set_nodelay(true);
    let present = server.metrics.traffic().count_connection();
    let asked = Arc::new(AtomicBool::new(false));
    let detached = DetachedConnection::new(stream);
    let service = {
        let (app, asked, detached) =
            (server.app.clone(), Arc::clone(&asked), Arc::clone(&detached));
        hyper::service::service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let detached = DetachedConnection::can_detach(&request).then(|| Arc::clone(&detached));
            let answer = app.clone().call(request.map(Body::new));
            async move {
                let mut answer = answer.await?;
                if let Some(detached) = detached {
                    detached.keep_body(&mut answer);
                }
                Ok::<_, Infallible>(answer)
            }
        })
    };
    let io = TokioIo::new(detached.hyper_io());
    let mut connection = pin!(server.protocol.serve_connection_with_upgrades(io, service));
    // hyper's own time-out starts only when it knows the protocol, which takes a silent client for
    // ever; and it has to be as long as connections may idle.
    let mut first_request = pin!(sleep(server.header_timeout));
    let mut waiting = true;
    let mut draining = false;
    loop {
        tokio::select! {
            biased;
            ended = detached::run_until_detached(connection.as_mut(), &detached) => {
                match ended {
                    Ok(Ok(())) => {}
                    Ok(Err(error)) => {
                        tracing::debug!(target: "http", %error, "a connection failed");
                    }
                    Err((stream, body)) => {
                        let written = detached::write_body(stream, body, server.cut.clone());
                        connections.spawn(async move {
                            let _present = (permit, present);
                            written.await;
                        });
                    }
                }
                return;
            }
            () = first_request.as_mut(), if waiting => {
                waiting = false;
                if !asked.load(Ordering::Relaxed) {
                    tracing::debug!(target: "http", "a connection sent no request in time");
                    return;
                }
            }
            () = server.shutdown.cancelled(), if !draining => {
                draining = true;
                connection.as_mut().graceful_shutdown();
            }
            () = server.cut.cancelled() => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Flags {
        #[command(flatten)]
        limits: HttpLimits,
        /// Not a limit.
        #[arg(long)]
        other: bool,
    }

    #[test]
    fn the_default_limits_are_those_of_the_flags() {
        let flags = Flags::parse_from(["service"]);
        assert_eq!(flags.limits, HttpLimits::default());
        assert!(!flags.other);
    }

    #[test]
    fn limits_that_would_let_nothing_through_are_refused() {
        for arguments in [
            ["--max-body-bytes", "0"],
            ["--max-header-bytes", "100"],
            ["--max-requests", "0"],
            ["--max-connections", "0"],
            ["--request-timeout", "0"],
            ["--header-timeout", "0"],
            ["--idle-timeout", "0s"],
            ["--body-timeout", "soon"],
        ] {
            assert!(
                Flags::try_parse_from(["service"].into_iter().chain(arguments)).is_err(),
                "{arguments:?}"
            );
        }
        assert!(Flags::try_parse_from(["service", "--drain-timeout", "0"]).is_ok());
    }
}
