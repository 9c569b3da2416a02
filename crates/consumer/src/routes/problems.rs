//! The consumer's errors as problem bodies (RFC 9457).

use std::time::Duration;

use axum::http::StatusCode;
use event_log::AppendError;
use model::UserId;
use service::{openapi::ProblemBody, problem::Problem, server::rate::RateExceeded};
use utoipa::IntoResponses;

use crate::{receipts::ReceiptError, view::NotLive};

/// For `Retry-After`, if the time that an error will last is not known.
const RETRY_DELAY: Duration = Duration::from_secs(1);

/// The inbox cannot be read now: `partition` and `state` say why. Or a limit of the service is
/// reached, `--max-streams` for a live stream or a long poll
#[derive(IntoResponses)]
#[response(status = 503, content_type = "application/problem+json")]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) struct InboxUnavailable(ProblemBody);

/// The inbox cannot be read now: `partition` and `state` say why. Or Kafka is not available. The
/// receipt may have been written; it is safe to retry
#[derive(IntoResponses)]
#[response(status = 503, content_type = "application/problem+json")]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) struct ReceiptUnavailable(ProblemBody);

/// `through` is a cursor of another log, or has no epoch. Nothing was marked
#[derive(IntoResponses)]
#[response(status = 409, content_type = "application/problem+json")]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) struct OtherLog(ProblemBody);

/// Not acknowledged in time: the receipt may have been written. It is safe to retry
#[derive(IntoResponses)]
#[response(status = 504, content_type = "application/problem+json")]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) struct ReceiptOutcomeUnknown(ProblemBody);

/// The user has changed more often than `--receipt-rate` allows what is read or dismissed; or the
/// caller has a quarter of all requests, bodies or unread responses that are allowed
#[derive(IntoResponses)]
#[response(status = 429, content_type = "application/problem+json")]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) struct ReceiptRefused(ProblemBody);

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
        NotLive::Unconfirmed(partition) => {
            Problem::unavailable(format!("{error}; try again shortly"), RETRY_DELAY)
                .with("partition", partition)
                .with("state", "behind")
        }
        NotLive::Rebuilding(partition, progress) => {
            let wait = progress.seconds_left.unwrap_or(1.0).clamp(1.0, 30.0);
            let delay = Duration::from_secs_f64(wait);
            Problem::unavailable(format!("{error}; try again shortly"), delay)
                .with("partition", partition)
                .with("state", "rebuilding")
                .with("progress", progress)
        }
        NotLive::Behind(partition, behind) => {
            Problem::unavailable(format!("{error}; try again shortly"), RETRY_DELAY)
                .with("partition", partition)
                .with("state", "behind")
                .with("since", behind.since.to_string())
                .with("cause", &*behind.cause)
        }
        NotLive::NotCaughtUp(partition, position) => {
            Problem::unavailable(format!("{error}; try again shortly"), RETRY_DELAY)
                .with("partition", partition)
                .with("state", "live")
                .with("position", position)
        }
        // No retry helps: the log will never hold that record.
        NotLive::OtherLog(_) => Problem::new(StatusCode::CONFLICT, format!("{error}")),
    }
}

/// 503 for a partition whose owner, at this URL, does not answer.
pub(super) fn owner_unreachable(partition: i32, url: &str) -> Problem {
    let message = format!(
        "partition {partition}, where this inbox lives, is owned by the instance at {url}, which \
         does not answer; try again shortly"
    );
    Problem::unavailable(message, RETRY_DELAY)
        .with("partition", partition)
        .with("state", "unreachable")
        .with("owner", url)
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
        ReceiptError::Append(_) | ReceiptError::Unreachable(_) | ReceiptError::Encode(_) => {}
    }
    tracing::warn!(%error, "a receipt was not written");
    Problem::unavailable("Receipts cannot be written now; try again shortly", RETRY_DELAY)
}
