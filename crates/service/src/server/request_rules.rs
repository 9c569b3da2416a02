//! Rules of HTTP that hyper leaves to the application: `Host`, and the coding and character set of
//! a request's content. A request that breaks one is refused before anything reads it.

use axum::{
    extract::Request,
    http::{
        HeaderMap, HeaderValue, StatusCode, Version, header,
        header::{CONTENT_ENCODING, CONTENT_TYPE, HOST},
        uri::Authority,
    },
};
use hyper::body::Body as _;

use crate::problem::Problem;

/// Checks all of them.
pub(crate) fn check_rules(request: &Request) -> Result<(), Problem> {
    let headers = request.headers();
    check_host(headers, request.version())?;
    if request.body().is_end_stream() { Ok(()) } else { check_content(headers) }
}

/// RFC 9112, section 3.2: a request of HTTP/1.1 without `Host` is answered 400, and so is one with
/// several or an invalid one. Otherwise two servers on the way could take it for different hosts.
fn check_host(headers: &HeaderMap, version: Version) -> Result<(), Problem> {
    let mut hosts = headers.get_all(HOST).iter();
    match (hosts.next(), hosts.next()) {
        (Some(host), None) if is_host(host) => Ok(()),
        (Some(_), None) => {
            Err(Problem::bad_request("Host", "must be a host and optionally a port"))
        }
        // In HTTP/2 the pseudo-header :authority stands for it, and HTTP/1.0 has none.
        (None, _) if version != Version::HTTP_11 => Ok(()),
        _ => Err(Problem::bad_request("Host", "must be given once")),
    }
}

/// Empty is for URLs without a host (RFC 9110, section 7.2).
fn is_host(value: &HeaderValue) -> bool {
    let Ok(text) = value.to_str() else { return false };
    // What nearly all are: a name or an IPv4 address, and a port. `Authority` allocates.
    let (name, port) = text.rsplit_once(':').unwrap_or((text, ""));
    let is_name_byte = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-');
    if !name.is_empty()
        && name.bytes().all(is_name_byte)
        && port.bytes().all(|byte| byte.is_ascii_digit())
    {
        return true;
    }
    let authority = text.parse::<Authority>();
    let is_host = |authority: &Authority| {
        let port = authority.as_str().strip_prefix(authority.host()).unwrap_or_default();
        !text.contains('@') && port.chars().all(|c| c == ':' || c.is_ascii_digit())
    };
    text.is_empty() || authority.is_ok_and(|authority| is_host(&authority))
}

/// 415 for content that would be read as something else than it is (RFC 9110, sections 8.3 and 8.4).
fn check_content(headers: &HeaderMap) -> Result<(), Problem> {
    let unsupported = |message| Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message);
    let codings = headers.get_all(CONTENT_ENCODING).iter().flat_map(|value| {
        String::from_utf8_lossy(value.as_bytes()).split(',').map(str::to_owned).collect::<Vec<_>>()
    });
    let mut codings = codings.filter(|coding| !coding.trim().is_empty());
    if codings.any(|coding| !coding.trim().eq_ignore_ascii_case("identity")) {
        let problem =
            unsupported("Content-Encoding: the content must not be compressed or encoded");
        return Err(problem.header(header::ACCEPT_ENCODING, HeaderValue::from_static("identity")));
    }
    let charset = headers.get(CONTENT_TYPE).and_then(|value| charset(value.to_str().ok()?));
    match charset {
        Some(name) if !["utf-8", "utf8", "us-ascii"].contains(&&*name) => {
            Err(unsupported("Content-Type: the character set must be UTF-8"))
        }
        _ => Ok(()),
    }
}

/// The `charset` of a media type, in lower case and without quotes.
fn charset(media_type: &str) -> Option<String> {
    let mut parameters = media_type.split(';').skip(1).filter_map(|one| one.split_once('='));
    let (_, value) = parameters.find(|(name, _)| name.trim().eq_ignore_ascii_case("charset"))?;
    Some(value.trim().trim_matches('"').to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn status(version: Version, headers: &[(&str, &str)]) -> u16 {
        let mut request = Request::post("/").version(version).body(Body::from("{}")).expect("one");
        for (name, value) in headers {
            let name = header::HeaderName::from_bytes(name.as_bytes()).expect("a name");
            request.headers_mut().append(name, value.parse().expect("a value"));
        }
        check_rules(&request).map_or_else(|problem| problem.status().as_u16(), |()| 200)
    }

    #[test]
    fn a_request_names_its_host_once() {
        let one = |host| status(Version::HTTP_11, &[("host", host)]);
        for host in ["localhost", "localhost:8080", "[::1]:8080", "10.0.0.7", "a-b.example.org", ""]
        {
            assert_eq!(one(host), 200, "{host:?}");
        }
        for host in ["a b", "a:1:2", "user@localhost", "localhost:x", "http://localhost", "a/b"] {
            assert_eq!(one(host), 400, "{host:?}");
        }
        assert_eq!(status(Version::HTTP_11, &[]), 400);
        for version in [Version::HTTP_10, Version::HTTP_11, Version::HTTP_2] {
            assert_eq!(status(version, &[("host", "a"), ("host", "a")]), 400, "{version:?}");
        }
        assert_eq!(status(Version::HTTP_10, &[]), 200);
        assert_eq!(status(Version::HTTP_2, &[]), 200);
    }

    #[test]
    fn content_that_is_encoded_or_in_another_character_set_is_refused() {
        let with = |name, value| status(Version::HTTP_11, &[("host", "a"), (name, value)]);
        for fine in ["identity", "Identity", "", " , identity"] {
            assert_eq!(with("content-encoding", fine), 200, "{fine:?}");
        }
        for encoded in ["gzip", "GZIP", "identity, br", "x"] {
            assert_eq!(with("content-encoding", encoded), 415, "{encoded:?}");
        }
        for fine in [
            "application/json",
            "application/json; charset=utf-8",
            "application/json;Charset=\"UTF-8\"",
            "text/plain; format=flowed; charset=us-ascii",
        ] {
            assert_eq!(with("content-type", fine), 200, "{fine:?}");
        }
        for other in ["application/json; charset=utf-16", "text/plain;a=b;CHARSET=\"Latin1\""] {
            assert_eq!(with("content-type", other), 415, "{other:?}");
        }
    }

    #[test]
    fn a_request_without_content_may_say_anything_about_it() {
        let request = Request::get("/").header("host", "a").header("content-encoding", "gzip");
        let request = request.body(Body::empty()).expect("a request");
        assert!(check_rules(&request).is_ok());
    }
}
