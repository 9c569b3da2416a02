//! The users table: the same queries for PostgreSQL and SQLite.

use std::collections::HashMap;
#[cfg(feature = "sqlite")]
use std::path::Path;

use model::{User, UserId, UserName};
use serde_json::Value;

#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;
use super::{
    error::{DirectoryError, DirectoryOpenError, MigrateError, with_timeout},
    migrations::build_migrator,
};

/// The users table. Cheap to clone.
#[derive(Clone, Debug)]
pub enum Directory {
    /// A PostgreSQL database.
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    /// An SQLite file.
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
}

/// The result of [`Directory::put_user`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The user is new.
    Created,
    /// The user existed and has the new name.
    Changed,
}

impl Directory {
    /// A directory in PostgreSQL, with at most `connections` connections. Connects on first use,
    /// so PostgreSQL may start later than the producer.
    ///
    /// # Errors
    /// [`DirectoryOpenError`] if the URL is invalid or needs TLS that this build does not have.
    #[cfg(feature = "postgres")]
    pub fn open_postgres(url: &str, connections: u32) -> Result<Self, DirectoryOpenError> {
        postgres::open_pool(url, connections).map(Self::Postgres)
    }

    /// A directory in this SQLite file, which is created if it is missing.
    ///
    /// # Errors
    /// [`DirectoryOpenError::File`].
    #[cfg(feature = "sqlite")]
    pub async fn open_sqlite(path: &Path) -> Result<Self, DirectoryOpenError> {
        sqlite::open_pool(path).await.map(Self::Sqlite)
    }

    /// Creates the users table with its first four users, or migrates it. Idempotent.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => build_migrator(postgres::MIGRATIONS).run(pool).await?,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => build_migrator(sqlite::MIGRATIONS).run(pool).await?,
        }
        Ok(())
    }

    /// Returns the users with these ids that exist, with one query.
    ///
    /// # Errors
    /// [`DirectoryError`] if the database does not answer in time.
    pub async fn find_users(
        &self,
        ids: &[UserId],
    ) -> Result<HashMap<UserId, User<'static>>, DirectoryError> {
        let numbers: Vec<i64> = ids.iter().map(|id| id.get()).collect();
        let rows = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::select_users(pool, &numbers).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::select_users(pool, &numbers).await,
            }
        });
        Ok(rows.await?.into_iter().filter_map(parse_row).map(|user| (user.id, user)).collect())
    }

    /// Returns at most `limit` users with ids greater than `after`, in the order of their ids.
    ///
    /// # Errors
    /// As [`find_users`](Self::find_users).
    pub async fn list_users(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<User<'static>>, DirectoryError> {
        let rows = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::select_page(pool, after, limit).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::select_page(pool, after, limit).await,
            }
        });
        Ok(rows.await?.into_iter().filter_map(parse_row).collect())
    }

    /// Creates or renames a user. A caller that also has a [`UserLookup`](super::UserLookup)
    /// invalidates the user there.
    ///
    /// # Errors
    /// As [`find_users`](Self::find_users); the outcome is then unknown.
    pub async fn put_user(
        &self,
        id: UserId,
        name: &UserName,
    ) -> Result<PutOutcome, DirectoryError> {
        let created = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::upsert_user(pool, id.get(), name.as_str()).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::upsert_user(pool, id.get(), name.as_str()).await,
            }
        });
        Ok(if created.await? { PutOutcome::Created } else { PutOutcome::Changed })
    }

    /// Deletes a user; false if there was no such user. A caller that also has a
    /// [`UserLookup`](super::UserLookup) invalidates the user there.
    ///
    /// # Errors
    /// As [`find_users`](Self::find_users); the outcome is then unknown.
    pub async fn delete_user(&self, id: UserId) -> Result<bool, DirectoryError> {
        let deleted = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::delete_user(pool, id.get()).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::delete_user(pool, id.get()).await,
            }
        });
        Ok(deleted.await?)
    }

    /// The check of `/readyz`: queries the users table.
    ///
    /// # Errors
    /// The reason why the query fails, for `/readyz`.
    pub async fn check_ready(self) -> Result<Value, String> {
        let probe = [UserId::new(1).map_err(|error| error.to_string())?];
        match self.find_users(&probe).await {
            Ok(_) => Ok(Value::Null),
            Err(error) if is_missing_table(&error.0) => {
                Err("the users table is missing: run `producer migrate`".into())
            }
            Err(error) => {
                tracing::debug!(%error, "the directory is not ready");
                #[cfg(feature = "postgres")]
                let reason = postgres::refusal_reason(&error.0).map(|why| format!(": {why}"));
                #[cfg(not(feature = "postgres"))]
                let reason = None::<String>;
                Err(format!("the user directory does not answer{}", reason.unwrap_or_default()))
            }
        }
    }

    /// Closes all connections.
    pub async fn close(&self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// `None` if the row's id is not a valid [`UserId`].
fn parse_row((id, name): (i64, String)) -> Option<User<'static>> {
    Some(User { id: UserId::new(id).ok()?, name: name.into() })
}

/// Recognizes PostgreSQL's `undefined_table` and SQLite's message.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
}
