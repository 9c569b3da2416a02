//! Queries and connection options for SQLite. One process owns the file.

use std::path::Path;

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::{
    error::{ANSWER_TIMEOUT, DirectoryOpenError},
    migrations::Migrations,
};

pub(super) const MIGRATIONS: Migrations =
    &[(1, "users", include_str!("../../../../migrations/sqlite/0001_users.sql"))];

pub(super) async fn open_pool(path: &Path) -> Result<SqlitePool, DirectoryOpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(ANSWER_TIMEOUT);
    SqlitePoolOptions::new()
        .max_connections(4)
        .acquire_timeout(ANSWER_TIMEOUT)
        .connect_with(options)
        .await
        .map_err(|error| DirectoryOpenError::File { path: path.display().to_string(), error })
}

pub(super) async fn select_users(
    pool: &SqlitePool,
    ids: &[i64],
) -> Result<Vec<(i64, String)>, sqlx::Error> {
    // SQLite has no arrays; a JSON list binds many values at once.
    let list = serde_json::to_string(ids).unwrap_or_default();
    sqlx::query_as("SELECT id, name FROM users WHERE id IN (SELECT value FROM json_each(?))")
        .bind(list)
        .fetch_all(pool)
        .await
}

pub(super) async fn select_page(
    pool: &SqlitePool,
    after: i64,
    limit: u32,
) -> Result<Vec<(i64, String)>, sqlx::Error> {
    sqlx::query_as("SELECT id, name FROM users WHERE id > ? ORDER BY id LIMIT ?")
        .bind(after)
        .bind(i64::from(limit))
        .fetch_all(pool)
        .await
}

/// Returns true if the row is new.
pub(super) async fn upsert_user(
    pool: &SqlitePool,
    id: i64,
    name: &str,
) -> Result<bool, sqlx::Error> {
    loop {
        let insert = "INSERT INTO users (id, name) VALUES (?, ?) ON CONFLICT (id) DO NOTHING";
        let update = "UPDATE users SET name = ?2 WHERE id = ?1";
        for (statement, created) in [(insert, true), (update, false)] {
            let done = sqlx::query(statement).bind(id).bind(name).execute(pool).await?;
            if done.rows_affected() > 0 {
                return Ok(created);
            }
        }
        // The row was deleted between the two statements: try again.
    }
}

pub(super) async fn delete_user(pool: &SqlitePool, id: i64) -> Result<bool, sqlx::Error> {
    let done = sqlx::query("DELETE FROM users WHERE id = ?").bind(id).execute(pool).await?;
    Ok(done.rows_affected() > 0)
}
