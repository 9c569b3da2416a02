//! Inserts records, many in one statement: the round trip of a statement to the connection's thread
//! takes longer than a row.

use std::sync::{Arc, LazyLock};

use sqlx::{
    AssertSqlSafe, Connection as _, SqliteConnection, query::Query, sqlite::SqliteArguments,
};

use super::queue::QueuedAppend;

/// Rows of a statement. Parameters that are not bound are NULL, and the statement skips rows whose
/// place is NULL.
const STATEMENT_ROWS: [usize; 5] = [1, 4, 16, 64, 256];

/// A statement takes at most this much, or one record. Its records are in memory twice.
const MAX_STATEMENT_BYTES: usize = 4 << 20;

/// OR ROLLBACK: a conflict is a bug and may end the whole transaction. The default, which undoes only
/// the statement, would write a journal for each statement.
static STATEMENTS: LazyLock<[Arc<str>; STATEMENT_ROWS.len()]> = LazyLock::new(|| {
    STATEMENT_ROWS.map(|rows| {
        let rows = vec!["(?,?,?,?,?)"; rows].join(",");
        format!(
            "INSERT OR ROLLBACK INTO records (place, timestamp, key, headers, value)
             SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"
        )
        .into()
    })
});

/// Inserts the whole batch or, after an error, no record of it. When it returns, the records are on
/// the disk.
pub(super) async fn insert_records(
    file: &mut SqliteConnection,
    batch: &mut [QueuedAppend],
    offsets: &[i64],
    timestamp_ms: i64,
) -> Result<(), sqlx::Error> {
    let first = count_statement_rows(batch);
    if first == batch.len() {
        // A statement is a transaction by itself: one round trip, for most batches.
        return insert_statement(batch, offsets, timestamp_ms).execute(file).await.map(drop);
    }
    let mut transaction = file.begin_with("BEGIN IMMEDIATE").await?;
    let (mut batch, mut offsets) = (batch, offsets);
    while !batch.is_empty() {
        let rows = count_statement_rows(batch);
        let (now, later) = batch.split_at_mut(rows);
        insert_statement(now, offsets, timestamp_ms).execute(&mut *transaction).await?;
        (batch, offsets) = (later, &offsets[rows..]);
    }
    transaction.commit().await
}

fn count_statement_rows(batch: &[QueuedAppend]) -> usize {
    let mut bytes = 0;
    let fits = |append: &&QueuedAppend| {
        bytes += append.size_bytes();
        bytes <= MAX_STATEMENT_BYTES
    };
    let most = STATEMENT_ROWS[STATEMENT_ROWS.len() - 1];
    batch.iter().take(most).take_while(fits).count().max(1).min(batch.len())
}

/// Moves keys, values and headers out of the records.
fn insert_statement(
    batch: &mut [QueuedAppend],
    offsets: &[i64],
    timestamp_ms: i64,
) -> Query<'static, sqlx::Sqlite, SqliteArguments> {
    let size = STATEMENT_ROWS
        .iter()
        .position(|size| *size >= batch.len())
        .unwrap_or(STATEMENT_ROWS.len() - 1);
    let mut query = sqlx::query(AssertSqlSafe(Arc::clone(&STATEMENTS[size])));
    for (append, offset) in batch.iter_mut().zip(offsets) {
        query = query
            .bind(append.partition.row_place(*offset))
            .bind(timestamp_ms)
            .bind(std::mem::take(&mut append.key))
            .bind(std::mem::take(&mut append.headers))
            .bind(std::mem::take(&mut append.value));
    }
    query
}
