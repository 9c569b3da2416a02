//! The users table: the same queries for PostgreSQL and SQLite.

use std::collections::HashMap;
#[cfg(feature = "sqlite")]
use std::path::Path;

use model::{User, UserId, UserName};
use serde_json::Value;
use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
    query, query_as,
};

use super::error::{DirectoryError, DirectoryOpenError, MigrateError, with_timeout};
#[cfg(feature = "postgres")]
use super::postgres;
#[cfg(feature = "sqlite")]
use super::sqlite;

const SELECT_PAGE: &str = "SELECT id, name FROM users WHERE id > $1 ORDER BY id LIMIT $2";
const DELETE_USER: &str = "DELETE FROM users WHERE id = $1";

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
    #[cfg(feature = "postgres")]
    pub fn open_postgres(url: &str, connections: u32) -> Result<Self, DirectoryOpenError> {
        postgres::open_pool(url, connections).map(Self::Postgres)
    }

    /// A directory in this SQLite file, which is created if it is missing.
    #[cfg(feature = "sqlite")]
    pub async fn open_sqlite(path: &Path) -> Result<Self, DirectoryOpenError> {
        sqlite::open_pool(path).await.map(Self::Sqlite)
    }

    /// Creates the users table with its first four users, or migrates it. Idempotent.
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
    pub async fn find_users(
        &self,
        ids: &[UserId],
    ) -> Result<HashMap<UserId, User<'static>>, DirectoryError> {
        let numbers: Vec<i64> = ids.iter().map(|id| id.get()).collect();
        let rows = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => {
                    query_as(postgres::SELECT_USERS).bind(&numbers).fetch_all(pool).await
                }
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => {
                    let list = serde_json::to_string(&numbers).unwrap_or_default();
                    query_as(sqlite::SELECT_USERS).bind(list).fetch_all(pool).await
                }
            }
        });
        Ok(rows.await?.into_iter().filter_map(parse_row).map(|user| (user.id, user)).collect())
    }

    /// Returns at most `limit` users with ids greater than `after`, in the order of their ids.
    pub async fn list_users(
        &self,
        after: i64,
        limit: u32,
    ) -> Result<Vec<User<'static>>, DirectoryError> {
        let limit = i64::from(limit);
        let rows = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(db) => {
                    query_as(SELECT_PAGE).bind(after).bind(limit).fetch_all(db).await
                }
                #[cfg(feature = "sqlite")]
                Self::Sqlite(db) => {
                    query_as(SELECT_PAGE).bind(after).bind(limit).fetch_all(db).await
                }
            }
        });
        Ok(rows.await?.into_iter().filter_map(parse_row).collect())
    }

    /// Creates or renames a user. A caller that also has a [`UserLookup`](super::UserLookup)
    /// invalidates the user there. After an error the outcome is unknown.
    pub async fn put_user(
        &self,
        id: UserId,
        name: &UserName,
    ) -> Result<PutOutcome, DirectoryError> {
        let created = with_timeout(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => {
                    let upsert = sqlx::query_scalar(postgres::UPSERT_USER).bind(id.get());
                    upsert.bind(name.as_str()).fetch_one(pool).await
                }
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::upsert_user(pool, id.get(), name.as_str()).await,
            }
        });
        Ok(if created.await? { PutOutcome::Created } else { PutOutcome::Changed })
    }

    /// Deletes a user; false if there was no such user. A caller that also has a
    /// [`UserLookup`](super::UserLookup) invalidates the user there. After an error the outcome is
    /// unknown.
    pub async fn delete_user(&self, id: UserId) -> Result<bool, DirectoryError> {
        let deleted = with_timeout(async {
            Ok(match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => {
                    query(DELETE_USER).bind(id.get()).execute(pool).await?.rows_affected()
                }
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => {
                    query(DELETE_USER).bind(id.get()).execute(pool).await?.rows_affected()
                }
            })
        });
        Ok(deleted.await? > 0)
    }

    /// The check of `/readyz`: queries the users table.
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

/// Without `sqlx::migrate!`, whose macro would build both drivers a second time for the compiler's
/// host. Each migration has a version, a description and SQL.
fn build_migrator(migrations: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migrations = migrations.iter().map(|&(version, description, sql)| {
        let (kind, sql) = (MigrationType::Simple, sql.into_sql_str());
        Migration::new(version, description.into(), kind, sql, false)
    });
    Migrator::with_migrations(migrations.collect())
}
