//! Sends one request to the peer that owns an inbox: headers, deadline, upgrade. Does not choose
//! the peer and never retries.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts};
use bytes::Bytes;
use http_body_util::Full;
use hyper::{Request, Response, body::Incoming, upgrade::OnUpgrade};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use metrics::{Counter, counter};
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{
    claims::OwnershipClaim,
    peers::{PeerNetworks, PeerResolver},
};
use crate::metrics::FORWARDED;

/// Marks a forwarded request. An instance that receives it answers itself or with 421.
pub(crate) const HOP: HeaderName = HeaderName::from_static("x-notifications-hop");
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// Added to the time that the peer itself may wait before it answers.
const RESPONSE_GRACE: Duration = Duration::from_secs(3);
/// Bytes of a response that wait here for a client that reads slowly; hyper's default is 400 KiB.
const MAX_BUFFER_BYTES: usize = 64 << 10;
const MAX_IDLE_CONNECTIONS_PER_PEER: usize = 64;
/// A peer that does not answer is logged at most this often.
const MIN_WARNING_INTERVAL: Duration = Duration::from_secs(60);

/// Headers of one connection only, even if `Connection` does not name them (RFC 9110 §7.6.1).
const HOP_BY_HOP: [&str; 6] =
    ["connection", "transfer-encoding", "te", "trailer", "upgrade", "keep-alive"];

/// Headers of a request that are not passed on, besides those of the connection. The client sets the
/// first two. The origin was checked here, and is foreign to the peer. No service of ours reads
/// cookies, and the others are meant for a proxy before this instance.
const KEPT_FROM_PEERS: [&str; 6] =
    ["host", "content-length", "origin", "cookie", "proxy-authorization", "proxy-connection"];

/// The headers of a response that are passed back: those that the routes of an inbox set. A peer
/// must not set a cookie or a policy (CSP, CORS) for this instance's origin.
const PASSED_BACK: [&str; 13] = [
    "allow",
    "cache-control",
    "content-length",
    "content-type",
    "date",
    "etag",
    "last-modified",
    "retry-after",
    "sec-websocket-accept",
    "vary",
    "www-authenticate",
    "x-accel-buffering",
    "x-request-id",
];

/// The media types of the routes of an inbox. Another one, such as a page, must not come from here.
const MEDIA_TYPES: [&str; 4] =
    ["application/json", "application/problem+json", "application/x-ndjson", "text/event-stream"];

/// The headers that turn an HTTP/1.1 connection into a WebSocket (RFC 6455 §4.1), in the request
/// and in the response.
pub(crate) const WEBSOCKET_UPGRADE: [(HeaderName, HeaderValue); 2] = [
    (header::CONNECTION, HeaderValue::from_static("upgrade")),
    (header::UPGRADE, HeaderValue::from_static("websocket")),
];

pub(crate) struct PeerProxy {
    client: Client<HttpConnector<PeerResolver>, Full<Bytes>>,
    read_timeout: Duration,
    /// When a peer that does not answer was last logged, by its URL.
    warned_at: Mutex<HashMap<String, Instant>>,
    answered: Counter,
    misdirected: Counter,
    failed: Counter,
}

/// Why a peer's response cannot be passed on.
#[derive(Debug)]
pub(crate) enum ForwardError {
    /// The peer does not own the partition.
    Misdirected,
    /// The peer does not answer, and has not carried the request out. Another owner may be asked.
    Unreachable,
    /// The peer may have carried the request out, and did not answer.
    OutcomeUnknown,
}

