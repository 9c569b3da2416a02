//! What a recipient does with notifications: `POST …/read`, `POST …/unread`, `DELETE …`.

use axum::{
    extract::State,
    http::header::CONTENT_TYPE,
    response::{IntoResponse, Response},
};
use model::{Action, Cursor, NotificationId, UserId};
use serde::Deserialize;
use service::{
    extract::{Body, Path},
    openapi::{ProblemBody, Refused, RefusedWithBody},
    problem::Problem,
};

use super::{
    App,
    problems::{not_live, not_recorded, user},
    schema,
};
use crate::view::{Query, Which};

/// The most ids that one request may name: as many as a full inbox holds.
const MAX_IDS: usize = 1000;

/// `{"ids":["…"]}`, `{"through":"3-1042"}`, or nothing.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Chosen {
    ids: Option<Vec<NotificationId>>,
    through: Option<Cursor>,
}

/// Mark as read
#[utoipa::path(post, path = "/notifications/{id}/read", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body(content = Option<schema::Chosen>, description = "Nothing means all"),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        RefusedWithBody))]
pub(super) async fn read(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Response, Problem> {
    mark(&app, &id, Action::Read, &body).await
}

/// Mark as not read
#[utoipa::path(post, path = "/notifications/{id}/unread", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    request_body(content = Option<schema::Chosen>, description = "Nothing means all"),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        RefusedWithBody))]
pub(super) async fn unread(
    State(app): State<App>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Response, Problem> {
    mark(&app, &id, Action::Unread, &body).await
}

/// Dismiss everything that is there
#[utoipa::path(delete, path = "/notifications/{id}", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1)),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        Refused))]
pub(super) async fn dismiss_all(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    act(&app, user(&id)?, Action::Dismissed, &Which::All).await
}

/// Dismiss one
#[utoipa::path(delete, path = "/notifications/{id}/{notification}", tag = "receipts",
    params(("id" = i64, Path, description = "The user", minimum = 1),
        ("notification" = String, Path, description = "Its id")),
    responses(
        (status = 200, description = "Done, and shown", body = schema::Done),
        (status = 404, description = "Not in the inbox", body = ProblemBody,
         content_type = "application/problem+json"),
        (status = 504, description = "Not acknowledged in time; doing it again is safe",
         body = ProblemBody, content_type = "application/problem+json"),
        Refused))]
pub(super) async fn dismiss(
    State(app): State<App>,
    Path((id, notification)): Path<(String, String)>,
) -> Result<Response, Problem> {
    let user = user(&id)?;
    let missing = || Problem::not_found("Notification not found");
    let notification = NotificationId::from_text(&notification).ok_or_else(missing)?;
    let which = Which::Ids([notification].into());
    let done = record(&app, user, Action::Dismissed, &which).await?;
    if done.changed == 0 { Err(missing()) } else { Ok(done.into_response()) }
}

/// Does this with what the body chooses.
async fn mark(app: &App, id: &str, action: Action, body: &[u8]) -> Result<Response, Problem> {
    let user = user(id)?;
    let which = Chosen::parse(body)?.which(app.view.home(user))?;
    act(app, user, action, &which).await
}

async fn act(app: &App, user: UserId, action: Action, which: &Which) -> Result<Response, Problem> {
    record(app, user, action, which).await.map(IntoResponse::into_response)
}

/// What came of it.
pub(super) struct Done {
    /// How many entries changed.
    changed: usize,
    /// How many are unread now.
    unread: usize,
    /// What the view contains.
    at: Cursor,
}

/// Records it, and waits until the view shows it.
pub(super) async fn record(
    app: &App,
    user: UserId,
    action: Action,
    which: &Which,
) -> Result<Done, Problem> {
    let changed =
        app.recorder.record(user, action, which).await.map_err(|error| not_recorded(&error))?;
    let query = Query { limit: Some(0), ..Query::default() };
    let page = app.view.read(user, &query, app.patience).await.map_err(|error| not_live(&error))?;
    Ok(Done { changed, unread: page.unread, at: page.cursor })
}

impl Done {
    pub(super) fn to_json(&self) -> String {
        let Self { changed, unread, at } = self;
        format!("{{\"changed\":{changed},\"unread\":{unread},\"cursor\":\"{at}\"}}")
    }
}

impl IntoResponse for Done {
    fn into_response(self) -> Response {
        ([(CONTENT_TYPE, "application/json")], self.to_json()).into_response()
    }
}

impl Chosen {
    /// What a body says; nothing chooses all.
    fn parse(body: &[u8]) -> Result<Self, Problem> {
        if body.trim_ascii().is_empty() {
            return Ok(Self::default());
        }
        serde_json::from_slice(body).map_err(|error| {
            let expected = r#"{"ids":["…"]}, {"through":"3-1042"} or nothing"#;
            Problem::bad_request("body", format!("must be {expected}: {error}"))
        })
    }

    /// Which entries of an inbox in partition `home` are meant.
    pub(super) fn which(self, home: i32) -> Result<Which, Problem> {
        match self {
            Self { ids: Some(_), through: Some(_) } => {
                Err(Problem::bad_request("through", "cannot stand beside ids"))
            }
            Self { ids: Some(ids), .. } if ids.len() > MAX_IDS => {
                Err(Problem::bad_request("ids", format!("must be at most {MAX_IDS}")))
            }
            Self { ids: Some(ids), .. } => Ok(Which::Ids(ids.into_iter().collect())),
            Self { through: Some(through), .. } if through.partition != home => {
                let why = format!(
                    "is of partition {}, but this inbox lives in {home}",
                    through.partition
                );
                Err(Problem::bad_request("through", why))
            }
            Self { through: Some(through), .. } => Ok(Which::Through(through.offset)),
            Self { ids: None, through: None } => Ok(Which::All),
        }
    }
}
