//! `GET /notifications/{id}`: one user's inbox.

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
    query::Raw,
    schema,
};
use crate::view::Page;

/// An inbox, oldest first
#[utoipa::path(get, path = "/notifications/{id}", tag = "inbox",
    params(("id" = i64, Path, description = "The user", minimum = 1), Raw,
        ("If-None-Match" = Option<String>, Header, description = "An `ETag` of before")),
    responses(
        (status = 200, description = "What there is", body = schema::Page,
         headers(("ETag" = Option<String>, description = "Changes when the inbox does"))),
        (status = 304, description = "Nothing has changed since that `ETag`"),
        (status = 421, description = "Between instances: not the owner", body = ProblemBody,
         content_type = "application/problem+json"),
        Refused))]
pub(super) async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
    Query(raw): Query<Raw>,
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
