//! Queries and connection options for SQLite. One process owns the file.

use std::path::Path;

use sqlx::{
    SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::error::{ANSWER_TIMEOUT, DirectoryOpenError};

pub(super) const MIGRATIONS: &[(i64, &str, &str)] =
    &[(1, "users", include_str!("../../../../migrations/sqlite/0001_users.sql"))];
/// Takes the ids as a JSON list, because SQLite has no arrays.
pub(super) const SELECT_USERS: &str =
    "SELECT id, name FROM users WHERE id IN (SELECT value FROM json_each($1))";

pub(super) async fn open_pool(path: &Path) -> Result<SqlitePool, DirectoryOpenError> {
    let options = SqliteConnectOptions::new()
        .filename(path)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .busy_timeout(ANSWER_TIMEOUT);
    let pool = SqlitePoolOptions::new().max_connections(4).acquire_timeout(ANSWER_TIMEOUT);
    pool.connect_with(options).await.map_err(|error| {
        let path = path.display();
        DirectoryOpenError(format!("cannot open the user directory {path}: {error}"))
    })
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
