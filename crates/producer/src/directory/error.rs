//! The directory's errors and its timeout.

use std::time::Duration;

/// Timeout of a connection attempt and of a query.
pub(super) const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The directory did not answer. The text holds the driver's error: log it, but do not send it.
#[derive(Debug, thiserror::Error)]
#[error("the user directory does not answer: {0}")]
pub struct DirectoryError(#[from] pub(super) sqlx::Error);

/// The directory cannot be opened with these settings.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct DirectoryOpenError(pub(super) String);

/// The migrations of the users table failed.
#[derive(Debug, thiserror::Error)]
#[error(
    "cannot create or migrate the users table: {0}. Does the database exist, and may this user create tables?"
)]
pub struct MigrateError(#[from] sqlx::migrate::MigrateError);

pub(super) async fn with_timeout<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
