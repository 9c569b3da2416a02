//! The extractors of path and query parameters.

use std::error::Error as _;

use axum::{
    extract::{
        self, FromRequestParts, RawPathParams,
        path::ErrorKind,
        rejection::{PathRejection, QueryRejection},
    },
    http::request::Parts,
};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// Like axum's `Path`. Rejection: 400, which names the parameter and the reason.
#[derive(Debug, Clone, Copy)]
pub struct Path<T>(pub T);

impl<T, S> FromRequestParts<S> for Path<T>
where
    T: DeserializeOwned + Send,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let error = match extract::Path::from_request_parts(parts, state).await {
            Ok(extract::Path(value)) => return Ok(Self(value)),
            Err(PathRejection::FailedToDeserializePathParams(error))
                if error.status().is_client_error() =>
            {
                error
            }
            Err(error) => {
                tracing::error!(%error, "a route lacks the path parameters of its handler");
                return Err(Problem::internal());
            }
        };
        let names = RawPathParams::from_request_parts(parts, state).await;
        let names: Vec<&str> = names.iter().flatten().map(|(name, _)| name).collect();
        let only = if let [name] = names[..] { name } else { "path" };
        Err(match error.into_kind() {
            ErrorKind::ParseErrorAtKey { key, expected_type, .. } => {
                Problem::bad_request(&key, describe_type(expected_type))
            }
            ErrorKind::ParseErrorAtIndex { index, expected_type, .. } => Problem::bad_request(
                names.get(index).copied().unwrap_or(only),
                describe_type(expected_type),
            ),
            ErrorKind::ParseError { expected_type, .. } => {
                Problem::bad_request(only, describe_type(expected_type))
            }
            ErrorKind::DeserializeError { key, message, .. } => Problem::bad_request(&key, message),
            ErrorKind::InvalidUtf8InPathParam { key } => {
                Problem::bad_request(&key, "must be UTF-8")
            }
            other => Problem::bad_request(only, other),
        })
    }
}

/// The expected value in the client's words.
fn describe_type(expected: &str) -> &'static str {
    match expected {
        "u8" | "u16" | "u32" | "u64" | "u128" => "must be a whole number from 0",
        "i8" | "i16" | "i32" | "i64" | "i128" => "must be a whole number",
        "f32" | "f64" => "must be a number",
        "bool" => "must be true or false",
        _ => "cannot be used",
    }
}

/// Like axum's `Query`. Rejection: 400, which names the parameter and the reason.
#[derive(Debug, Clone, Copy)]
pub struct Query<T>(pub T);

impl<T, S> FromRequestParts<S> for Query<T>
where
    T: DeserializeOwned,
    S: Send + Sync,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        match extract::Query::from_request_parts(parts, state).await {
            Ok(extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(query_problem(&error)),
        }
    }
}

fn query_problem(error: &QueryRejection) -> Problem {
    // The innermost error is `field: reason`, or only a reason.
    let text = error.source().map_or_else(|| error.body_text(), ToString::to_string);
    match text.split_once(": ") {
        Some((field, why)) if !field.contains(char::is_whitespace) => {
            Problem::bad_request(field, why)
        }
        _ => Problem::bad_request("query", text),
    }
}
