//! What the consumer's errors look like from outside.

use std::time::Duration;

use axum::http::StatusCode;
use event_log::AppendError;
use model::UserId;
use service::problem::Problem;

use crate::{receipts::RecordError, view::NotLive};

const SOON: Duration = Duration::from_secs(1);

/// The user that a path speaks of.
pub(super) fn user(id: &str) -> Result<UserId, Problem> {
    id.parse().map_err(|error| Problem::bad_request("id", error))
}

/// An inbox that cannot be shown now is never shown as empty.
pub(super) fn not_live(error: &NotLive) -> Problem {
    match error {
        NotLive::Unowned { partition } => Problem::unavailable(
            format!("{error}, and its owner is not known yet; try again shortly"),
            SOON,
        )
        .with("partition", partition)
        .with("state", "unowned"),
        NotLive::Rebuilding { partition, progress } => {
            let wait = progress.seconds_left.unwrap_or(1.0).clamp(1.0, 30.0);
            Problem::unavailable(
                format!("{error}; try again shortly"),
                Duration::from_secs_f64(wait),
            )
            .with("partition", partition)
            .with("state", "rebuilding")
            .with("progress", progress)
        }
        NotLive::Behind { partition, position } => {
            Problem::unavailable(format!("{error}; try again shortly"), SOON)
                .with("partition", partition)
                .with("state", "behind")
                .with("position", position)
        }
    }
}

pub(super) fn not_recorded(error: &RecordError) -> Problem {
    match error {
        RecordError::NotLive(error) => return not_live(error),
        RecordError::Append(AppendError::TimedOut(_)) => {
            tracing::warn!(%error, "a receipt was not acknowledged");
            return Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "The outcome is unknown: it was not acknowledged in time. Doing it again is safe",
            );
        }
        RecordError::Append(_) | RecordError::Encode(_) => {}
    }
    tracing::warn!(%error, "a receipt was refused");
    Problem::unavailable("This cannot be recorded now; try again shortly", SOON)
}
