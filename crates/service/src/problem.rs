//! The body of every error: RFC 9457 `application/problem+json`. Causes are logged, and never sent.

use std::{fmt, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of a problem body (RFC 9457, section 3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The members of the format, and `message`, which clients of the tutorial read.
const OWN: [&str; 5] = ["type", "title", "status", "detail", "message"];

/// The message of every 500.
pub(crate) const INTERNAL: &str = "Internal error; your request is not at fault.";

/// An error as the client sees it: a status, a message, extension members and headers.
///
/// The body has `type` (always `about:blank`), `title` (the status in words), `status`, `detail`
/// (the message), `message` (the same text, for clients of the tutorial) and the extensions. It is
/// never cached.
#[derive(Clone, Debug)]
pub struct Problem(Box<Inner>); // Boxed, because it is the error of nearly every result.

#[derive(Clone, Debug)]
struct Inner {
    status: StatusCode,
    message: String,
    extensions: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with this status (4xx or 5xx) and a message for the client: the cause and, if
    /// useful, the remedy. Never a driver's own text.
    #[must_use]
    pub fn new(status: StatusCode, message: impl Into<String>) -> Self {
        debug_assert!(status.is_client_error() || status.is_server_error(), "{status}");
        Self(Box::new(Inner {
            status,
            message: message.into(),
            extensions: Map::new(),
            headers: HeaderMap::new(),
        }))
    }

    /// 400: `field` is invalid, such as `to_id: must be a positive whole number`. The field's name
    /// is also the member `field`.
    #[must_use]
    pub fn bad_request(field: &str, why: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{field}: {why}")).with("field", field)
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 503: a dependency is unavailable; retry after `again`.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, again: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(again)
    }

    /// 500. Log the cause where it is known.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL)
    }

    /// Sets `Retry-After` (RFC 9110, section 10.2.3) and the member `retry_after`, in whole
    /// seconds, rounded up, at least 1.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds)).with("retry_after", seconds)
    }

    /// Adds an extension member (RFC 9457, section 3.2). Members of the format cannot be replaced;
    /// a value that JSON cannot represent is null.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        debug_assert!(!OWN.contains(&name), "{name} is a member of the format itself");
        if !OWN.contains(&name) {
            let value = serde_json::to_value(value).unwrap_or(Value::Null);
            self.0.extensions.insert(name.to_owned(), value);
        }
        self
    }

    /// Sets a header of the response.
    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.headers.insert(name, value);
        self
    }

    /// The status, 4xx or 5xx.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.0.status
    }

    /// The message, as the client reads it.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    fn title(&self) -> &'static str {
        self.0.status.canonical_reason().unwrap_or("Error")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.title(), self.0.message)
    }
}

impl std::error::Error for Problem {}

impl Serialize for Problem {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap as _;
        let mut body = serializer.serialize_map(Some(OWN.len() + self.0.extensions.len()))?;
        body.serialize_entry("type", "about:blank")?;
        body.serialize_entry("title", self.title())?;
        body.serialize_entry("status", &self.0.status.as_u16())?;
        body.serialize_entry("detail", &self.0.message)?;
        body.serialize_entry("message", &self.0.message)?;
        for (name, value) in &self.0.extensions {
            body.serialize_entry(name, value)?;
        }
        body.end()
    }
}

impl IntoResponse for Problem {
    /// The response also carries the problem itself as an extension, for the request log.
    fn into_response(self) -> Response {
        // Cannot fail: only text, numbers and JSON values.
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (self.0.status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        for (name, value) in &self.0.headers {
            headers.insert(name, value.clone());
        }
        response.extensions_mut().insert(self);
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_body_has_the_members_of_the_format_the_message_twice_and_the_extensions() {
        let problem =
            Problem::bad_request("to_id", "must be a positive whole number").with("line", 3);
        assert_eq!(
            serde_json::to_value(&problem).expect("a body"),
            serde_json::json!({
                "type": "about:blank", "title": "Bad Request", "status": 400,
                "detail": "to_id: must be a positive whole number",
                "message": "to_id: must be a positive whole number",
                "field": "to_id", "line": 3
            })
        );
        assert_eq!(problem.to_string(), "400 Bad Request: to_id: must be a positive whole number");
    }

    #[test]
    fn retry_after_is_whole_seconds_rounded_up_and_at_least_one() {
        for (after, seconds) in [(0, 1), (1, 1), (1000, 1), (1001, 2), (90_000, 90)] {
            let problem = Problem::unavailable("later", Duration::from_millis(after));
            let body = serde_json::to_value(&problem).expect("a body");
            assert_eq!(body["retry_after"], seconds, "{after} ms");
            let response = problem.into_response();
            assert_eq!(response.headers()[header::RETRY_AFTER], seconds.to_string(), "{after} ms");
        }
    }

    #[test]
    fn a_problem_is_never_cached_and_keeps_its_headers() {
        let response = Problem::internal()
            .header(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"))
            .into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(response.headers()[header::CONTENT_TYPE], MEDIA_TYPE);
        assert_eq!(response.headers()[header::CACHE_CONTROL], "no-store");
        assert_eq!(response.headers()[header::WWW_AUTHENTICATE], "Bearer");
    }

    #[test]
    fn a_problem_is_as_small_as_a_pointer() {
        assert_eq!(size_of::<Problem>(), size_of::<usize>());
    }
}
