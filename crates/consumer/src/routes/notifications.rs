//! `GET /notifications/{id}`: one user's inbox.

use std::sync::Arc;

use axum::{
    extract::{Request, State},
    http::{
        HeaderMap, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE, ETAG, IF_NONE_MATCH},
    },
    response::{IntoResponse, Response},
};
use model::Cursor;
use service::{
    auth::{Caller, TokenRefusal},
    extract::{Path, Query},
    openapi::{CommonProblems, ProblemBody},
    problem::Problem,
};

use super::{
    app::App,
    problems::{InboxUnavailable, not_live, parse_user},
    query::QueryParams,
};
use crate::view::{Page, page::PageBody};

/// List an inbox, oldest first
#[utoipa::path(get, path = "/notifications/{id}", tag = "inbox", operation_id = "list",
    params(("id" = i64, Path, description = "The user", minimum = 1), QueryParams,
        ("If-None-Match" = Option<String>, Header, description = "The `ETag` of an earlier response")),
    responses(
        CommonProblems, InboxUnavailable,
        (status = 200, description = "The inbox, or the part that the query selects", body = PageBody,
         headers(("ETag" = Option<String>, description = "Changes whenever the inbox changes"))),
        (status = 304, description = "The inbox has not changed since that `ETag`"),
        (status = 409, description = "`at_least` is a cursor of another log, or has no epoch", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 421, description = "Between instances only: this one does not own the partition", body = ProblemBody,
         content_type = "application/problem+json")))]
pub(super) async fn list_notifications(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
    Query(raw): Query<QueryParams>,
    caller: Caller,
    // Whole, because the extractor of headers clones them.
    request: Request,
) -> Result<Response, Problem> {
    let user = parse_user(&id)?;
    let query = raw.parse_query(app.view.home_partition(user))?;
    let token = caller.validity();
    let page = tokio::select! {
        page = app.view.read_page(user, &query, app.read_timeout) => page,
        () = token.until_withdrawn(), if !query.wait.is_zero() => return Err(TokenRefusal::Invalid.into()),
    };
    token.check()?;
    let page = page.map_err(|error| not_live(&error))?;
    // RFC 9111 §5.2.2: only the client's own cache may store it, and must revalidate it.
    let private = (CACHE_CONTROL, "private, no-cache");
    if raw.depends_on_time() || page.gap.is_some() {
        return Ok(([private, JSON], page.to_json()).into_response());
    }
    let etag = page_etag(&page);
    if matches_etag(request.headers(), &etag) {
        return Ok((StatusCode::NOT_MODIFIED, [private], [(ETAG, etag)]).into_response());
    }
    Ok(([private, JSON], [(ETAG, etag)], page.to_json()).into_response())
}

const JSON: (axum::http::HeaderName, &str) = (CONTENT_TYPE, "application/json");

/// The entity tag of a page. Weak (RFC 9110 §8.8.3): the page's cursor advances with other users'
/// notifications, and an inbox that did not change otherwise need not be sent again.
fn page_etag(page: &Page) -> String {
    let Cursor { partition, .. } = page.cursor;
    let (newest, evicted, receipt) = page.version;
    // Another log may have other notifications at the same offsets.
    let [log, receipts] = page.topic_epochs.map(Option::unwrap_or_default);
    let count = page.items.len();
    format!("W/\"{partition}.{newest}.{evicted}.{receipt}.{count}.{log:x}.{receipts:x}\"")
}

/// Returns true if `If-None-Match` has this entity tag, by weak comparison, or `*`.
fn matches_etag(headers: &HeaderMap, etag: &str) -> bool {
    let opaque = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
    let values = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut known = values.flat_map(|value| value.split(','));
    known.any(|known| opaque(known) == opaque(etag) || known.trim() == "*")
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
            prop_assert!(!matches_etag(&headers, TAG) || named || star);
            // A tag is found after any other values.
            headers.append(IF_NONE_MATCH, HeaderValue::from_static("\"x\", W/\"3.7.-1.2.1\""));
            prop_assert!(matches_etag(&headers, TAG));
        }
    }
}
