//! The web pages that may send from a browser (CORS). By default no page may.

use std::{str::FromStr, time::Duration};

use axum::http::{HeaderName, HeaderValue, Method, header};
use tower_http::cors::CorsLayer;

/// The origins of the pages that may send; empty by default.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct AllowedOrigins(Vec<HeaderValue>);

/// Why a text is not a list of origins.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidOrigin {
    /// It is `*`.
    #[error(
        "* would let any web page that a user opens send on their behalf; list the origins of your own pages"
    )]
    Any,
    /// It is not spelled as browsers spell an origin.
    #[error(
        "{0:?} is not an origin such as https://app.example.org or http://localhost:3000: scheme, host and port, in lower case and without a path"
    )]
    Form(String),
}

impl AllowedOrigins {
    /// Adds an origin.
    pub fn with_origin(mut self, origin: &str) -> Result<Self, InvalidOrigin> {
        let origin = parse_origin(origin)?;
        if !self.0.contains(&origin) {
            self.0.push(origin);
        }
        Ok(self)
    }

    /// Returns true if pages of this origin may send.
    pub(crate) fn contains(&self, origin: &HeaderValue) -> bool {
        self.0.contains(origin)
    }

    /// The layer that answers preflights and adds the CORS headers; `None` if no page may send.
    pub(crate) fn cors_layer(&self) -> Option<CorsLayer> {
        if self.0.is_empty() {
            return None;
        }
        let layer = CorsLayer::new()
            .allow_origin(self.0.clone())
            .allow_methods([Method::GET, Method::POST, Method::PUT, Method::DELETE])
            .allow_headers([
                header::CONTENT_TYPE,
                header::AUTHORIZATION,
                HeaderName::from_static("idempotency-key"),
                // W3C Trace Context: a page that is traced sends both.
                HeaderName::from_static("traceparent"),
                HeaderName::from_static("tracestate"),
            ])
            .expose_headers(
                [header::RETRY_AFTER].into_iter().chain(crate::rate::HEADERS).collect::<Vec<_>>(),
            )
            .max_age(Duration::from_secs(60 * 60));
        Some(layer)
    }
}

impl FromStr for AllowedOrigins {
    type Err = InvalidOrigin;

    /// Parses origins separated by commas; an empty text is an empty list.
    fn from_str(text: &str) -> Result<Self, InvalidOrigin> {
        let mut origins = text.split(',').map(str::trim).filter(|origin| !origin.is_empty());
        origins.try_fold(Self::default(), Self::with_origin)
    }
}

/// Parses an origin. It must be spelled as browsers send it (RFC 6454, section 6.1), because origins
/// are compared byte by byte.
fn parse_origin(text: &str) -> Result<HeaderValue, InvalidOrigin> {
    if text == "*" {
        return Err(InvalidOrigin::Any);
    }
    let form = || InvalidOrigin::Form(text.to_owned());
    let (scheme, host) = text.split_once("://").ok_or_else(form)?;
    let scheme_is = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
    let host_is = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || ".-_:[]".contains(c);
    let fine = !scheme.is_empty()
        && scheme.chars().all(scheme_is)
        && !host.is_empty()
        && host.chars().all(host_is);
    // Browsers omit the scheme's default port.
    let spelled_out = matches!(
        (scheme, host.rsplit_once(':')),
        ("http", Some((_, "80"))) | ("https", Some((_, "443")))
    );
    if !fine || spelled_out {
        return Err(form());
    }
    HeaderValue::from_str(text).map_err(|_| form())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origins(text: &str) -> Result<Vec<String>, InvalidOrigin> {
        let origins: AllowedOrigins = text.parse()?;
        Ok(origins.0.iter().map(|o| o.to_str().expect("ASCII").to_owned()).collect())
    }

    #[test]
    fn origins_are_named_exactly_and_by_default_there_are_none() {
        assert_eq!(origins(""), Ok(vec![]));
        assert_eq!(
            origins(
                "https://app.example.org, http://localhost:3000,http://[::1]:8081,,https://app.example.org"
            ),
            Ok(vec![
                "https://app.example.org".into(),
                "http://localhost:3000".into(),
                "http://[::1]:8081".into()
            ])
        );
        for text in [
            "localhost:3000",
            "http://localhost:3000/",
            "https://Example.org",
            "https://example.org:443",
            "http://example.org:80",
            "null",
            "https://*.example.org",
            "https://",
            "://x",
            "https://user@example.org",
        ] {
            assert_eq!(origins(text), Err(InvalidOrigin::Form(text.into())), "{text}");
        }
    }

    #[test]
    fn any_origin_is_refused_with_the_reason() {
        assert_eq!(origins("https://a.example,*"), Err(InvalidOrigin::Any));
    }
}
