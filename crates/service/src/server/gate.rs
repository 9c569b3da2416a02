//! A synchronous check in front of a router: it answers at once or passes the request on. Unlike
//! axum's `from_fn` it does not clone and box the inner service at each request.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use futures_util::future::Either;
use tower::{Layer, Service, layer::layer_fn};

/// Calls `check` for each request; a response ends it. The check may add extensions.
pub(crate) fn gate<S, C: Clone>(check: C) -> impl Layer<S, Service = Gate<S, C>> + Clone {
    layer_fn(move |inner| Gate { inner, check: check.clone() })
}

#[derive(Clone)]
pub(crate) struct Gate<S, C> {
    inner: S,
    check: C,
}

impl<S, C> Service<Request> for Gate<S, C>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    C: Fn(&mut Request) -> Option<Response>,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, Ready<Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        match (self.check)(&mut request) {
            None => Either::Left(self.inner.call(request)),
            Some(answer) => Either::Right(ready(Ok(answer))),
        }
    }
}
