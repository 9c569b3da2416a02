//! Checks of the `Origin` header (RFC 6454). A browser lets any page send forms and open WebSockets
//! to any address, loopback included; other clients send no `Origin`.

use std::net::IpAddr;

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri::Authority},
    response::IntoResponse as _,
};

use crate::{problem::Problem, server::gate::gate};

/// Returns true if the request has no `Origin`, or that of its own host.
#[must_use]
pub fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    origin.is_some_and(|(_, authority)| Some(authority) == requested_host(headers, uri))
}

/// For services without authentication. Answers 403
///
/// - to requests that may change state from another origin, unless `allowed` accepts it;
/// - where only loopback is listened to (`local`), to requests for another host name: with DNS
///   rebinding, a name that points at 127.0.0.1 would give a page this origin.
pub fn refuse_foreign_origins(
    routes: Router,
    local: bool,
    allowed: impl Fn(&HeaderValue) -> bool + Clone + Send + Sync + 'static,
) -> Router {
    routes.layer(gate(move |request: &mut Request| {
        let origin = request.headers().get(header::ORIGIN);
        let fine = request.method().is_safe()
            || is_own(request.headers(), request.uri())
            || origin.is_some_and(&allowed);
        if !fine {
            Some(foreign_origin().into_response())
        } else if local
            && !requested_host(request.headers(), request.uri()).is_none_or(is_this_machine)
        {
            let message =
                "Without authentication, only requests to localhost or an IP address are accepted";
            Some(Problem::new(StatusCode::FORBIDDEN, message).into_response())
        } else {
            None
        }
    }))
}

/// The `Host`, with its port. HTTP/2 has it in the request line.
fn requested_host<'r>(headers: &'r HeaderMap, uri: &'r Uri) -> Option<&'r str> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.or_else(|| uri.authority().map(Authority::as_str))
}

/// Returns true if the host is an IP address or a name that always means this machine (RFC 6761,
/// section 6.3).
fn is_this_machine(host: &str) -> bool {
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
