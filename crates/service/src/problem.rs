//! The one body of every error: RFC 9457 `application/problem+json`. It carries what the client
//! can act on; causes are logged by whoever has them, and never sent.

use std::{fmt, time::Duration};

use axum::{
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value};

/// The media type of a problem body (RFC 9457, section 3).
pub const MEDIA_TYPE: &str = "application/problem+json";

/// The members that the format itself defines, and the one that clients of the ancestor read.
const OWN: [&str; 5] = ["type", "title", "status", "detail", "message"];

/// All that is said of what is wrong here.
pub(crate) const INTERNAL: &str = "Something went wrong here; it is not your request's fault.";

/// An error as a client sees it: a status, a message in words, extension members and headers.
///
/// As a body: `type` (always `about:blank`: the status says what kind of problem it is), `title`
/// (the status in words), `status`, `detail` (the message), `message` (the same text, where
/// clients of the ancestor tutorial look for it), and the extensions. It is never cached.
#[derive(Clone)]
pub struct Problem(Box<Inner>); // Boxed, because it is the error of nearly every result.

#[derive(Clone)]
struct Inner {
    status: StatusCode,
    message: String,
    extensions: Map<String, Value>,
    headers: HeaderMap,
}

impl Problem {
    /// A problem with this status (4xx or 5xx) and this message, which the client will read: it
    /// says what is wrong and, where that helps, what to do. Never a driver's own text.
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

    /// 400: `field` cannot be used, and `why` says why: `to_id: must be a positive whole number`.
    /// The field's name is also the extension member `field`.
    #[must_use]
    pub fn bad_request(field: &str, why: impl fmt::Display) -> Self {
        Self::new(StatusCode::BAD_REQUEST, format!("{field}: {why}")).with("field", field)
    }

    /// 404.
    #[must_use]
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    /// 503: something that this service needs is away; `again` is when to try again.
    #[must_use]
    pub fn unavailable(message: impl Into<String>, again: Duration) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, message).retry_after(again)
    }

    /// 500, which says nothing but that it is our fault. Log the cause where it is known.
    #[must_use]
    pub fn internal() -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, INTERNAL)
    }

    /// When to try again: `Retry-After` (RFC 9110, section 10.2.3) and the member `retry_after`,
    /// in whole seconds, rounded up, at least 1.
    #[must_use]
    pub fn retry_after(self, after: Duration) -> Self {
        let seconds = after.as_secs().saturating_add(u64::from(after.subsec_nanos() > 0)).max(1);
        self.header(header::RETRY_AFTER, HeaderValue::from(seconds)).with("retry_after", seconds)
    }

    /// An extension member (RFC 9457, section 3.2). The format's own members cannot be replaced,
    /// and a value that JSON cannot hold is null.
    #[must_use]
    pub fn with(mut self, name: &'static str, value: impl Serialize) -> Self {
        debug_assert!(!OWN.contains(&name), "{name} is a member of the format itself");
        if !OWN.contains(&name) {
            let value = serde_json::to_value(value).unwrap_or(Value::Null);
            self.0.extensions.insert(name.to_owned(), value);
        }
        self
    }

    /// A header of the response, in place of an earlier one of that name.
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

    /// The status in words.
    fn title(&self) -> &'static str {
        self.0.status.canonical_reason().unwrap_or("Error")
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}: {}", self.0.status.as_u16(), self.title(), self.0.message)
    }
}

impl fmt::Debug for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Problem")
            .field("status", &self.0.status.as_u16())
            .field("message", &self.0.message)
            .field("extensions", &self.0.extensions)
            .field("headers", &self.0.headers)
            .finish()
    }
}

impl std::error::Error for Problem {}

impl Serialize for Problem {
    /// The body.
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
        // Only text, numbers and values that were JSON already: this cannot fail.
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
