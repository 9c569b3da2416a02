//! The directory: who the users are. PostgreSQL in production, SQLite embedded; the same questions
//! to both. [`Names`] is how sends ask: through a cache that is never trusted without a reason.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod names;
mod cache;
#[cfg(feature = "postgres")]
mod listener;

#[cfg(feature = "sqlite")]
use std::path::Path;
use std::{collections::HashMap, time::Duration};

use model::{User, UserId, UserName};
use serde_json::Value;
use sqlx::{
    SqlSafeStr as _,
    migrate::{Migration, MigrationType, Migrator},
};

pub use names::{Away, Names, People};

/// How long a connection or an answer may take before the directory counts as away.
const DEADLINE: Duration = Duration::from_secs(3);

/// The users' table. A cheap handle, to be cloned.
#[derive(Clone, Debug)]
pub enum Directory {
    /// In PostgreSQL.
    #[cfg(feature = "postgres")]
    Postgres(sqlx::PgPool),
    /// In an SQLite file.
    #[cfg(feature = "sqlite")]
    Sqlite(sqlx::SqlitePool),
}

/// The directory cannot answer now. The driver's own words are for our log, not for clients.
#[derive(Debug, thiserror::Error)]
#[error("the user directory does not answer: {0}")]
pub struct DirectoryError(#[from] sqlx::Error);

/// The directory cannot be reached with these settings.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
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
pub enum Put {
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
    #[cfg(feature = "postgres")]
    pub fn postgres(url: &str, connections: u32) -> Result<Self, OpenError> {
        postgres::open(url, connections).map(Self::Postgres)
    }

    /// The directory in this file, made if it is missing.
    ///
    /// # Errors
    /// [`OpenError::File`].
    #[cfg(feature = "sqlite")]
    pub async fn sqlite(path: &Path) -> Result<Self, OpenError> {
        sqlite::open(path).await.map(Self::Sqlite)
    }

    /// Makes the users' table with its first four users, or brings it up to date. Doing so twice
    /// changes nothing.
    ///
    /// # Errors
    /// [`MigrateError`].
    pub async fn migrate(&self) -> Result<(), MigrateError> {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => migrator(postgres::MIGRATIONS).run(pool).await?,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => migrator(sqlite::MIGRATIONS).run(pool).await?,
        }
        Ok(())
    }

    /// Those of these users that exist, by one query.
    ///
    /// # Errors
    /// [`DirectoryError`], when it does not answer in time.
    pub async fn users(
        &self,
        ids: &[UserId],
    ) -> Result<HashMap<UserId, User<'static>>, DirectoryError> {
        let numbers: Vec<i64> = ids.iter().map(|id| id.get()).collect();
        let rows = in_time(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::users(pool, &numbers).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::users(pool, &numbers).await,
            }
        });
        Ok(rows.await?.into_iter().filter_map(user).map(|user| (user.id, user)).collect())
    }

    /// At most `limit` users, by their ids, after the one with the id `after` (0: from the first).
    ///
    /// # Errors
    /// As [`users`](Self::users).
    pub async fn page(&self, after: i64, limit: u32) -> Result<Vec<User<'static>>, DirectoryError> {
        let rows = in_time(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::page(pool, after, limit).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::page(pool, after, limit).await,
            }
        });
        Ok(rows.await?.into_iter().filter_map(user).collect())
    }

    /// Makes this user, or gives them this name. Whoever keeps [`Names`] has to
    /// [`forget`](Names::forget) this one.
    ///
    /// # Errors
    /// As [`users`](Self::users); whether it was done is then not known.
    pub async fn put(&self, id: UserId, name: &UserName) -> Result<Put, DirectoryError> {
        let created = in_time(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::put(pool, id.get(), name.as_str()).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::put(pool, id.get(), name.as_str()).await,
            }
        });
        Ok(if created.await? { Put::Created } else { Put::Changed })
    }

    /// Removes this user, and says whether there was one. Whoever keeps [`Names`] has to
    /// [`forget`](Names::forget) this one.
    ///
    /// # Errors
    /// As [`users`](Self::users); whether it was done is then not known.
    pub async fn delete(&self, id: UserId) -> Result<bool, DirectoryError> {
        let deleted = in_time(async {
            match self {
                #[cfg(feature = "postgres")]
                Self::Postgres(pool) => postgres::delete(pool, id.get()).await,
                #[cfg(feature = "sqlite")]
                Self::Sqlite(pool) => sqlite::delete(pool, id.get()).await,
            }
        });
        Ok(deleted.await?)
    }

    /// For `/readyz`: whether the directory answers, and has its table.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn check(self) -> Result<Value, String> {
        let probe = [UserId::new(1).map_err(|error| error.to_string())?];
        match self.users(&probe).await {
            Ok(_) => Ok(Value::Null),
            Err(error) if is_missing_table(&error.0) => {
                Err("the users' table is missing: run `producer migrate`".into())
            }
            Err(error) => {
                tracing::debug!(%error, "the directory is not ready");
                #[cfg(feature = "postgres")]
                let refusal = postgres::refusal(&error.0).map(|why| format!(": {why}"));
                #[cfg(not(feature = "postgres"))]
                let refusal = None::<String>;
                Err(format!("the user directory does not answer{}", refusal.unwrap_or_default()))
            }
        }
    }

    /// Closes every connection.
    pub async fn close(&self) {
        match self {
            #[cfg(feature = "postgres")]
            Self::Postgres(pool) => pool.close().await,
            #[cfg(feature = "sqlite")]
            Self::Sqlite(pool) => pool.close().await,
        }
    }
}

/// Version, description and SQL of each migration. Without `sqlx::migrate!`, whose macro builds
/// both drivers a second time for the compiler's host.
type Migrations = &'static [(i64, &'static str, &'static str)];

fn migrator(migrations: Migrations) -> Migrator {
    let migrations = migrations.iter().map(|&(version, description, sql)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            sql.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.collect())
}

/// A row as a user; none where the table holds what is no user to us.
fn user((id, name): (i64, String)) -> Option<User<'static>> {
    Some(User { id: UserId::new(id).ok()?, name: name.into() })
}

/// PostgreSQL's `undefined_table`, and SQLite's way of saying so.
fn is_missing_table(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.code().as_deref() == Some("42P01") || error.message().starts_with("no such table")
    })
}

async fn in_time<T>(
    answer: impl Future<Output = Result<T, sqlx::Error>>,
) -> Result<T, sqlx::Error> {
    tokio::time::timeout(DEADLINE, answer).await.unwrap_or(Err(sqlx::Error::PoolTimedOut))
}
