//! The layer around the routes of one user's inbox: this instance's handlers answer if it owns the
//! user's partition; otherwise the request is forwarded to the owner, which has the last word.

use std::{
    collections::HashMap,
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    Extension, RequestExt as _,
    body::Body,
    extract::{RawPathParams, Request, rejection::RawPathParamsRejection},
    http::{StatusCode, request::Parts},
    response::{IntoResponse, Response},
    routing::{Route, future::RouteFuture},
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either},
};
use hyper::{body::Incoming, upgrade::OnUpgrade};
use model::UserId;
use parking_lot::Mutex;
use service::{
    auth::Caller, extract::read_body, problem::Problem, server::admission::RequestPermit,
    server::detached::StreamingResponse,
};
use tokio::time::Instant;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    app::App,
    problems::{not_live, owner_unreachable},
    query::requested_wait,
    socket::check_same_origin,
    stream::is_event_stream,
    streams::StreamKind,
};
use crate::{
    cluster::{
        claims::OwnershipClaim,
        peers::PeerNetworks,
        proxy::{
            ForwardError, HOP, PeerProxy, WEBSOCKET_UPGRADE, is_websocket_request, join_upgraded,
        },
        resolver::{OwnerResolver, PartitionOwner},
    },
    view::NotLive,
};

/// How many peers are asked for a partition without a known owner, and how often at most.
const MAX_ASKED_PEERS: usize = 8;
const ASK_PEERS_INTERVAL: Duration = Duration::from_secs(1);

/// Checks that the caller may open the inbox, then calls the handler or forwards the request.
#[derive(Clone)]
pub(super) struct ForwardService {
    inner: Route,
    forwarder: Arc<Forwarder>,
}

struct Forwarder {
    app: Arc<App>,
    resolver: OwnerResolver,
    proxy: PeerProxy,
    /// When the peers were last asked for a partition without a known owner.
    peers_asked_at: Mutex<HashMap<i32, Instant>>,
}

/// A request to be forwarded.
struct ForwardedRequest {
    parts: Parts,
    body: Bytes,
    to_websocket: bool,
    wait: Duration,
}

pub(super) fn forward_layer(
    app: Arc<App>,
    networks: PeerNetworks,
) -> impl Layer<Route, Service = ForwardService> + Clone + Send + Sync + 'static {
    let resolver = OwnerResolver::new(Arc::clone(&app.view), app.ownership.clone());
    let proxy = PeerProxy::new(app.read_timeout, networks);
    let forwarder = Forwarder { app, resolver, proxy, peers_asked_at: Mutex::default() };
    let forwarder = Arc::new(forwarder);
    layer_fn(move |inner| ForwardService { inner, forwarder: Arc::clone(&forwarder) })
}

impl Service<Request> for ForwardService {
    type Response = Response;
    type Error = Infallible;
    /// Boxed only if there is something to wait for: most requests are for an inbox that is here.
    type Future = Either<RouteFuture<Infallible>, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Service::<Request>::poll_ready(&mut self.inner, cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let respond = |response: Response| Either::Right(async { Ok(response) }.boxed());
        // The router put the parameters into the request, so this extractor never waits.
        let path = match request.extract_parts::<RawPathParams>().now_or_never() {
            Some(Ok(path)) => path,
            Some(Err(RawPathParamsRejection::InvalidUtf8InPathParam(_))) => {
                return respond(Problem::bad_request("path", "must be UTF-8").into_response());
            }
            _ => return respond(Problem::internal().into_response()),
        };
        let id = path.iter().find(|(name, _)| *name == "id").and_then(|(_, id)| id.parse().ok());
        // The handler refuses an invalid id, with its own message.
        let Some(user) = id else { return Either::Left(self.inner.call(request)) };
        if let Err(refusal) = check_inbox_access(&request, user) {
            return respond(refusal.into_response());
        }
        let home = self.forwarder.app.view.home_partition(user);
        let wait = requested_wait(request.uri());
        if wait.is_zero() && self.forwarder.resolver.is_local(home) {
            return Either::Left(self.inner.call(request));
        }
        // tower: the service that was polled ready must be the one that is called.
        let copy = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, copy);
        let forwarder = Arc::clone(&self.forwarder);
        let answer = async move {
            let answered = forwarder.answer_request(home, wait, request, inner).await;
            Ok(answered.unwrap_or_else(IntoResponse::into_response))
        };
        Either::Right(answer.boxed())
    }
}

/// The caller's own inbox, or with the scope `admin` any. The owner checks forwarded requests again.
fn check_inbox_access(request: &Request, user: UserId) -> Result<(), Problem> {
    let caller = Caller::from_extensions(request.extensions())?;
    if caller.is_admin() || caller.is_user(&user) {
        return Ok(());
    }
    let why = "The token is another user's and gives access to their inbox only";
    Err(Caller::forbidden_problem(why))
}

