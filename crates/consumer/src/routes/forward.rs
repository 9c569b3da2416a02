//! Any instance answers for any user: what concerns somebody whose partition lives elsewhere is
//! passed to its owner, in at most one hop. The owner is the final authority.

use std::{
    convert::Infallible,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use crate::metrics::FORWARDED;
use axum::{
    Extension, RequestExt as _,
    body::{Body, to_bytes},
    extract::{Query, RawPathParams, Request},
    http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use futures_util::{
    FutureExt as _, StreamExt as _,
    future::{BoxFuture, Either},
};
use http_body_util::Full;
use hyper::{body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use metrics::{Counter, counter};
use service::{
    problem::Problem, server::admission::RequestPermit, server::detached::StreamingResponse,
};
use tokio::time::{Instant, timeout, timeout_at};
use tower::{Layer, Service};

use super::{App, access, live::Kind, problems::not_live, query::QueryParams, socket, stream};
use crate::{owners::Claim, view::NotLive};

/// Marks a request that an instance passed on; it is not passed on again.
const HOP: HeaderName = HeaderName::from_static("x-notifications-hop");
const CONNECT: Duration = Duration::from_secs(1);
/// What an owner may take beyond its own patience.
const GRACE: Duration = Duration::from_secs(3);
/// Connections to one peer that are kept for the next request.
const IDLE_CONNECTIONS: usize = 64;

/// Headers that concern one connection (RFC 9110 §7.6.1) and are not passed on.
const HOP_BY_HOP: [HeaderName; 6] = [
    header::CONNECTION,
    header::TRANSFER_ENCODING,
    header::TE,
    header::TRAILER,
    header::UPGRADE,
    HeaderName::from_static("keep-alive"),
];

/// A layer around the routes of one user's inbox: lets a request through to this instance's
/// handlers, or answers with the owner's words; after it is known that the caller may open that
/// inbox, which the owner asks again. A cheap handle, to be cloned.
#[derive(Clone)]
pub(super) struct ToOwner(Arc<Forwarder>);

/// What is behind [`ToOwner`].
#[derive(Clone)]
pub(super) struct Forwarding<S> {
    inner: S,
    forwarder: Arc<Forwarder>,
}

/// Passes requests to owners.
struct Forwarder {
    app: Arc<App>,
    client: Client<HttpConnector, Full<Bytes>>,
    max_body_bytes: usize,
    asked: Asked,
}

/// What came of asking owners.
struct Asked {
    answered: Counter,
    misdirected: Counter,
    failed: Counter,
}

impl Default for Asked {
    fn default() -> Self {
        let of = |outcome: &'static str| counter!(FORWARDED, "outcome" => outcome);
        Self { answered: of("answered"), misdirected: of("misdirected"), failed: of("failed") }
    }
}

impl ToOwner {
    pub(super) fn new(app: Arc<App>, max_body_bytes: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(IDLE_CONNECTIONS)
            .pool_idle_timeout(Duration::from_secs(30))
            .pool_timer(TokioTimer::new())
            .build(connector);
        Self(Arc::new(Forwarder { app, client, max_body_bytes, asked: Asked::default() }))
    }
}

impl<S> Layer<S> for ToOwner {
    type Service = Forwarding<S>;

    fn layer(&self, inner: S) -> Forwarding<S> {
        Forwarding { inner, forwarder: Arc::clone(&self.0) }
    }
}

impl<S> Service<Request> for Forwarding<S>
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
{
    type Response = Response;
    type Error = Infallible;
    /// Boxed only where there is something to wait for: nearly every request is for an inbox that
    /// is here.
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let answer = |answer: Response| Either::Right(async { Ok(answer) }.boxed());
        // It never waits: the router has left the parameters in the request.
        let Some(Ok(path)) = request.extract_parts::<RawPathParams>().now_or_never() else {
            return answer(Problem::internal().into_response());
        };
        let id = path.iter().find(|(name, _)| *name == "id").and_then(|(_, id)| id.parse().ok());
        // What names no user is refused by the handler, in its words.
        let Some(user) = id else { return Either::Left(self.inner.call(request)) };
        if let Err(refusal) = access::own_inbox(&request, user) {
            return answer(refusal.into_response());
        }
        let app = &self.forwarder.app;
        let home = app.view.home(user);
        let Some(partition) = app.view.partition(home) else {
            return Either::Left(self.inner.call(request));
        };
        if partition.is_owned() && wait(request.uri()).is_zero() {
            return Either::Left(self.inner.call(request));
        }
        // As tower wants it: the one that is ready is used, its copy stays.
        let copy = self.inner.clone();
        let inner = std::mem::replace(&mut self.inner, copy);
        let forwarder = Arc::clone(&self.forwarder);
        Either::Right(async move { forwarder.serve(home, request, inner).await }.boxed())
    }
}

impl Forwarder {
    /// Lets a request for an inbox in this partition through to `inner` when the partition is ours,
    /// now or within our patience, or asks the owner.
    async fn serve<S>(
        &self,
        home: i32,
        request: Request,
        mut inner: S,
    ) -> Result<Response, Infallible>
    where
        S: Service<Request, Response = Response, Error = Infallible>,
    {
        let app = &self.app;
        // Who waits for news takes no place among the requests that are worked on.
        let _waiting = if wait(request.uri()).is_zero() {
            None
        } else {
            match app.streams.place(Kind::Waiting) {
                Ok(place) => {
                    request.extensions().get::<RequestPermit>().inspect(|permit| permit.release());
                    Some(place)
                }
                Err(problem) => return Ok(problem.into_response()),
            }
        };
        let Some(partition) = app.view.partition(home) else { return inner.call(request).await };
        if partition.is_owned() {
            return inner.call(request).await;
        }
        if request.headers().contains_key(HOP) {
            let said = format!("partition {home} is not owned by this instance");
            return Ok(Problem::new(StatusCode::MISDIRECTED_REQUEST, said).into_response());
        }
        let mut client = None;
        let (mut parts, body) = request.into_parts();
        if let Some(upgrade) = parts.extensions.remove::<OnUpgrade>()
            && socket::is_asked_for(&parts.headers)
        {
            // Of another origin's page, the owner would only see that it comes from us.
            if let Err(problem) = socket::same_origin(&parts.headers, &parts.uri) {
                return Ok(problem.into_response());
            }
            client = Some(upgrade);
        }
        let Ok(body) = to_bytes(body, self.max_body_bytes).await else {
            let limit = self.max_body_bytes;
            let said = format!("The body is larger than {limit} bytes");
            return Ok(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, said).into_response());
        };
        let patience = Instant::now() + app.patience;
        let mut tried: Option<Claim> = None;
        loop {
            let changed = app.owners.changed();
            if partition.is_owned() {
                if let Some(client) = client {
                    parts.extensions.insert(client);
                }
                return inner.call(Request::from_parts(parts, Body::from(body))).await;
            }
            match app.owners.peer(home) {
                // The same word of the same owner, which just turned out to be old.
                Some(owner) if tried.as_ref() == Some(&owner) => {}
                Some(owner) => {
                    match self.ask(&owner, &parts, body.clone(), client.is_some()).await {
                        Ok(answer) => return Ok(self.pass_on(answer, client)),
                        Err(reason) => {
                            tracing::debug!(
                                kafka.partition = home,
                                owner.url,
                                reason,
                                "an owner did not answer"
                            );
                            tried = Some(owner);
                            continue;
                        }
                    }
                }
                None => {}
            }
            // The next word on this partition may be on its way: refreshed once, then given up.
            let news = async {
                tokio::select! { () = changed => (), () = partition.owned() => () }
            };
            if timeout_at(patience, news).await.is_err() {
                return Ok(not_live(&NotLive::Unowned { partition: home }).into_response());
            }
        }
    }

    /// The owner's answer; `Err`, with the reason, when another may have to be asked: it is not
    /// the owner after all, or not there.
    async fn ask(
        &self,
        owner: &Claim,
        asked: &Parts,
        body: Bytes,
        socket: bool,
    ) -> Result<Answer, String> {
        let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut request = hyper::Request::builder()
            .method(asked.method.clone())
            .uri(format!("{}{path}", owner.url))
            .body(Full::new(body))
            .map_err(|error| error.to_string())?;
        *request.headers_mut() = asked.headers.clone();
        let own = [header::HOST, header::CONTENT_LENGTH, header::ORIGIN];
        for name in HOP_BY_HOP.iter().chain(&own) {
            request.headers_mut().remove(name);
        }
        if socket {
            request.headers_mut().extend(socket::UPGRADE);
        }
        request.headers_mut().insert(HOP, HeaderValue::from_static("1"));
        let deadline = self.app.patience + wait(&asked.uri) + GRACE;
        let reads = asked.method == Method::GET;
        let asked = timeout(deadline, self.client.request(request)).await;
        let outcome = match &asked {
            Ok(Ok(answer)) if answer.status() == StatusCode::MISDIRECTED_REQUEST => {
                &self.asked.misdirected
            }
            Ok(Ok(_)) => &self.asked.answered,
            Ok(Err(_)) | Err(_) => &self.asked.failed,
        };
        outcome.increment(1);
        let answer = match asked {
            Ok(Ok(answer)) => answer,
            // What changes something may have been done although nobody said so.
            Ok(Err(error)) if !error.is_connect() && !reads => return Ok(Answer::Unknown),
            Err(_) if !reads => return Ok(Answer::Unknown),
            Ok(Err(error)) => return Err(error.to_string()),
            Err(_) => return Err("no answer in time".into()),
        };
        if answer.status() == StatusCode::MISDIRECTED_REQUEST {
            return Err("it is not the owner any more".into());
        }
        Ok(Answer::Owner(answer))
    }

    /// The owner's answer as ours. A stream takes a place among our own, and ends with them.
    fn pass_on(&self, answer: Answer, client: Option<OnUpgrade>) -> Response {
        let mut answer = match answer {
            Answer::Owner(answer) => answer,
            Answer::Unknown => {
                let said = "The outcome is unknown: the inbox's owner did not answer. Doing it again is safe";
                return Problem::new(StatusCode::GATEWAY_TIMEOUT, said).into_response();
            }
        };
        for name in &HOP_BY_HOP {
            answer.headers_mut().remove(name);
        }
        let streams = &self.app.streams;
        let upgraded = answer.status() == StatusCode::SWITCHING_PROTOCOLS;
        if !upgraded && !stream::is_stream(answer.headers()) {
            return answer.map(Body::new).into_response();
        }
        let place = match streams.place(Kind::Forwarded) {
            Ok(place) => place,
            Err(problem) => return problem.into_response(),
        };
        let stopping = streams.stopping.clone();
        if let Some(client) = client.filter(|_| upgraded) {
            answer.headers_mut().extend(socket::UPGRADE);
            let owner = hyper::upgrade::on(&mut answer);
            streams.sockets.spawn(async move {
                let _place = place;
                tokio::select! {
                    () = join(client, owner) => (),
                    () = stopping.cancelled_owned() => (),
                }
            });
            return answer.map(|_| Body::empty()).into_response();
        }
        let ends = async move {
            stopping.cancelled_owned().await;
            drop(place);
        };
        let answer = answer
            .map(|body| Body::from_stream(Body::new(body).into_data_stream().take_until(ends)));
        (Extension(StreamingResponse), answer).into_response()
    }
}

/// How long a request to this address asks to wait for news.
fn wait(uri: &Uri) -> Duration {
    if uri.query().is_none() {
        return Duration::ZERO;
    }
    Query::<QueryParams>::try_from_uri(uri).map(|Query(raw)| raw.wait()).unwrap_or_default()
}

/// What came of asking an owner.
enum Answer {
    /// Their answer.
    Owner(hyper::Response<Incoming>),
    /// None, to something that they may have done.
    Unknown,
}

/// Passes everything from one to the other, both ways, until either ends.
async fn join(client: OnUpgrade, owner: OnUpgrade) {
    let (Ok(client), Ok(owner)) = tokio::join!(client, owner) else { return };
    let (mut client, mut owner) = (TokioIo::new(client), TokioIo::new(owner));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut owner).await {
        tracing::debug!(%error, "a forwarded WebSocket broke off");
    }
}
