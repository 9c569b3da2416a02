//! Accepts connections, bounds their cost, and drains them at shutdown. [`add_layers`] wraps every
//! router.

use std::{
    convert::Infallible,
    future::poll_fn,
    io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset},
    pin::pin,
    sync::Arc,
    task::Poll,
    time::Duration,
};

use axum::{Router, body::Body, http::Request};
use hyper::body::{Body as _, Incoming};
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
use tower::Service as _;

use crate::{
    ops::metrics::Metrics,
    server::connections::{GuardedBody, OpenConnection, OpenConnections, Order},
    server::detached::{self, DetachedConnection},
    server::layer::ServerLayer,
    server::limits::{HttpLimits, MIN_HEADER_BYTES},
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

/// Wraps a router in the [`ServerLayer`] of every service. Call it last, after all routes.
pub fn add_layers(router: Router, limits: &HttpLimits, metrics: &Metrics) -> Router {
    router.layer(ServerLayer::new(limits, metrics))
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
        write_timeout: limits.write_timeout,
        max_idle: limits.max_idle_connections,
        open: OpenConnections::new(),
        permits: Arc::new(Semaphore::new(limits.max_connections)),
        metrics,
        shutdown,
        cut: CancellationToken::new(),
    });
    let connections = TaskTracker::new();
    let overdue = server.open.close_overdue(limits.header_timeout, limits.idle_timeout);
    let serving = async {
        accept_connections(&listener, &server, &connections).await;
        drop(listener);
        connections.close();
        drain_connections(&server, &connections, limits.drain_timeout).await;
    };
    tokio::select! {
        () = serving => (),
        () = overdue => (),
    }
}

/// Lets requests finish within the time-out, and closes the rest.
async fn drain_connections(server: &Server, connections: &TaskTracker, drain_timeout: Duration) {
    server.open.order_all(Order::Drain);
    tracing::debug!(http.connections = connections.len(), "draining");
    if timeout(drain_timeout, connections.wait()).await.is_err() {
        tracing::warn!(
            http.connections = connections.len(),
            "cutting connections off at the drain deadline"
        );
        server.open.order_all(Order::Cut);
        server.cut.cancel();
        let _ = timeout(CUT_TIMEOUT, connections.wait()).await;
    }
}

struct Server {
    app: Router,
    protocol: auto::Builder<TokioExecutor>,
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
    /// Cancelled at the drain deadline, for detached connections.
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
    // hyper would allocate and arm a timer for each request; `close_overdue` stands for it.
    protocol.http1().header_read_timeout(None).max_buf_size(header_bytes);
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
                let (server, open) = (Arc::clone(server), server.open.add());
                connections.spawn(serve_connection(
                    server,
                    connections.clone(),
                    stream,
                    permit,
                    open,
                ));
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
    open: OpenConnection,
) {
    // Events are small writes, which Nagle's algorithm would delay.
    let _ = stream.set_nodelay(true);
    let present = server.metrics.traffic().count_connection();
    let detached = DetachedConnection::new(stream);
    let service = {
        let (app, detached) = (server.app.clone(), Arc::clone(&detached));
        let activity = Arc::clone(&open.activity);
        hyper::service::service_fn(move |request: Request<Incoming>| {
            let guard = activity.begin_request(request.version());
            let detached = DetachedConnection::can_detach(&request).then(|| Arc::clone(&detached));
            // An empty body needs no box.
            let request = request.map(|body| match body.is_end_stream() {
                true => Body::empty(),
                false => Body::new(body),
            });
            let answer = app.clone().call(request);
            async move {
                let mut answer = answer.await?;
                if let Some(detached) = detached {
                    detached.keep_body(&mut answer);
                }
                Ok::<_, Infallible>(answer.map(|inner| GuardedBody { inner, _guard: guard }))
            }
        })
    };
    let ended = {
        let io = TokioIo::new(detached.hyper_io(server.write_timeout));
        let mut connection = pin!(server.protocol.serve_connection_with_upgrades(io, service));
        poll_fn(|cx| {
            let orders = open.activity.take_orders(cx.waker());
            if orders.has(Order::Cut) {
                return Poll::Ready(None);
            }
            if orders.has(Order::CloseIfIdle) && open.activity.is_idle() {
                tracing::debug!(target: "http", "closed a connection without a request");
                return Poll::Ready(None);
            }
            if orders.has(Order::Drain) {
                connection.as_mut().graceful_shutdown();
            }
            detached.poll_until_detached(connection.as_mut(), cx).map(Some)
        })
        .await
    };
    match ended {
        None => {}
        Some(Ok(Ok(()))) => {
            let is_draining = server.shutdown.is_cancelled();
            if let Some(stream) = detached.into_open_stream().filter(|_| !is_draining) {
                connections.spawn(detached::linger(stream, (permit, present)));
            }
        }
        Some(Ok(Err(error))) => {
            tracing::debug!(target: "http", %error, "a connection failed");
        }
        Some(Err((stream, body))) => {
            let (timeout, cut) = (server.write_timeout, server.cut.clone());
            let held = (permit, present);
            connections.spawn(detached::write_body(stream, body, timeout, cut, held));
        }
    }
}
