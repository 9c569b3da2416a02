//! The file's connections and its tables: how it is opened, and how an older one is brought up to
//! date.

use std::{path::Path, time::Duration};

use sqlx::{
    ConnectOptions as _, Connection as _, SqliteConnection,
    sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};

/// In the file's header, so that no other program's database is taken for a log: "nlog". The first
/// migration writes it.
const APPLICATION_ID: i64 = 0x6e6c_6f67;

/// Each brings the file from the version that is its index to the next, and says so in the file's
/// `user_version`.
const MIGRATIONS: [&str; 1] = [include_str!("../../migrations/0001_log.sql")];

/// How long a connection waits for another one of this process: a checkpoint for a reader, the
/// writer for whoever has opened the file with a SQLite shell.
const BUSY: Duration = Duration::from_secs(5);

/// Why a file is not used.
pub(super) enum Unfit {
    /// It was made by a later version than this one.
    Newer { found: i64, known: i64 },
    /// It is a database, but of something else.
    Foreign,
    /// Its file system cannot share memory between connections, which the write-ahead log needs.
    NoWal,
    /// SQLite says no.
    Sqlite(sqlx::Error),
}

impl From<sqlx::Error> for Unfit {
    fn from(error: sqlx::Error) -> Self {
        Self::Sqlite(error)
    }
}

/// A connection that may write. An acknowledged record must survive a power cut, hence
/// `synchronous=FULL`: each commit is one `fsync` of the write-ahead log. The two `fullfsync`
/// pragmas make it one that macOS means; elsewhere they do nothing.
pub(super) async fn connect_to_write(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path)
        .create_if_missing(true)
        // So that space can be given back after a large retention; it costs appends nothing that
        // could be measured.
        .auto_vacuum(SqliteAutoVacuum::Incremental)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("fullfsync", "ON")
        .pragma("checkpoint_fullfsync", "ON")
        // After a burst the write-ahead log gives its space back.
        .pragma("journal_size_limit", "16777216")
        .connect()
        .await
}

/// A connection that only reads. It never blocks the writer, nor the writer it. It reads ahead of
/// the fold by a few rows, so that both have something to do: more of them made no difference, and
/// of the largest records these are 64 MiB.
pub(super) async fn connect_to_read(path: &Path) -> Result<SqliteConnection, sqlx::Error> {
    options(path).pragma("query_only", "ON").row_buffer_size(64).connect().await
}

fn options(path: &Path) -> SqliteConnectOptions {
    // Errors are logged where they are handled; statements are not worth a line each.
    SqliteConnectOptions::new().filename(path).busy_timeout(BUSY).disable_statement_logging()
}

/// Makes the tables, or brings those of an older version up to date.
pub(super) async fn migrate(file: &mut SqliteConnection) -> Result<(), Unfit> {
    let known = MIGRATIONS.len() as i64;
    let application: i64 = ask(file, "PRAGMA application_id").await?;
    let found: i64 = ask(file, "PRAGMA user_version").await?;
    let tables: i64 = ask(file, "SELECT count(*) FROM sqlite_schema").await?;
    if tables > 0 && application != APPLICATION_ID {
        return Err(Unfit::Foreign);
    }
    if found > known {
        return Err(Unfit::Newer { found, known });
    }
    let mode: String = sqlx::query_scalar("PRAGMA journal_mode").fetch_one(&mut *file).await?;
    if mode != "wal" {
        return Err(Unfit::NoWal);
    }
    let done = usize::try_from(found).unwrap_or(0);
    if done == MIGRATIONS.len() {
        return Ok(());
    }
    // All in one transaction: a crash leaves the old version or the new one, nothing between.
    let mut transaction = file.begin().await?;
    for migration in &MIGRATIONS[done..] {
        sqlx::raw_sql(*migration).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(())
}

async fn ask(file: &mut SqliteConnection, question: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(question).fetch_one(file).await
}

/// Writes something that changes nothing, to see whether the disk takes it.
pub(super) async fn touch(file: &mut SqliteConnection) -> Result<(), sqlx::Error> {
    sqlx::query("UPDATE partitions SET start_offset = start_offset WHERE id = 1")
        .execute(file)
        .await
        .map(drop)
}
