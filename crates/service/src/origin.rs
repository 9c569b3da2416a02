//! Which page makes a browser send a request (RFC 6454). A browser lets any page that a person
//! opens send forms and open WebSockets to anywhere, a service on loopback included; programs send
//! no `Origin`.

use axum::{
    Router,
    extract::Request,
    http::{HeaderMap, HeaderValue, StatusCode, Uri, header, uri::Authority},
    middleware::{Next, from_fn},
    response::IntoResponse as _,
};

use crate::problem::Problem;

/// Whether these are the headers of a program, or of a page that came from here.
#[must_use]
pub fn is_own(headers: &HeaderMap, uri: &Uri) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else { return true };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://"));
    // HTTP/2 has the host in the request line alone.
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    let host = host.or_else(|| uri.authority().map(Authority::as_str));
    origin.is_some_and(|(_, authority)| Some(authority) == host)
}

/// Refuses (403) what a page of another origin would change, except for those that `allowed`
/// knows. For services that ask nobody who they are: to them, everything that reaches the socket is
/// the person at the machine.
pub fn refuse_foreign(
    routes: Router,
    allowed: impl Fn(&HeaderValue) -> bool + Clone + Send + Sync + 'static,
) -> Router {
    routes.layer(from_fn(move |request: Request, next: Next| {
        let origin = request.headers().get(header::ORIGIN);
        let fine = request.method().is_safe()
            || is_own(request.headers(), request.uri())
            || origin.is_some_and(&allowed);
        async move { if fine { next.run(request).await } else { foreign().into_response() } }
    }))
}

/// 403.
#[must_use]
pub fn foreign() -> Problem {
    Problem::new(StatusCode::FORBIDDEN, "A page of another origin may not do this")
}
