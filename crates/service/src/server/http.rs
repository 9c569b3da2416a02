//! Accepts connections, bounds their cost, and drains them at shutdown. [`add_layers`] wraps every
//! router.

use std::{
    convert::Infallible,
    io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset},
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
    extract::BodyBounds,
    ops::metrics::Metrics,
    server::admission::Admission,
    server::connections::{GuardedBody, OpenConnections},
    server::detached::{self, DetachedConnection},
    server::fallback,
    server::gate::gate,
    server::limits::{HttpLimits, MIN_HEADER_BYTES},
    server::replies::count_replies,
    server::request_log::log_requests,
    server::request_rules,
};

/// Concurrent requests of an HTTP/2 connection: peers forward many streams over one.
const MAX_STREAMS: u32 = 1000;

/// Interval and time-out of HTTP/2 pings. HTTP/1 streams use a heartbeat.
const PING: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));

/// Bytes of a response that wait for a slow HTTP/2 client.
const SEND_BUFFER: usize = 64 << 10;

/// Least and greatest delay after a failed accept.
const ACCEPT_PAUSE: (Duration, Duration) = (Duration::from_millis(10), Duration::from_secs(1));

/// How often idle connections are looked for while one waits for a permit.
const CLOSE_IDLE_INTERVAL: Duration = Duration::from_millis(100);

/// Bounds the wait for tasks that were cut off.
const CUT_TIMEOUT: Duration = Duration::from_secs(1);

/// Wraps a router in the layers of every service: request log, security headers, problem bodies,
/// panic handler, rules of HTTP, admission, limits of bodies and of responses. Call it last, after all
/// routes.
///
/// A response's own security headers win. The body limits apply to extractors: a handler that
/// streams its body must bound it itself.
pub fn add_layers(router: Router, limits: &HttpLimits, metrics: &Metrics) -> Router {
    let admission = Admission::new(limits.max_requests, limits.request_timeout, metrics.clone());
    router.layer(
        ServiceBuilder::new()
            .layer(log_requests(metrics.clone()))
            .layer(count_replies(limits.max_replies_bytes, metrics.clone()))
            .map_response(add_security_headers)
            .and_then(fallback::problem_bodies)
            .map_response(|response: axum::http::Response<_>| response.into_response())
            .layer(CatchPanicLayer::custom(fallback::respond_to_panic))
            .layer(gate(request_rules::refuse_broken_rules))
            .layer(admission.into_layer())
            .layer(DefaultBodyLimit::max(limits.max_body_bytes))
            .layer(Extension(BodyBounds::new(limits.body_timeout, limits.max_bodies_bytes))),
    )
}

/// Forbids framing, cross-origin loads (CORP) and MIME sniffing.
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