impl PeerProxy {
    /// `read_timeout`: how long a peer waits for its own partition before it answers. `networks`:
    /// where peers are.
    pub(crate) fn new(read_timeout: Duration, networks: PeerNetworks) -> Self {
        let mut connector = HttpConnector::new_with_resolver(PeerResolver(networks));
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new())
            .pool_max_idle_per_host(MAX_IDLE_CONNECTIONS_PER_PEER)
            .pool_idle_timeout(IDLE_TIMEOUT)
            .pool_timer(TokioTimer::new())
            .http1_max_buf_size(MAX_BUFFER_BYTES)
            .build(connector);
        let outcome = |outcome: &'static str| counter!(FORWARDED, "outcome" => outcome);
        let (answered, misdirected) = (outcome("answered"), outcome("misdirected"));
        let (failed, warned_at) = (outcome("failed"), Mutex::default());
        Self { client, read_timeout, warned_at, answered, misdirected, failed }
    }

    /// Sends the request to this peer, which may hold it for `wait` longer, and returns the
    /// response with those of its headers that are for the client.
    pub(crate) async fn send_request(
        &self,
        peer: &OwnershipClaim,
        parts: &Parts,
        body: Bytes,
        to_websocket: bool,
        wait: Duration,
    ) -> Result<Response<Incoming>, ForwardError> {
        let request = build_request(&peer.url, parts, body, to_websocket)
            .map_err(|error| self.unreachable(peer, &error.to_string()))?;
        let deadline = self.read_timeout + wait + RESPONSE_GRACE;
        let sent = timeout(deadline, self.client.request(request)).await;
        // A read is idempotent, so another owner may be asked after any failure.
        let is_read = parts.method == Method::GET;
        let (is_carried_out, reason) = match sent {
            Ok(Ok(response)) if response.status() == StatusCode::MISDIRECTED_REQUEST => {
                self.misdirected.increment(1);
                return Err(ForwardError::Misdirected);
            }
            Ok(Ok(mut response)) => {
                if has_own_media_type(response.headers()) {
                    keep_passed_back(response.headers_mut());
                    self.answered.increment(1);
                    return Ok(response);
                }
                (true, "it answers with a media type that no consumer uses".to_owned())
            }
            Ok(Err(error)) => (!error.is_connect(), with_sources(&error)),
            Err(_) => (true, "it did not answer in time".into()),
        };
        self.failed.increment(1);
        let error = self.unreachable(peer, &reason);
        Err(if is_read || !is_carried_out { error } else { ForwardError::OutcomeUnknown })
    }

    fn unreachable(&self, peer: &OwnershipClaim, reason: &str) -> ForwardError {
        let mut warned_at = self.warned_at.lock();
        warned_at.retain(|_, at| at.elapsed() < MIN_WARNING_INTERVAL);
        if !warned_at.contains_key(&peer.url) {
            warned_at.insert(peer.url.clone(), Instant::now());
            tracing::warn!(
                peer.url,
                reason,
                kafka.partition = peer.partition,
                "a peer owns a partition and does not answer; check --advertise there and the \
                 network. Logged once a minute",
            );
        }
        ForwardError::Unreachable
    }
}

fn with_sources(error: &dyn std::error::Error) -> String {
    let sources = std::iter::successors(error.source(), |error| error.source());
    sources.fold(error.to_string(), |text, source| format!("{text}: {source}"))
}

/// Returns true for a response without a body, or with one that this service could have written.
fn has_own_media_type(headers: &HeaderMap) -> bool {
    let Some(found) = headers.get(header::CONTENT_TYPE) else { return true };
    let found = found.to_str().unwrap_or_default().split(';').next().unwrap_or_default().trim();
    MEDIA_TYPES.iter().any(|own| own.eq_ignore_ascii_case(found))
}

fn keep_passed_back(headers: &mut HeaderMap) {
    let kept = PASSED_BACK.iter().flat_map(|name| {
        let values = headers.get_all(*name).iter().cloned();
        values.map(|value| (HeaderName::from_static(name), value))
    });
    *headers = kept.collect();
}

fn build_request(
    url: &str,
    parts: &Parts,
    body: Bytes,
    to_websocket: bool,
) -> Result<Request<Full<Bytes>>, axum::http::Error> {
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let request = Request::builder().method(parts.method.clone()).uri(format!("{url}{path}"));
    let mut request = request.body(Full::new(body))?;
    let headers = request.headers_mut();
    headers.clone_from(&parts.headers);
    remove_hop_by_hop(headers);
    for name in KEPT_FROM_PEERS {
        headers.remove(name);
    }
    if to_websocket {
        headers.extend(WEBSOCKET_UPGRADE);
    }
    headers.insert(HOP, HeaderValue::from_static("1"));
    Ok(request)
}

