//! Problems that more than one route answers with.

use std::{fmt::Display, str::FromStr, time::Duration};

use axum::http::StatusCode;
use service::problem::Problem;

/// `Retry-After` of a problem that is likely to be over soon.
pub(crate) const RETRY_SOON: Duration = Duration::from_secs(1);

pub(crate) fn user_not_found() -> Problem {
    Problem::not_found("User not found")
}

pub(crate) fn directory_unavailable() -> Problem {
    Problem::unavailable("The user directory is not available; try again shortly", RETRY_SOON)
}

/// `expected` lists the media types that the route accepts.
pub(crate) fn unsupported_media_type(expected: &str, found: Option<&str>) -> Problem {
    let found = found.unwrap_or("without a Content-Type");
    let message = format!("the body must be {expected}, not {found}");
    Problem::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, message)
}

/// `part` is `body` or `line`.
pub(crate) fn not_a_json_object(part: &str, reason: impl Display) -> Problem {
    let message = format!("the {part} is not a JSON object: {reason}");
    Problem::new(StatusCode::BAD_REQUEST, message)
}

/// The problem of an invalid value names the field.
pub(crate) fn parse_field<T: FromStr<Err: Display>>(field: &str, text: &str) -> Result<T, Problem> {
    text.parse().map_err(|why| Problem::bad_request(field, why))
}
