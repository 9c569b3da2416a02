//! Forgetting: records that are too old, and those that a newer one of their key replaces. Done by
//! the writer between batches, a few records at a time, so that nobody waits for it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection as _, SqliteConnection};

use super::topics::{EmbeddedPartition, Topics};
use crate::topic::Cleanup;

/// Records that one step looks at: about a millisecond's work.
const STEP: i64 = 500;
/// Bytes of keys that are remembered while a partition is compacted. A partition with more keeps
/// some records that it could forget.
const MOST_KEY_BYTES: usize = 16 << 20;
/// Pages that are given back to the file system in one step.
const PAGES: &str = "PRAGMA incremental_vacuum(200)";
/// Free pages that stay in the file for the records to come: 16 MiB.
const SPARE_PAGES: i64 = 4096;

/// What is left to do.
#[derive(Default)]
pub(super) struct Sweep(VecDeque<Work>);

enum Work {
    /// Forget what is older.
    Expire { partition: Arc<EmbeddedPartition>, before_ms: i64 },
    /// Forget what is replaced; from the newest to the oldest, remembering each key.
    Compact {
        partition: Arc<EmbeddedPartition>,
        below: i64,
        seen: HashSet<Vec<u8>>,
        seen_bytes: usize,
    },
    /// Give free pages back.
    Shrink,
}

impl Sweep {
    /// Starts anew, over every topic that forgets something.
    pub(super) fn begin(&mut self, topics: &Topics, now_ms: i64) {
        self.0 = topics
            .list_cleanups()
            .into_iter()
            .map(|(partition, cleanup)| match cleanup {
                Cleanup::After(age) => {
                    Work::Expire { partition, before_ms: now_ms.saturating_sub(millis(age)) }
                }
                Cleanup::Compact => {
                    let below = partition.row_place(partition.end_offset());
                    Work::Compact { partition, below, seen: HashSet::new(), seen_bytes: 0 }
                }
            })
            .chain([Work::Shrink])
            .collect();
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    /// Leaves the rest until the next time.
    pub(super) fn give_up(&mut self) {
        self.0.clear();
    }

    pub(super) async fn step(&mut self, file: &mut SqliteConnection) -> Result<(), sqlx::Error> {
        let done = match self.0.front_mut() {
            None => return Ok(()),
            Some(Work::Expire { partition, before_ms }) => {
                expire(file, partition, *before_ms).await?
            }
            Some(Work::Compact { partition, below, seen, seen_bytes }) => {
                compact(file, partition, below, seen, seen_bytes).await?
            }
            Some(Work::Shrink) => shrink(file).await?,
        };
        if done {
            self.0.pop_front();
        }
        Ok(())
    }
}

fn millis(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

/// Deletes from the start of the partition up to the first record that is young enough. True: that
/// record was reached.
async fn expire(
    file: &mut SqliteConnection,
    partition: &EmbeddedPartition,
    before_ms: i64,
) -> Result<bool, sqlx::Error> {
    let (start, end) = (partition.start_offset(), partition.end_offset());
    let oldest: Vec<(i64, i64)> = sqlx::query_as(
        "SELECT place, timestamp FROM records WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
    )
    .bind(partition.row_place(start))
    .bind(partition.row_place(end))
    .bind(STEP)
    .fetch_all(&mut *file)
    .await?;
    let old = oldest.iter().take_while(|(_, timestamp)| *timestamp < before_ms);
    let Some((last, _)) = old.last().copied() else { return Ok(true) };
    let start = EmbeddedPartition::offset_from_place(last) + 1;
    // The start is written with the deletion, so that offsets go on from there in any case.
    let mut transaction = file.begin_with("BEGIN IMMEDIATE").await?;
    sqlx::query("DELETE FROM records WHERE place >= ? AND place <= ?")
        .bind(partition.row_place(0))
        .bind(last)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("UPDATE partitions SET start_offset = ? WHERE id = ?")
        .bind(start)
        .bind(partition.id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    partition.set_start_offset(start);
    Ok(oldest.last().is_some_and(|(place, _)| *place != last) || start == end)
}

/// Deletes records whose key was seen in a later one, and goes on below them the next time. True:
/// the first record was reached. The last record of a partition always stays.
async fn compact(
    file: &mut SqliteConnection,
    partition: &EmbeddedPartition,
    below: &mut i64,
    seen: &mut HashSet<Vec<u8>>,
    seen_bytes: &mut usize,
) -> Result<bool, sqlx::Error> {
    let newest: Vec<(i64, Option<Vec<u8>>)> = sqlx::query_as(
        "SELECT place, key FROM records WHERE place >= ? AND place < ? ORDER BY place DESC LIMIT ?",
    )
    .bind(partition.row_place(0))
    .bind(*below)
    .bind(STEP)
    .fetch_all(&mut *file)
    .await?;
    let done = (newest.len() as i64) < STEP;
    let mut replaced = Vec::new();
    for (place, key) in newest {
        *below = place;
        let Some(key) = key else { continue };
        if seen.contains(&key) {
            replaced.push(place.to_string());
        } else if *seen_bytes < MOST_KEY_BYTES {
            *seen_bytes += key.len();
            seen.insert(key);
        }
    }
    if !replaced.is_empty() {
        sqlx::query("DELETE FROM records WHERE place IN (SELECT value FROM json_each(?))")
            .bind(format!("[{}]", replaced.join(",")))
            .execute(file)
            .await?;
    }
    Ok(done)
}

/// Gives some free pages back. True: there are not many left.
async fn shrink(file: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *file).await?;
    if free <= SPARE_PAGES {
        return Ok(true);
    }
    sqlx::query(PAGES).execute(file).await?;
    Ok(false)
}
