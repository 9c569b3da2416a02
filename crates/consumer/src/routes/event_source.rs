//! Keeps an `EventSource` coming back. By its standard
//! (<https://html.spec.whatwg.org/multipage/server-sent-events.html>) it gives up for good at any
//! status but 200, so a refusal that will pass is a stream that ends at once.

use std::{
    convert::Infallible,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    extract::{MatchedPath, Request},
    http::{
        HeaderValue, Method, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, RETRY_AFTER},
    },
    response::{IntoResponse as _, Response},
};
use futures_util::{
    FutureExt as _,
    future::{BoxFuture, Either},
};
use serde_json::json;
use service::problem::Problem;
use tower::{Layer, Service, layer::layer_fn};

use super::{
    accept,
    jitter::jittered,
    stream::{EVENT_STREAM, STREAM_PATH},
};

/// If the refusal names no time.
const RETRY_DELAY: Duration = Duration::from_secs(5);

/// Turns 429 and 503 of the stream's route into 200 with `retry` and the event `end`, for clients
/// that name `text/event-stream` in `Accept`, as an `EventSource` does. It must be the outermost
/// layer: the server sheds requests before the route sees them.
pub(super) fn keep_event_sources<S>() -> impl Layer<S, Service = KeepEventSources<S>> + Clone {
    layer_fn(|inner| KeepEventSources { inner })
}

#[derive(Clone)]
pub(super) struct KeepEventSources<S> {
    inner: S,
}

impl<S> Service<Request> for KeepEventSources<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Either<S::Future, BoxFuture<'static, Result<Response, Infallible>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let route = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
        let is_event_source = route == Some(STREAM_PATH)
            && request.method() == Method::GET
            && accept::names(request.headers(), EVENT_STREAM);
        let response = self.inner.call(request);
        if !is_event_source {
            return Either::Left(response);
        }
        Either::Right(response.map(|response| response.map(end_instead_of_refusal)).boxed())
    }
}

fn end_instead_of_refusal(response: Response) -> Response {
    let is_passing = [StatusCode::TOO_MANY_REQUESTS, StatusCode::SERVICE_UNAVAILABLE]
        .contains(&response.status());
    if !is_passing {
        return response;
    }
    let seconds = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let seconds = seconds.and_then(|seconds| seconds.parse().ok());
    let least = seconds.map_or(RETRY_DELAY, Duration::from_secs);
    // Spread, because many were refused at the same time.
    let retry_ms = jittered(least..least * 2).as_millis();
    let data =
        json!({ "reason": "unavailable", "problem": response.extensions().get::<Problem>() });
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(EVENT_STREAM)),
        (CACHE_CONTROL, HeaderValue::from_static("no-store")),
    ];
    (headers, format!("retry: {retry_ms}\nevent: end\ndata: {data}\n\n")).into_response()
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(refusal: Problem, accept: &str) -> (u16, String) {
        let app = Router::new()
            .route(STREAM_PATH, get(async move || refusal.clone()))
            .layer(keep_event_sources());
        let request = Request::get("/notifications/1/stream").header("accept", accept);
        let request = request.body(Body::empty()).expect("a request");
        let response = app.oneshot(request).await.expect("infallible");
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.expect("a body").to_bytes();
        (status, String::from_utf8(body.to_vec()).expect("text"))
    }

    #[tokio::test]
    async fn a_refusal_that_will_pass_is_a_stream_that_ends_for_an_event_source_alone() {
        let busy = || Problem::unavailable("Live-stream limit reached (1)", Duration::from_secs(5));
        let (status, text) = ask(busy(), "text/event-stream").await;
        assert_eq!(status, 200);
        let lines: Vec<_> = text.lines().collect();
        let retry_ms: u64 = lines[0].strip_prefix("retry: ").expect("retry").parse().expect("ms");
        assert!((5000..=10_000).contains(&retry_ms), "{text}");
        assert_eq!(lines[1], "event: end");
        let data = lines[2].strip_prefix("data: ").expect("data");
        let data: serde_json::Value = serde_json::from_str(data).expect("JSON");
        assert_eq!(data["reason"], "unavailable");
        assert_eq!(
            (&data["problem"]["status"], &data["problem"]["retry_after"]),
            (&json!(503), &json!(5))
        );
        assert!(text.ends_with("\n\n"));

        assert_eq!(ask(busy(), "*/*").await.0, 503);
        assert_eq!(ask(busy(), "application/x-ndjson").await.0, 503);
        let many = Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many");
        assert_eq!(ask(many, "text/event-stream").await.0, 200);
        // Coming back with the same token or address would not help.
        for status in [400, 401, 403, 404, 500] {
            let status = StatusCode::from_u16(status).expect("a status");
            assert_eq!(
                ask(Problem::new(status, "no"), "text/event-stream").await.0,
                status.as_u16()
            );
        }
    }
}
