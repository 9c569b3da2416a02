//! `/users`: lists, reads and changes the user directory. Reads bypass the name cache.

use std::borrow::Cow;

use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode},
};
use model::{User, UserId, UserName};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use service::{
    auth::Caller,
    extract::{Body, Path, Query, media_type},
    openapi::{CommonProblems, CommonProblemsWithBody, ProblemBody},
    problem::Problem,
};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use crate::{
    access,
    directory::{Directory, DirectoryError, PutOutcome, UserLookup},
    problems::{
        directory_unavailable, not_a_json_object, parse_field, unsupported_media_type,
        user_not_found,
    },
    schema,
};

/// Users in a page.
const MAX_LIMIT: u32 = 1000;
const DEFAULT_LIMIT: u32 = 100;

pub(crate) fn users_routes(users: UserLookup) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_users))
        .routes(routes!(get_user, put_user, delete_user))
        .with_state(users)
}

/// The query's parameters. As texts, so that a problem can name the parameter.
#[derive(Debug, Default, Deserialize)]
struct UsersQuery {
    limit: Option<String>,
    after: Option<String>,
}

impl UsersQuery {
    fn parse(&self) -> Result<(i64, u32), Problem> {
        let after = self.after.as_deref().map(|text| parse_field("after", text)).transpose()?;
        let limit = self.limit.as_deref().map(|text| {
            let limit = text.parse().ok().filter(|limit| (1..=MAX_LIMIT).contains(limit));
            let why = format!("must be a whole number from 1 to {MAX_LIMIT}");
            limit.ok_or_else(|| Problem::bad_request("limit", why))
        });
        Ok((after.map_or(0, UserId::get), limit.transpose()?.unwrap_or(DEFAULT_LIMIT)))
    }
}

/// Some of the users, by id.
#[derive(Serialize, ToSchema)]
#[schema(as = Users)]
struct UsersPage {
    #[schema(value_type = Vec<schema::User>)]
    users: Vec<User<'static>>,
    /// To be given as `after` for the next page; missing on the last.
    #[schema(value_type = Option<i64>, required = false, nullable = false)]
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<UserId>,
}

/// List users by id, in pages
#[utoipa::path(get, path = "/users", tag = "users", operation_id = "users", params(
        ("limit" = Option<u32>, Query, description = "Maximum number of users, 1 to 1000; 100 by default", minimum = 1, maximum = 1000),
        ("after" = Option<i64>, Query, description = "Only users with greater ids: the `next` of the page before", minimum = 1)),
    responses((status = 200, description = "Some of the users, by id", body = UsersPage), CommonProblems))]
async fn list_users(
    State(users): State<UserLookup>,
    caller: Caller,
    Query(raw): Query<UsersQuery>,
) -> Result<Json<UsersPage>, Problem> {
    access::may_send(&caller)?;
    let (after, limit) = raw.parse()?;
    let most = usize::try_from(limit).unwrap_or(usize::MAX);
    // One more user shows that there is a next page.
    let mut found = users.directory().list_users(after, limit + 1).await?;
    let more = found.len() > most;
    found.truncate(most);
    let next = found.last().filter(|_| more).map(|user| user.id);
    Ok(Json(UsersPage { users: found, next }))
}

/// Get a user
#[utoipa::path(get, path = "/users/{id}", tag = "users", operation_id = "user",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    responses(
        (status = 200, description = "The user", body = schema::User),
        (status = 404, description = "There is no such user", body = ProblemBody,
         content_type = "application/problem+json"),
        CommonProblems))]
async fn get_user(
    State(users): State<UserLookup>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Json<User<'static>>, Problem> {
    let id = parse_field("id", &id)?;
    access::may_see(&caller, id)?;
    let mut found = users.directory().find_users(&[id]).await?;
    found.remove(&id).map(Json).ok_or_else(user_not_found)
}

/// Create or rename a user
#[utoipa::path(put, path = "/users/{id}", tag = "users", operation_id = "put_user",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body = schema::Name,
    responses(
        (status = 200, description = "Renamed", body = schema::User),
        (status = 201, description = "Created", body = schema::User),
        CommonProblemsWithBody,
        (status = 415, description = "Not JSON, encoded, or not in UTF-8", body = ProblemBody,
         content_type = "application/problem+json")))]
