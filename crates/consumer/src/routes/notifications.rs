//! `GET /notifications/{id}`: one user's inbox.

use std::sync::Arc;

use axum::{
    extract::State,
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use model::Cursor;
use service::{
    extract::{Path, Query},
    openapi::{ProblemBody, Refused},
    problem::Problem,
};

use super::{
    App,
    problems::{not_live, user},
    query::QueryParams,
    schema,
};
use crate::view::Page;

/// An inbox, oldest first
#[utoipa::path(get, path = "/notifications/{id}", tag = "inbox",
    params(("id" = i64, Path, description = "The user", minimum = 1), QueryParams,
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before")),
    responses(
        (status = 200, description = "What there is", body = schema::Page,
         headers(("ETag" = Option<String>, description = "Changes when the inbox does"))),
        (status = 304, description = "Nothing has changed since that `ETag`"),
        (status = 421, description = "Between instances: not the owner", body = ProblemBody,
         content_type = "application/problem+json"),
        Refused))]
pub(super) async fn list(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(raw): Query<QueryParams>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let user = user(&id)?;
    let query = raw.parse(app.view.home(user))?;
    let page = app.view.read(user, &query, app.patience).await.map_err(|error| not_live(&error))?;
    // Kept by nobody but the one who asked, and never shown without asking again.
    let private = (CACHE_CONTROL, "private, no-cache");
    if raw.depends_on_time() || page.gap.is_some() {
        return Ok(([private, JSON], page.to_json()).into_response());
    }
    let tag = tag(&page);
    if matches(&headers, &tag) {
        return Ok((StatusCode::NOT_MODIFIED, [private], [(ETAG, tag)]).into_response());
    }
    Ok(([private, JSON], [(ETAG, tag)], page.to_json()).into_response())
}

const JSON: (axum::http::HeaderName, &str) = (CONTENT_TYPE, "application/json");

/// What the inbox shows. Weak (RFC 9110 §8.8.3): the page's own cursor moves on with other users'
/// notifications, and that is no reason to send everything again.
fn tag(page: &Page) -> String {
    let Cursor { partition, .. } = page.cursor;
    let (newest, evicted, receipt) = page.version;
    format!("W/\"{partition}.{newest}.{evicted}.{receipt}.{}\"", page.items.len())
}

fn matches(headers: &HeaderMap, tag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    known
        .flat_map(|value| value.split(','))
        .any(|known| opaque(known) == opaque(tag) || known.trim() == "*")
}

#[cfg(test)]
mod fuzz {
    use axum::http::HeaderValue;
    use inputs::{bytes, mutated};
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const TAG: &str = "W/\"3.7.-1.2.1\"";

    proptest! {
        #[test]
        fn only_a_header_that_names_the_tag_or_a_star_matches(
            values in vec(
                prop_oneof![
                    bytes(),
                    mutated("((W/)?\"[0-9.-]{0,9}\" ?, ?){0,3}(W/)?\"3.7.-1.2.1\"( ?, ?\\*)?".prop_map(String::into_bytes)),
                ],
                0..4,
            ),
        ) {
            let mut headers = HeaderMap::new();
            for value in values.iter().filter_map(|value| HeaderValue::from_bytes(value).ok()) {
                headers.append(IF_NONE_MATCH, value);
            }
            let texts = || headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
            let named = texts().any(|value| value.contains("\"3.7.-1.2.1\""));
            let star = texts().any(|value| value.contains('*'));
            prop_assert!(!matches(&headers, TAG) || named || star);
            // Whatever else a client names, what it names is found.
            headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"x\", W/\"3.7.-1.2.1\""));
            prop_assert!(matches(&headers, TAG));
        }
    }
}