fn remove_hop_by_hop(headers: &mut HeaderMap) {
    for nominated in headers.get_all(header::CONNECTION).iter().cloned().collect::<Vec<_>>() {
        for name in nominated.to_str().unwrap_or_default().split(',') {
            headers.remove(name.trim());
        }
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
}

/// Returns true if a request with these headers asks for a WebSocket.
pub(crate) fn is_websocket_request(headers: &HeaderMap) -> bool {
    let protocol = headers.get(header::UPGRADE).map(HeaderValue::as_bytes);
    protocol.is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
}

/// Copies bytes between two upgraded connections, both ways, until either ends.
pub(crate) async fn join_upgraded(client: OnUpgrade, peer: OnUpgrade) {
    let (Ok(client), Ok(peer)) = tokio::join!(client, peer) else { return };
    let (mut client, mut peer) = (TokioIo::new(client), TokioIo::new(peer));
    if let Err(error) = tokio::io::copy_bidirectional(&mut client, &mut peer).await {
        tracing::debug!(%error, "a forwarded WebSocket connection broke");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forwarded_headers(to_websocket: bool) -> HeaderMap {
        let request = Request::builder()
            .uri("/notifications/1?limit=2")
            .header("host", "me:8081")
            .header("origin", "http://me:8081")
            .header("connection", "upgrade, keep-alive")
            .header("upgrade", "websocket")
            .header("authorization", "Bearer t")
            .header("cookie", "session=secret")
            .header("proxy-authorization", "Basic secret")
            .body(())
            .expect("a request");
        let (parts, ()) = request.into_parts();
        let request = build_request("http://peer:8081", &parts, Bytes::new(), to_websocket);
        let request = request.expect("a request");
        assert_eq!(request.uri(), "http://peer:8081/notifications/1?limit=2");
        request.headers().clone()
    }

    #[test]
    fn a_forwarded_request_has_no_header_of_the_client_s_connection() {
        let headers = forwarded_headers(false);
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["authorization", "x-notifications-hop"]);
    }

    #[test]
    fn a_header_that_connection_nominates_is_not_passed_on() {
        let mut headers = HeaderMap::new();
        headers.append("connection", HeaderValue::from_static("X-Private, close"));
        headers.append("connection", HeaderValue::from_static("keep-alive ,x-other,, no name"));
        // An unreadable value nominates no header.
        headers.append("connection", HeaderValue::from_bytes(b"\xe9").expect("a value"));
        for name in ["x-private", "x-other", "keep-alive", "x-public"] {
            headers.append(name, HeaderValue::from_static("1"));
        }
        remove_hop_by_hop(&mut headers);
        let names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names, ["x-public"]);
    }

    #[test]
    fn a_peer_sets_no_cookie_and_no_policy_for_this_instance_s_origin() {
        let mut headers = HeaderMap::new();
        for name in [
            "content-type",
            "etag",
            "retry-after",
            "set-cookie",
            "content-security-policy",
            "access-control-allow-origin",
            "location",
            "refresh",
            "service-worker-allowed",
            "connection",
        ] {
            headers.append(name, HeaderValue::from_static("x"));
        }
        keep_passed_back(&mut headers);
        let mut names: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        names.sort_unstable();
        assert_eq!(names, ["content-type", "etag", "retry-after"]);
    }

    #[test]
    fn a_peer_s_page_or_script_is_not_passed_back() {
        let of_type =
            |text| HeaderMap::from_iter([(header::CONTENT_TYPE, HeaderValue::from_static(text))]);
        assert!(has_own_media_type(&HeaderMap::new()));
        for own in
            ["application/json", "Application/Problem+JSON; charset=utf-8", "text/event-stream"]
        {
            assert!(has_own_media_type(&of_type(own)), "{own}");
        }
        for foreign in ["text/html", "text/javascript", "image/svg+xml", "", "application/jsonp"] {
            assert!(!has_own_media_type(&of_type(foreign)), "{foreign}");
        }
    }

    #[test]
    fn a_forwarded_upgrade_asks_the_peer_for_a_websocket_anew() {
        let headers = forwarded_headers(true);
        assert_eq!(headers["connection"], "upgrade");
        assert!(is_websocket_request(&headers));
    }
}