async fn put_user(
    State(users): State<UserLookup>,
    caller: Caller,
    Path(id): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<User<'static>>), Problem> {
    access::may_change(&caller)?;
    let id = parse_field("id", &id)?;
    let name = parse_name(media_type(&headers).as_deref(), &body)?;
    let user = User { id, name: Cow::Owned(name.as_str().to_owned()) };
    let put = async move |directory: Directory| directory.put_user(id, &name).await;
    let done = run_change(&users, id, put).await?;
    let status = match done {
        PutOutcome::Created => StatusCode::CREATED,
        PutOutcome::Changed => StatusCode::OK,
    };
    Ok((status, Json(user)))
}

/// Delete a user
///
/// Their notifications stay; sends to or from them are refused.
#[utoipa::path(delete, path = "/users/{id}", tag = "users", operation_id = "delete_user",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    responses(
        (status = 204, description = "Deleted"),
        (status = 404, description = "There is no such user", body = ProblemBody,
         content_type = "application/problem+json"),
        CommonProblems))]
async fn delete_user(
    State(users): State<UserLookup>,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<StatusCode, Problem> {
    access::may_change(&caller)?;
    let id = parse_field("id", &id)?;
    let delete = async move |directory: Directory| directory.delete_user(id).await;
    if run_change(&users, id, delete).await? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(user_not_found())
    }
}

/// Changes a user and then invalidates the cached name in any case: even if the outcome is unknown
/// or the client disconnects. Does not wait for PostgreSQL's notification.
async fn run_change<T: Send + 'static, F>(
    users: &UserLookup,
    id: UserId,
    change: impl FnOnce(Directory) -> F,
) -> Result<T, Problem>
where
    F: Future<Output = Result<T, DirectoryError>> + Send + 'static,
{
    let (change, users) = (change(users.directory().clone()), users.clone());
    let task = tokio::spawn(async move {
        let done = change.await;
        users.invalidate_user(id);
        done
    });
    Ok(task.await.map_err(|_| Problem::internal())??)
}

fn parse_name(media_type: Option<&str>, body: &[u8]) -> Result<UserName, Problem> {
    if media_type != Some("application/json") {
        return Err(unsupported_media_type("application/json", media_type));
    }
    let body: Value =
        serde_json::from_slice(body).map_err(|error| not_a_json_object("body", error))?;
    match &body["name"] {
        Value::String(name) => UserName::new(name).map_err(|why| Problem::bad_request("name", why)),
        Value::Null => Err(Problem::bad_request("name", "is missing")),
        _ => Err(Problem::bad_request("name", "must be a string")),
    }
}

impl From<DirectoryError> for Problem {
    fn from(error: DirectoryError) -> Self {
        tracing::warn!(%error, "rejecting a request to /users");
        directory_unavailable()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_has_100_users_and_at_most_1000() {
        let parse = |limit: Option<&str>, after: Option<&str>| {
            let raw =
                UsersQuery { limit: limit.map(str::to_owned), after: after.map(str::to_owned) };
            raw.parse().map_err(|problem| problem.message().to_owned())
        };
        assert_eq!(parse(None, None), Ok((0, 100)));
        assert_eq!(parse(Some("1000"), Some("7")), Ok((7, 1000)));
        for limit in ["0", "1001", "-1", "x", "", "99999999999"] {
            let why = "limit: must be a whole number from 1 to 1000";
            assert_eq!(parse(Some(limit), None), Err(why.into()), "{limit:?}");
        }
        for after in ["0", "-1", "x", ""] {
            let why = "after: must be a positive whole number";
            assert_eq!(parse(None, Some(after)), Err(why.into()), "{after:?}");
        }
    }

    #[test]
    fn a_body_without_a_usable_name_is_told_why() {
        let why = |body: &str| {
            let name = parse_name(Some("application/json"), body.as_bytes());
            name.map_or_else(
                |problem| problem.message().to_owned(),
                |name| name.as_str().to_owned(),
            )
        };
        assert_eq!(why(r#"{"name":" Emma "}"#), "Emma");
        assert_eq!(why("{}"), "name: is missing");
        assert_eq!(why("[]"), "name: is missing");
        assert_eq!(why(r#"{"name":7}"#), "name: must be a string");
        assert_eq!(why(r#"{"name":" "}"#), "name: must not be empty");
        assert!(why("{").starts_with("the body is not a JSON object"));
        assert!(parse_name(None, b"{}").is_err_and(|problem| problem.status() == 415));
    }
}
