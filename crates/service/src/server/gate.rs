//! A synchronous check in front of a router: it answers at once or passes the request on. Unlike
//! axum's `from_fn` it does not clone and box the inner service at each request.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    task::{Context, Poll},
};

use axum::{extract::Request, response::Response};
use futures_util::future::Either;
use tower::{Layer, Service};

/// Calls `check` for each request; a response ends it. The check may add extensions.
#[derive(Debug, Clone)]
pub(crate) struct Gate<C>(pub(crate) C);

/// The service that [`Gate`] makes.
#[derive(Debug, Clone)]
pub(crate) struct GateService<S, C> {
    inner: S,
    check: C,
}

impl<S, C: Clone> Layer<S> for Gate<C> {
    type Service = GateService<S, C>;

    fn layer(&self, inner: S) -> GateService<S, C> {
        GateService { inner, check: self.0.clone() }
    }
}

impl<S, C> Service<Request> for GateService<S, C>
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
