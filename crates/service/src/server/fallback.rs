//! Problem bodies for errors without a handler: an unknown route, a wrong method, a panic, a limit
//! of a layer. They make every error look the same.

use std::{any::Any, time::Duration};

use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use hyper::body::Body as _;

use crate::problem::{self, Problem};

/// Bounds the foreign text that becomes a message; axum's own rejections are a sentence.
const MAX_TEXT_BYTES: u64 = 1024;

/// Returns true for an error response with an empty or plain-text body, as axum writes them.
pub(crate) fn lacks_problem_body(response: &Response) -> bool {
    let status = response.status();
    (status.is_client_error() || status.is_server_error()) && !has_own_body(response.headers())
}

/// Turns an error response that [lacks a problem's body](lacks_problem_body) into a problem with the
/// same status and headers, such as `Allow`.
pub(crate) async fn write_problem_body(response: Response) -> Response {
    let status = response.status();
    let (mut parts, body) = response.into_parts();
    let text = read_short_text(body).await;
    // Texts about client errors may be sent; texts about ours are only logged.
    let message = if status.is_client_error() && !text.is_empty() {
        text
    } else {
        if !text.is_empty() {
            tracing::error!(
                http.status = status.as_u16(),
                error = text,
                "a layer answered with its own error"
            );
        }
        default_message(status).to_owned()
    };
    let mut problem = Problem::new(status, message);
    if status == StatusCode::SERVICE_UNAVAILABLE && !parts.headers.contains_key(header::RETRY_AFTER)
    {
        problem = problem.retry_after(Duration::from_secs(1));
    }
    use header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, TRANSFER_ENCODING};
    for about_the_old_body in [CONTENT_TYPE, CONTENT_LENGTH, TRANSFER_ENCODING, CACHE_CONTROL] {
        parts.headers.remove(about_the_old_body);
    }
    let mut response = problem.into_response();
    for (name, value) in &parts.headers {
        response.headers_mut().append(name, value.clone());
    }
    response
}

/// 500 for a panic in a handler, which the hook of `init_logging` logs.
pub(crate) fn respond_to_panic(_: Box<dyn Any + Send + 'static>) -> Response {
    Problem::internal().into_response()
}

fn has_own_body(headers: &HeaderMap) -> bool {
    let plain = b"text/plain";
    headers.get(header::CONTENT_TYPE).is_some_and(|value| {
        !value.as_bytes().get(..plain.len()).is_some_and(|start| start.eq_ignore_ascii_case(plain))
    })
}

/// The body as text, or empty if it is long or not UTF-8.
async fn read_short_text(body: Body) -> String {
    if body.size_hint().upper().is_none_or(|size| size == 0 || size > MAX_TEXT_BYTES) {
        return String::new();
    }
    let bytes = axum::body::to_bytes(body, usize::MAX).await.unwrap_or_default();
    String::from_utf8(bytes.into()).unwrap_or_default()
}

fn default_message(status: StatusCode) -> &'static str {
    match status {
        StatusCode::NOT_FOUND => "No such route.",
        // The router adds `Allow` outside of all layers, so its value is unknown here.
        StatusCode::METHOD_NOT_ALLOWED => {
            "This route does not accept the method; see the Allow header."
        }
        StatusCode::REQUEST_TIMEOUT => "The request did not arrive in time.",
        StatusCode::PAYLOAD_TOO_LARGE => "The request body is too large.",
        StatusCode::UNSUPPORTED_MEDIA_TYPE => "This route does not accept the Content-Type.",
        StatusCode::TOO_MANY_REQUESTS => "Too many requests; try again later.",
        StatusCode::INTERNAL_SERVER_ERROR => problem::INTERNAL,
        StatusCode::SERVICE_UNAVAILABLE => "The service is overloaded; try again.",
        StatusCode::GATEWAY_TIMEOUT => {
            "No response in time; the outcome of the request is unknown."
        }
        other => other.canonical_reason().unwrap_or("Error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_wrong_here_is_not_told() {
        let response = (StatusCode::BAD_GATEWAY, "connection to 10.0.0.7 refused").into_response();
        let response = write_problem_body(response).await;
        let body = axum::body::to_bytes(response.into_body(), usize::MAX).await.expect("a body");
        let body: serde_json::Value = serde_json::from_slice(&body).expect("JSON");
        assert_eq!(body["status"], 502);
        assert_eq!(body["message"], "Bad Gateway");
    }
}
