//! Checks of the `Origin` header (RFC 6454). A browser lets any page send forms and open WebSockets
//! to any address, loopback included; other clients send no `Origin`.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri::Authority},
};

use crate::problem::Problem;

/// Returns true if the request has no `Origin`, or that of its own host.
#[must_use]
pub fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| Some(authority) == requested_host(headers, uri))
}

/// The rule of services without authentication. It answers 403
///
/// - to requests that may change state from another origin, unless `allowed` accepts it;
/// - where only loopback is listened to (`local`), to requests for another host name: with DNS
///   rebinding, a name that points at 127.0.0.1 would give a page this origin.
#[derive(Clone)]
pub struct OriginRule {
    local: bool,
    allowed: Arc<dyn Fn(&HeaderValue) -> bool + Send + Sync>,
}

impl OriginRule {
    /// The rule, for a listener that only this machine reaches if `local`.
    pub fn new(
        local: bool,
        allowed: impl Fn(&HeaderValue) -> bool + Send + Sync + 'static,
    ) -> Self {
        Self { local, allowed: Arc::new(allowed) }
    }

    pub(crate) fn check(&self, request: &Request) -> Result<(), Problem> {
        let (headers, uri) = (request.headers(), request.uri());
        let origin = headers.get(header::ORIGIN);
        let fine = request.method().is_safe()
            || is_own(headers, uri)
            || origin.is_some_and(|origin| (self.allowed)(origin));
        if !fine {
            return Err(foreign_origin());
        }
        if self.local && !requested_host(headers, uri).is_none_or(is_this_machine) {
            let message =
                "Without authentication, only requests to localhost or an IP address are accepted";
            return Err(Problem::new(StatusCode::FORBIDDEN, message));
        }
        Ok(())
    }
}

/// The `Host`, with its port. HTTP/2 has it in the request line.
fn requested_host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| uri.authority().map(Authority::as_str))
}

/// Returns true if the host is an IP address or a name that always means this machine (RFC 6761,
/// section 6.3).
fn is_this_machine(host: &str) -> bool {
    // What nearly all are. `Authority` allocates.
    let (name, _) = host.split_once(':').unwrap_or((host, ""));
    if name == "localhost" || name.parse::<Ipv4Addr>().is_ok() {
        return true;
    }
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let name = authority.host().trim_matches(['[', ']']).to_ascii_lowercase();
    name == "localhost" || name.ends_with(".localhost") || name.parse::<IpAddr>().is_ok()
}

/// 403 for a request from another origin.
#[must_use]
pub fn foreign_origin() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "Cross-origin requests are not allowed here")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_names_of_this_machine_are_those_that_nobody_else_can_have() {
        for own in [
            "localhost",
            "LOCALHOST:8080",
            "app.localhost",
            "127.0.0.1:80",
            "[::1]:8081",
            "10.0.0.7",
        ] {
            assert!(is_this_machine(own), "{own}");
        }
        for other in
            ["", "evil.example:8080", "localhost.evil.example", "127.0.0.1.evil.example", "a b"]
        {
            assert!(!is_this_machine(other), "{other}");
        }
    }
}