impl Forwarder {
    /// Calls `inner` if this instance owns the partition now or within the read timeout; otherwise
    /// forwards the request to the owner.
    async fn answer_request(
        &self,
        home: i32,
        wait: Duration,
        request: Request,
        mut inner: Route,
    ) -> Result<Response, Problem> {
        // A long poll holds a stream's permit instead of one of the requests under way.
        let mut _permit = None;
        if !wait.is_zero() {
            _permit = Some(self.app.streams.acquire_permit(StreamKind::Waiting)?);
            request.extensions().get::<RequestPermit>().inspect(|permit| permit.release());
        }
        if self.resolver.is_local(home) {
            let Ok(response) = inner.call(request).await;
            return Ok(response);
        }
        if request.headers().contains_key(HOP) {
            let message = format!("partition {home} is not owned by this instance");
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, message));
        }
        // Within the limits that the handlers' own extractor keeps.
        let (mut parts, body) = read_body(request).await?;
        let upgrade = parts.extensions.remove::<OnUpgrade>();
        let client = upgrade.filter(|_| is_websocket_request(&parts.headers));
        if client.is_some() {
            // The owner cannot check the page's origin: the request reaches it from here.
            check_same_origin(&parts.headers, &parts.uri)?;
        }
        let deadline = Instant::now() + self.app.read_timeout;
        let request = ForwardedRequest { parts, body, to_websocket: client.is_some(), wait };
        let (mut rejected, mut unreachable) = (None, None);
        loop {
            let owner = match self.resolver.resolve_owner(home, rejected.as_ref(), deadline).await {
                Some(PartitionOwner::Peer(owner)) => owner,
                Some(PartitionOwner::ThisInstance) => {
                    let ForwardedRequest { mut parts, body, .. } = request;
                    if let Some(client) = client {
                        parts.extensions.insert(client);
                    }
                    let request = Request::from_parts(parts, Body::from(body));
                    let Ok(response) = inner.call(request).await;
                    return Ok(response);
                }
                None => {
                    if let Some(response) =
                        self.ask_peers(home, &request, rejected.as_ref()).await?
                    {
                        return self.pass_on(response, client);
                    }
                    let unowned = || not_live(&NotLive::Unowned(home));
                    return Err(unreachable
                        .map_or_else(unowned, |url: String| owner_unreachable(home, &url)));
                }
            };
            match self.send_to(&owner, &request).await {
                Ok(response) => return self.pass_on(response, client),
                Err(ForwardError::Misdirected) => unreachable = None,
                Err(ForwardError::Unreachable) => unreachable = Some(owner.url.clone()),
                Err(ForwardError::OutcomeUnknown) => return Err(outcome_unknown()),
            }
            rejected = Some(owner);
        }
    }

    async fn send_to(
        &self,
        peer: &OwnershipClaim,
        request: &ForwardedRequest,
    ) -> Result<hyper::Response<Incoming>, ForwardError> {
        let ForwardedRequest { parts, body, to_websocket, wait } = request;
        self.proxy.send_request(peer, parts, body.clone(), *to_websocket, *wait).await
    }

    /// Asks the peers that own other partitions, each once. An instance that is cut off from the log
    /// does not learn of new owners, and may still reach them. A peer that does not own the partition
    /// answers 421 at once. `None` if no peer owns it, or if they were asked a moment ago.
    async fn ask_peers(
        &self,
        home: i32,
        request: &ForwardedRequest,
        rejected: Option<&OwnershipClaim>,
    ) -> Result<Option<hyper::Response<Incoming>>, Problem> {
        let asked_at = self.peers_asked_at.lock().insert(home, Instant::now());
        if asked_at.is_some_and(|at| at.elapsed() < ASK_PEERS_INTERVAL) {
            return Ok(None);
        }
        let peers = self.app.ownership.guess_owners(home).into_iter();
        let peers = peers.filter(|peer| rejected.is_none_or(|rejected| rejected.url != peer.url));
        for peer in peers.take(MAX_ASKED_PEERS) {
            match self.send_to(&peer, request).await {
                Ok(response) => {
                    self.app.ownership.note_guess(peer);
                    return Ok(Some(response));
                }
                Err(ForwardError::Misdirected | ForwardError::Unreachable) => {}
                Err(ForwardError::OutcomeUnknown) => return Err(outcome_unknown()),
            }
        }
        Ok(None)
    }

    /// Turns the owner's response into this instance's. A stream takes one of the stream permits
    /// of this instance, and ends when this instance shuts down.
    fn pass_on(
        &self,
        mut response: hyper::Response<Incoming>,
        client: Option<OnUpgrade>,
    ) -> Result<Response, Problem> {
        let upgraded = response.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !upgraded && !is_event_stream(response.headers()) {
            return Ok(response.map(Body::new));
        }
        let streams = &self.app.streams;
        let permit = streams.acquire_permit(StreamKind::Forwarded)?;
        let (stopping, delay) = (streams.stopping.clone(), streams.clone());
        // Ends with the others at a shutdown, at a moment of its own.
        let stopping = async move {
            stopping.cancelled_owned().await;
            tokio::time::sleep(delay.end_delay()).await;
        };
        if let Some(client) = client.filter(|_| upgraded) {
            response.headers_mut().extend(WEBSOCKET_UPGRADE);
            let owner = hyper::upgrade::on(&mut response);
            streams.sockets.spawn(async move {
                let _permit = permit;
                tokio::select! {
                    () = join_upgraded(client, owner) => (),
                    () = stopping => (),
                }
            });
            return Ok(response.map(|_| Body::empty()));
        }
        let shutdown = async move {
            stopping.await;
            drop(permit);
        };
        let response = response
            .map(|body| Body::from_stream(Body::new(body).into_data_stream().take_until(shutdown)));
        Ok((Extension(StreamingResponse), response).into_response())
    }
}

fn outcome_unknown() -> Problem {
    let message = "The outcome is unknown: the inbox's owner did not answer. It is safe to retry";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, message)
}
