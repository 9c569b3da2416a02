//! Authenticates a router's requests.

use std::convert::Infallible;

use axum::{
    extract::Request,
    http::{HeaderMap, StatusCode, Uri, header},
    response::{IntoResponse as _, Response},
    routing::Route,
};
use tower::{Layer, Service, ServiceBuilder, layer::util::Identity};

use crate::ops::metrics::AUTH_REFUSED;
use utoipa_axum::router::OpenApiRouter;

use super::{Auth, Caller, TokenRefusal};
use crate::{
    problem::Problem,
    server::{admission::RequestPermit, gate::gate},
};

/// The parts of a request that may carry its token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TokenIn {
    /// In the header only.
    Header,
    /// Also as `access_token` in the query (RFC 6750, section 2.3): browsers cannot set headers for
    /// an `EventSource` or a `WebSocket`.
    HeaderOrQuery,
}

/// The scope of operators: metrics and states.
pub const OPERATE: &str = "metrics";

impl Auth {
    /// Requires a valid token. Handlers find a [`Caller`].
    pub fn require_caller<S>(&self, routes: OpenApiRouter<S>, token: TokenIn) -> OpenApiRouter<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        self.require_caller_before(routes, token, Identity::new())
    }

    /// Requires a valid token, and adds a layer behind it. Each layer of a router costs two boxes a
    /// request; this one adds only one.
    pub fn require_caller_before<S, L>(
        &self,
        routes: OpenApiRouter<S>,
        token: TokenIn,
        inner: L,
    ) -> OpenApiRouter<S>
    where
        S: Clone + Send + Sync + 'static,
        L: Layer<Route> + Clone + Send + Sync + 'static,
        L::Service: Service<Request, Response = Response, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request>>::Future: Send + 'static,
    {
        let (auth, counting) = (self.clone(), self.clone());
        let count_refusals = move |response: Response| {
            if response.status() == StatusCode::FORBIDDEN {
                counting.count_refusal("forbidden");
            }
            response
        };
        let check = gate(move |request: &mut Request| auth.check_request(request, token));
        routes.route_layer(
            ServiceBuilder::new().map_response(count_refusals).layer(check).layer(inner),
        )
    }

    /// Adds the caller to the request, or returns the rejection.
    fn check_request(&self, request: &mut Request, place: TokenIn) -> Option<Response> {
        let token = bearer_token(request.headers());
        let query = (place == TokenIn::HeaderOrQuery).then(|| query_token(request.uri())).flatten();
        match self.verify_token(token.or(query.as_deref())) {
            Ok(caller) => {
                let permit = request.extensions().get::<RequestPermit>();
                if let Some(Err(problem)) = permit.map(|permit| permit.count_caller(&caller)) {
                    return Some(problem.into_response());
                }
                request.extensions_mut().insert(caller);
                None
            }
            Err(refusal) => {
                self.count_refusal(match refusal {
                    TokenRefusal::Missing => "missing",
                    TokenRefusal::Expired => "expired",
                    _ => "invalid",
                });
                Some(Problem::from(refusal).into_response())
            }
        }
    }

    /// Requires a token with this scope.
    pub fn require_scope<S>(
        &self,
        scope: &'static str,
        routes: OpenApiRouter<S>,
    ) -> OpenApiRouter<S>
    where
        S: Clone + Send + Sync + 'static,
    {
        let check = gate(move |request: &mut Request| {
            let caller = Caller::from_extensions(request.extensions());
            let checked = caller.and_then(|caller| caller.must_have(scope));
            checked.err().map(Problem::into_response)
        });
        self.require_caller(routes.route_layer(check), TokenIn::Header)
    }

    fn count_refusal(&self, reason: &'static str) {
        if let Some(shared) = &self.0 {
            metrics::counter!(AUTH_REFUSED, "service" => shared.service, "reason" => reason)
                .increment(1);
        }
    }
}

pub(super) fn bearer_token(headers: &HeaderMap) -> Option<&str> {
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

pub(super) fn query_token(uri: &Uri) -> Option<String> {
    let pairs = uri.query()?.split('&');
    // Tokens need no percent-encoding: base64url and dots (RFC 7515, section 7.1).
    pairs
        .filter_map(|pair| pair.split_once('='))
        .find(|(name, _)| *name == "access_token")
        .map(|(_, token)| token.to_owned())
}
