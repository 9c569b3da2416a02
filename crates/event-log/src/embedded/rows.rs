//! Reads records from the file's rows, borrowed from them.

use futures_util::stream::BoxStream;
use sqlx::{Row as _, SqliteConnection, sqlite::SqliteRow};

use super::{
    headers::{self, Headers},
    topics::EmbeddedPartition,
};
use crate::Record;

/// How many records one statement reads. Between two statements SQLite can empty the write-ahead
/// log, and the driver reads live partitions.
pub(super) const MAX_CHUNK: i64 = 1024;

/// The partition's rows from offset `from` up to, not including, `to`; [`MAX_CHUNK`] at most.
pub(super) fn fetch_rows<'f>(
    file: &'f mut SqliteConnection,
    partition: &EmbeddedPartition,
    from: i64,
    to: i64,
) -> BoxStream<'f, Result<SqliteRow, sqlx::Error>> {
    sqlx::query(
        "SELECT place, timestamp, key, headers, value FROM records
         WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
    )
    .bind(partition.row_place(from))
    .bind(partition.row_place(to))
    .bind(MAX_CHUNK)
    .fetch(file)
}

/// The record of a row that [`fetch_rows`] found.
pub(super) fn read_record<'r>(
    row: &'r SqliteRow,
    partition: &EmbeddedPartition,
) -> Result<Record<'r>, sqlx::Error> {
    let offset = EmbeddedPartition::offset_from_place(row.try_get(0)?);
    let headers = headers::decode_headers(row.try_get(3)?).unwrap_or_else(|_| {
        tracing::error!(
            log.partition = partition.number,
            log.offset = offset,
            "the log's file is damaged: a record is read without its headers",
        );
        Headers::new()
    });
    Ok(Record {
        partition: partition.number,
        offset,
        timestamp_ms: row.try_get(1)?,
        key: row.try_get(2)?,
        value: row.try_get(4)?,
        headers,
    })
}
