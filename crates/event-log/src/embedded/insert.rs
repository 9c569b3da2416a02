//! Rows into the file: one statement for many of them, because each statement costs a way to the
//! connection's thread and back, which takes longer than a row does.

use std::sync::{Arc, LazyLock};

use sqlx::{
    AssertSqlSafe, Connection as _, SqliteConnection, query::Query, sqlite::SqliteArguments,
};

use super::queue::Append;

/// How many rows a statement takes. What is not bound is NULL, and a row without a place is none.
const SIZES: [usize; 5] = [1, 4, 16, 64, 256];

/// The bytes that a statement takes, but for one record more: they are in memory twice meanwhile.
const BYTES: usize = 4 << 20;

/// OR ROLLBACK: a place that is taken must never be, and ends the whole transaction; the default,
/// which ends the statement alone, would keep a journal of each.
static STATEMENTS: LazyLock<[Arc<str>; SIZES.len()]> = LazyLock::new(|| {
    SIZES.map(|rows| {
        let rows = vec!["(?,?,?,?,?)"; rows].join(",");
        format!(
            "INSERT OR ROLLBACK INTO records (place, timestamp, key, headers, value)
             SELECT * FROM (VALUES {rows}) WHERE column1 IS NOT NULL"
        )
        .into()
    })
});

/// Inserts all or nothing; when it returns, they are on the disk.
pub(super) async fn insert(
    file: &mut SqliteConnection,
    batch: &mut [Append],
    offsets: &[i64],
    timestamp_ms: i64,
) -> Result<(), sqlx::Error> {
    let first = rows_of_one_statement(batch);
    if first == batch.len() {
        // A statement is a transaction by itself: one way there and back, for most batches.
        return statement(batch, offsets, timestamp_ms).execute(file).await.map(drop);
    }
    let mut transaction = file.begin_with("BEGIN IMMEDIATE").await?;
    let (mut batch, mut offsets) = (batch, offsets);
    while !batch.is_empty() {
        let rows = rows_of_one_statement(batch);
        let (now, later) = batch.split_at_mut(rows);
        statement(now, offsets, timestamp_ms).execute(&mut *transaction).await?;
        (batch, offsets) = (later, &offsets[rows..]);
    }
    transaction.commit().await
}

fn rows_of_one_statement(batch: &[Append]) -> usize {
    let mut bytes = 0;
    let fits = |append: &&Append| {
        bytes += append.bytes();
        bytes <= BYTES
    };
    let most = SIZES[SIZES.len() - 1];
    batch.iter().take(most).take_while(fits).count().max(1).min(batch.len())
}

/// Takes keys and values out of the records: nobody needs them any more, whatever comes of it.
fn statement(
    batch: &mut [Append],
    offsets: &[i64],
    timestamp_ms: i64,
) -> Query<'static, sqlx::Sqlite, SqliteArguments> {
    let size = SIZES.iter().position(|size| *size >= batch.len()).unwrap_or(SIZES.len() - 1);
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
