//! `GET /notifications/{id}`: one user's inbox.

use std::time::Duration;

use axum::{
    extract::State,
    http::header::{CACHE_CONTROL, CONTENT_TYPE},
    response::{IntoResponse, Response},
};
use model::UserId;
use service::{extract::Path, problem::Problem};

use super::App;
use crate::view::NotLive;

pub(super) async fn list(
    State(app): State<App>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let user: UserId = id.parse().map_err(|error| Problem::bad_request("id", error))?;
    let page = app.view.inbox(user, app.patience).await.map_err(|error| not_live(&error))?;
    let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
    Ok((headers, page.to_json()).into_response())
}

/// An inbox that cannot be shown now is never shown as empty.
fn not_live(error: &NotLive) -> Problem {
    match error {
        NotLive::Unowned { partition } => {
            Problem::unavailable(format!("{error}; try another instance"), Duration::from_secs(1))
                .with("partition", partition)
                .with("state", "unowned")
        }
        NotLive::Rebuilding { partition, progress } => {
            let wait = progress.seconds_left.unwrap_or(1.0).clamp(1.0, 30.0);
            Problem::unavailable(format!("{error}; try again shortly"), Duration::from_secs_f64(wait))
                .with("partition", partition)
                .with("state", "rebuilding")
                .with("progress", progress)
        }
    }
}
