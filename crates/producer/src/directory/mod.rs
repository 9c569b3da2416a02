//! The directory: who the users are. PostgreSQL in production, SQLite embedded; the same questions
//! to both. [`Names`] is how sends ask: through a cache that is never trusted without a reason.

mod postgres;
mod sqlite;
mod lookup;
mod cache;
mod listener;

use std::{collections::HashMap, path::Path, time::Duration};

use model::{User, UserId, UserName};
use serde_json::Value;

pub use lookup::{LookupFailed, UserLookup, UserNames};

/// How long a connection or an answer may take before the directory counts as away.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(3);

/// The users' table. A cheap handle, to be cloned.
#[derive(Clone, Debug)]
pub enum Directory {
    /// In PostgreSQL.
    Postgres(sqlx::PgPool),
    /// In an SQLite file.
    Sqlite(sqlx::SqlitePool),
}

/// The directory cannot answer now. The driver's own words are for our log, not for clients.
#[derive(Debug, thiserror::Error)]
#[error("the user directory does not answer: {0}")]
pub struct DirectoryError(#[from] sqlx::Error);

/// The directory cannot be reached with these settings.
#[derive(Debug, thiserror::Error)]
pub enum DirectoryOpenError {
    /// Not a URL of PostgreSQL.
    #[error(
        "--database-url (DATABASE_URL) is not a PostgreSQL URL such as postgres://user:password@host:5432/database?sslmode=verify-full; sslmode is disable, prefer, require, verify-ca or verify-full"
    )]
    Url,
    /// It asks for TLS, which this build has not.
    #[error(
        "the database's URL asks for TLS (sslmode={0}), which this build cannot do: build with --features tls"
    )]
    NoTls(&'static str),
    /// A certificate of it cannot be read, or is not enough.
    #[error("the database's URL, {parameter}: {reason}")]
    Certificate {
        /// The parameter's name.
        parameter: String,
        /// What is wrong.
        reason: String,
    },
    /// The file cannot be opened.
    #[error("the user directory {path} cannot be opened: {error}")]
    File {
        /// Where it is.
        path: String,
        /// Why.
        error: sqlx::Error,
    },
}

/// The table cannot be brought up to date.
#[derive(Debug, thiserror::Error)]
#[error(
    "the users' table cannot be made or brought up to date: {0}. Is the database there, and may this user create tables?"
)]
pub struct MigrateError(#[from] sqlx::migrate::MigrateError);

/// What writing a user did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// There was none with this id.
    Created,
    /// There was one, who has this name now.
    Changed,
}

impl Directory {
    /// The directory in PostgreSQL, at most `connections` at a time. Does not connect yet:
    /// PostgreSQL may come later than we do.
    ///
    /// # Errors
    /// [`OpenError`], when the URL cannot be used, or not by this build.
    pub fn open_postgres(url: &str, connections: u32) -> Result<Self, DirectoryOpenError> {
        postgres::open_pool(url, connections).map(Self::Postgres)
    }

    /// The directory in this file, made if it is missing.
    ///
    /// # Errors
    /// [`OpenError::File`].
    pub async fn open_sqlite(path: &Path) -> Result<Self, DirectoryOpenError> {
        sqlite::open_pool(path).await.map(Self::Sqlite)
    }

    /// Makes the users' table with its first four users, or brings it up to date. Doing so twice
    /// changes nothing.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            Self::Postgres(pool) => postgres::migrate(pool).await,
            Self::Sqlite(pool) => sqlite::migrate(pool).await,
        }
    }

    /// Those of these users that exist, by one query.
    ///
    /// # Errors
    /// [`DirectoryError`], when it does not answer in time.
    pub async fn find_users(
        &self,
        ids: &[UserId],
    ) -> Result<HashMap<UserId, User<'static>>, DirectoryError> {
        let numbers: Vec<i64> = ids.iter().map(|id| id.get()).collect();
        let rows = with_timeout(async {
            match self {
                Self::Postgres(pool) => postgres::select_users(pool, &numbers).await,
                Self::Sqlite(pool) => sqlite::select_users(pool, &numbers).await,
            }
        });
        Ok(rows.await?.into_iter().filter_map(parse_row).map(|user| (user.id, user)).collect())
    }

    /// At most `limit` users, by their ids, after the one with the id `after` (0: from the first).
    ///
    /// # Errors
    /// As [`users`](Self::users).
    pub async fn list_users(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<User<'static>>, DirectoryError> {
        let rows = with_timeout(async {
            match self {
                Self::Postgres(pool) => postgres::select_page(pool, after, limit).await,
                Self::Sqlite(pool) => sqlite::select_page(pool, after, limit).await,
            }
        });
        Ok(rows.await?.into_iter().filter_map(parse_row).collect())
    }

    /// Makes this user, or gives them this name. Whoever keeps [`Names`] has to
    /// [`forget`](Names::forget) this one.
    ///
    /// # Errors
    /// As [`users`](Self::users); whether it was done is then not known.
    pub async fn put_user(
        &self,
        id: UserId,
        name: &UserName,
    ) -> Result<PutOutcome, DirectoryError> {
        let created = with_timeout(async {
            match self {
                Self::Postgres(pool) => postgres::upsert_user(pool, id.get(), name.as_str()).await,
                Self::Sqlite(pool) => sqlite::upsert_user(pool, id.get(), name.as_str()).await,
            }
        });
        Ok(if created.await? { PutOutcome::Created } else { PutOutcome::Changed })
    }

    /// Removes this user, and says whether there was one. Whoever keeps [`Names`] has to
    /// [`forget`](Names::forget) this one.
    ///
    /// # Errors
    /// As [`users`](Self::users); whether it was done is then not known.
    pub async fn delete_user(&self, id: UserId) -> Result<bool, DirectoryError> {
        let deleted = with_timeout(async {
            match self {
                Self::Postgres(pool) => postgres::delete_user(pool, id.get()).await,
                Self::Sqlite(pool) => sqlite::delete_user(pool, id.get()).await,
            }
        });
        Ok(deleted.await?)
    }

    /// For `/readyz`: whether the directory answers, and has its table.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn check_ready(self) -> Result<Value, String> {
        let probe = [UserId::new(1).map_err(|error| error.to_string())?];
        match self.find_users(&probe).await {
            Ok(_) => Ok(Value::Null),
            Err(error) if is_missing_table(&error.0) => {
                Err("the users' table is missing: run `producer migrate`".into())
            }
            Err(error) => {
                tracing::debug!(%error, "the directory is not ready");
                let refusal = postgres::refusal_reason(&error.0).map(|why| format!(": {why}"));
                Err(format!("the user directory does not answer{}", refusal.unwrap_or_default()))
            }
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            Self::Postgres(pool) => pool.close().await,
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// A row as a user; none where the table holds what is no user to us.
fn parse_row((id, name): (i64, String)) -> Option<User<'static>> {
    Some(User { id: UserId::new(id).ok()?, name: name.into() })
}

/// PostgreSQL's `undefined_table`, and SQLite's way of saying so.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
}

async fn with_timeout<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