/// Serves `app` over HTTP/1.1 and HTTP/2 without TLS (prior knowledge) until `shutdown` is
/// cancelled. It then stops accepting, lets requests finish within `limits.drain_timeout`, and
/// closes the rest.
///
/// A failed connection ends alone, and a lack of file handles is waited out. A long-lived stream
/// must watch the token itself, or it is cut off at the deadline; upgraded connections (WebSocket)
/// are not waited for.
pub async fn serve_app(
    listener: TcpListener,
    app: Router,
    shutdown: CancellationToken,
    limits: HttpLimits,
    metrics: Metrics,
) {
    let server = Arc::new(Server {
        // Builds every route now, instead of at each request.
        app: app.with_state(()),
        protocol: build_protocol(&limits),
        header_timeout: limits.header_timeout,
        write_timeout: limits.write_timeout,
        max_idle: limits.max_idle_connections,
        open: OpenConnections::new(),
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
    write_timeout: Duration,
    /// The most connections without a request under way.
    max_idle: usize,
    /// The connections that hyper serves; one that was detached is none of them.
    open: Arc<OpenConnections>,
    /// One permit an open connection.
    permits: Arc<Semaphore>,
    metrics: Metrics,
    /// Cancelled at shutdown: no further request on any connection.
    shutdown: CancellationToken,
    /// Cancelled at the drain deadline.
    cut: CancellationToken,
}

impl Server {
    /// Waits for a permit of one more connection, and closes idle ones for it. `None` if the
    /// semaphore is closed.
    async fn await_permit(&self, said: &mut Option<Instant>) -> Option<OwnedSemaphorePermit> {
        if let Ok(permit) = Arc::clone(&self.permits).try_acquire_owned() {
            return Some(permit);
        }
        self.metrics.count_shed("connections");
        if said.is_none_or(|at| at.elapsed() >= ACCEPT_PAUSE.1) {
            *said = Some(Instant::now());
            tracing::warn!(
                "connection limit reached (--max-connections); closing idle connections for further ones"
            );
        }
        loop {
            self.open.close_idle();
            let permit = Arc::clone(&self.permits).acquire_owned();
            if let Ok(permit) = timeout(CLOSE_IDLE_INTERVAL, permit).await {
                return permit.ok();
            }
        }
    }
}

fn build_protocol(limits: &HttpLimits) -> auto::Builder<TokioExecutor> {
    let mut protocol = auto::Builder::new(TokioExecutor::new());
    let header_bytes = limits.max_header_bytes.max(MIN_HEADER_BYTES);
    protocol
        .http1()
        .timer(TokioTimer::new())
        // hyper counts from the end of the last response, so this is also the idle time-out.
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
                let accepted = listener.accept().await;
                // Afterwards, so that no connection is closed before another one needs its permit.
                let permit = match accepted {
                    Ok(_) => server.await_permit(&mut said_full).await,
                    Err(_) => None,
                };
                (accepted, permit)
            } => accepted,
        };
        match accepted {
            (Ok((stream, _)), permit) => {
                pause = ACCEPT_PAUSE.0;
                if server.open.count_idle() >= server.max_idle {
                    server.open.close_idle();
                }
                let connection =
                    serve_connection(Arc::clone(server), connections.clone(), stream, permit);
                connections.spawn(connection);
            }
            // Only this connection failed.
            (Err(error), _)
                if matches!(
                    error.kind(),
                    ConnectionAborted | ConnectionReset | ConnectionRefused
                ) => {}
            // No file handles or memory (EMFILE, ENFILE, ENOBUFS, ENOMEM) until connections end. A
            // retry at once would burn processor time.
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

/// Serves one connection until it ends or a long-lived response leaves hyper, which a task of its
/// own then writes.
async fn serve_connection(
    server: Arc<Server>,
    connections: TaskTracker,
    stream: TcpStream,
    permit: Option<OwnedSemaphorePermit>,
) {
    // Events are small writes, which Nagle's algorithm would delay.
    let _ = stream.set_nodelay(true);
    let present = server.metrics.traffic().count_connection();
    let asked = Arc::new(AtomicBool::new(false));
    let open = server.open.add();
    let detached = DetachedConnection::new(stream);
    let service = {
        let (app, asked, detached) =
            (server.app.clone(), Arc::clone(&asked), Arc::clone(&detached));
        let activity = Arc::clone(&open.activity);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            asked.store(true, Ordering::Relaxed);
            let guard = activity.begin_request();
            let detached = DetachedConnection::can_detach(&request).then(|| Arc::clone(&detached));
            let answer = app.clone().call(request.map(Body::new));
            async move {
                let mut answer = answer.await?;
                if let Some(detached) = detached {
                    detached.keep_body(&mut answer);
                }
                Ok::<_, Infallible>(answer.map(|inner| GuardedBody { inner, _guard: guard }))
            }
        })
    };
    let io = TokioIo::new(detached.hyper_io(server.write_timeout));
    let mut connection = pin!(server.protocol.serve_connection_with_upgrades(io, service));
    // hyper's time-out starts only once it knows the protocol, and must be as long as the idle
    // time-out.
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
                        let (timeout, cut) = (server.write_timeout, server.cut.clone());
                        let held = (permit, present);
                        connections.spawn(detached::write_body(stream, body, timeout, cut, held));
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
            () = open.activity.closing() => {
                if open.activity.is_idle() {
                    tracing::debug!(target: "http", "closed an idle connection for another one");
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
