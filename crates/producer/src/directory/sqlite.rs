//! The directory in an SQLite file, for the process that owns it.

use std::path::Path;

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{DEADLINE, MigrateError, OpenError};

pub(super) async fn open(path: &Path) -> Result<SqlitePool, OpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(DEADLINE);
    SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(DEADLINE)
        .connect_with(options)
        .await
        .map_err(|error| OpenError::File { path: path.display().to_string(), error })
}

pub(super) async fn migrate(pool: &SqlitePool) -> Result<(), MigrateError> {
    sqlx::migrate!("../../migrations/sqlite").run(pool).await?;
    Ok(())
}

pub(super) async fn users(
    pool: &SqlitePool,
    ids: &[i64],
) -> Result<Vec<(i64, String)>, sqlx::Error> {
    // SQLite has no arrays; a JSON list is its way to bind many values at once.
    let list = serde_json::to_string(ids).unwrap_or_default();
    sqlx::query_as("SELECT id, name FROM users WHERE id IN (SELECT value FROM json_each(?))")
        .bind(list)
        .fetch_all(pool)
        .await
}
