//! The file's connections, tables and migrations.

use std::{io, path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

use super::open::OpenError;

/// "nlog". The first migration writes it to the file's header, which tells a log from the database of
/// another program.
const APPLICATION_ID: i64 = 0x6e6c_6f67;

/// Each migrates the file from the version that is its index to the next, and sets `user_version`.
const MIGRATIONS: [&str; 2] = [
    include_str!("../../migrations/0001_log.sql"),
    include_str!("../../migrations/0002_epoch.sql"),
];

/// How long a connection waits for a lock: a checkpoint for a reader, the writer for a SQLite shell.
const BUSY_TIMEOUT: Duration = Duration::from_secs(5);

/// A connection that may write. An acknowledged record must survive a power cut, hence
/// `synchronous=FULL`: each commit is one `fsync` of the write-ahead log. The two `fullfsync` pragmas
/// make macOS flush the disk's cache, too.
pub(super) async fn connect_to_write(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    connect_options(path)
        .create_if_missing(true)
        // Retention can return space to the file system. It does not measurably slow appends.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        // After a burst the write-ahead log is truncated to this.
        .pragma("journal_size_limit", "16777216")
        .connect()
        .await
}

/// A connection that only reads. It and the writer never block each other. It reads 64 rows ahead of
/// the handler, which are at most 64 MiB; more rows were not faster.
pub(super) async fn connect_to_read(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    connect_options(path).pragma("query_only", "ON").row_buffer_size(64).connect().await
}

fn connect_options(path: &Path) -> SqliteConnectOptions {
    // Errors are logged where they are handled.
    SqliteConnectOptions::new()
        .filename(path)
        .busy_timeout(BUSY_TIMEOUT)
        .disable_statement_logging()
}

/// Creates the tables, or migrates those of an older version.
pub(super) async fn migrate_file(
    path: &Path,
    file: &mut SqliteConnection,
) -> Result<(), OpenError> {
    let known = MIGRATIONS.len() as i64;
    let (found, is_foreign, has_wal) =
        read_header(file).await.map_err(|error| OpenError::from_sqlite(path, error))?;
    let path = path.to_owned();
    if is_foreign {
        return Err(OpenError::Damaged {
            path,
            reason: "it is the database of another program".into(),
        });
    }
    if found > known {
        return Err(OpenError::Newer { path, found, known });
    }
    if !has_wal {
        // The file system lacks shared memory.
        let source = io::Error::other("its file system does not allow a write-ahead log");
        return Err(OpenError::Create { path, source });
    }
    let missing = MIGRATIONS.get(usize::try_from(found).unwrap_or(0)..).unwrap_or_default();
    run_migrations(file, missing).await.map_err(|error| OpenError::from_sqlite(&path, error))
}

/// The file's version; true if it is another program's; true if it has a write-ahead log.
async fn read_header(file: &mut SqliteConnection) -> Result<(i64, bool, bool), sqlx::Error> {
    let application: i64 = query_number(file, "PRAGMA application_id").await?;
    let found: i64 = query_number(file, "PRAGMA user_version").await?;
    let tables: i64 = query_number(file, "SELECT count(*) FROM sqlite_schema").await?;
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(file).await?;
    Ok((found, tables > 0 && application != APPLICATION_ID, mode == "wal"))
}

/// In one transaction: a crash leaves the old version or the new one.
async fn run_migrations(
    file: &mut SqliteConnection,
    missing: &[&'static str],
) -> Result<(), sqlx::Error> {
    if missing.is_empty() {
        return Ok(());
    }
    let mut transaction = file.begin().await?;
    for migration in missing {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
    }
    transaction.commit().await
}

async fn query_number(file: &mut SqliteConnection, sql: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(sql).fetch_one(file).await
}
