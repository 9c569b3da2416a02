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
pub enum DirectoryOpenError {
    /// The URL is not one of PostgreSQL.
    #[error(
        "--database-url (DATABASE_URL) is not a PostgreSQL URL such as postgres://user:password@host:5432/database?sslmode=verify-full; sslmode is disable, prefer, require, verify-ca or verify-full"
    )]
    Url,
    /// The URL requires TLS, and this build has no TLS.
    #[error(
        "the database URL requires TLS (sslmode={0}), which this build does not support: build with --features tls"
    )]
    NoTls(&'static str),
    /// A certificate or key in the URL cannot be read, or its counterpart is missing.
    #[error("the database URL, {parameter}: {reason}")]
    Certificate {
        /// The URL's parameter.
        parameter: String,
        /// The reason.
        reason: String,
    },
    /// The SQLite file cannot be opened.
    #[error("cannot open the user directory {path}: {error}")]
    File {
        /// The file.
        path: String,
        /// The driver's error.
        error: sqlx::Error,
    },
}

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
