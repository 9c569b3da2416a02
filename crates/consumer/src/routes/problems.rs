//! The consumer's errors as problem bodies (RFC 9457).

use std::time::Duration;

use axum::http::StatusCode;
use event_log::AppendError;
use model::UserId;
use service::{problem::Problem, server::rate::RateExceeded};

use crate::{receipts::ReceiptError, view::NotLive};

/// For `Retry-After`, if the time that an error will last is not known.
const RETRY_DELAY: Duration = Duration::from_secs(1);

pub(super) fn parse_user(id: &str) -> Result<UserId, Problem> {
    id.parse().map_err(|error| Problem::bad_request("id", error))
}

/// 503 for a partition that cannot answer now; such an inbox is never shown as empty.
pub(super) fn not_live(error: &NotLive) -> Problem {
    match error {
        NotLive::Unowned(partition) => Problem::unavailable(
            format!("{error}, and its owner is not known yet; try again shortly"),
            RETRY_DELAY,
        )
        .with("partition", partition)
        .with("state", "unowned"),
        NotLive::Rebuilding(partition, progress) => {
            let wait = progress.seconds_left.unwrap_or(1.0).clamp(1.0, 30.0);
            let delay = Duration::from_secs_f64(wait);
            Problem::unavailable(format!("{error}; try again shortly"), delay)
                .with("partition", partition)
                .with("state", "rebuilding")
                .with("progress", progress)
        }
        NotLive::Behind(partition, position) => {
            Problem::unavailable(format!("{error}; try again shortly"), RETRY_DELAY)
                .with("partition", partition)
                .with("state", "behind")
                .with("position", position)
        }
    }
}

/// 504 if a receipt may have been written, 503 or 429 if it was not.
pub(super) fn receipt_problem(error: &ReceiptError) -> Problem {
    match error {
        ReceiptError::NotLive(error) => return not_live(error),
        ReceiptError::RateExceeded(RateExceeded { retry_after, rate, burst }) => {
            let message = format!(
                "Rate limit exceeded: a user may change {rate} times per second what is read or \
                 dismissed, {burst} times at once; several notifications in one request count once"
            );
            let problem = Problem::new(StatusCode::TOO_MANY_REQUESTS, message);
            return problem.retry_after(retry_after.unwrap_or(RETRY_DELAY));
        }
        ReceiptError::Append(AppendError::TimedOut(_)) => {
            tracing::warn!(%error, "a receipt was not acknowledged");
            return Problem::new(
                StatusCode::GATEWAY_TIMEOUT,
                "The outcome is unknown: the log did not acknowledge in time. It is safe to retry",
            );
        }
        ReceiptError::Append(_) | ReceiptError::Encode(_) => {}
    }
    tracing::warn!(%error, "a receipt was not written");
    Problem::unavailable("Receipts cannot be written now; try again shortly", RETRY_DELAY)
}
