//! Deletes records that are too old, and compacts topics. The writer's thread does it between batches,
//! a few records at a time, so that appends do not wait for it.

use std::{
    collections::{HashSet, VecDeque},
    sync::Arc,
    time::Duration,
};

use sqlx::{Connection as _, SqliteConnection};

use super::topics::{EmbeddedPartition, Topics};
use crate::topic::Cleanup;

/// Records of one step, which takes about a millisecond.
const STEP_RECORDS: i64 = 500;
/// Keys that are remembered while a partition is compacted. A partition with more keys keeps some
/// records that have newer ones.
const MAX_KEY_BYTES: usize = 16 << 20;
/// Returns pages to the file system in one step.
const VACUUM_STEP: &str = "PRAGMA incremental_vacuum(200)";
/// Free pages that stay in the file for new records: 16 MiB.
const MAX_FREE_PAGES: i64 = 4096;

/// The remaining work of a run.
#[derive(Default)]
pub(super) struct Sweep(VecDeque<SweepTask>);

enum SweepTask {
    /// Delete older records.
    Expire { partition: Arc<EmbeddedPartition>, before_ms: i64 },
    /// Delete records with a newer one of the same key, from the newest to the oldest.
    Compact {
        partition: Arc<EmbeddedPartition>,
        below: i64,
        seen: HashSet<Vec<u8>>,
        seen_bytes: usize,
    },
    /// Return free pages to the file system.
    Shrink,
}

impl Sweep {
    /// Starts again with all topics.
    pub(super) fn restart(&mut self, topics: &Topics, now_ms: i64) {
        self.0 = topics
            .list_cleanups()
            .into_iter()
            .map(|(partition, cleanup)| match cleanup {
                Cleanup::After(age) => {
                    SweepTask::Expire { partition, before_ms: now_ms.saturating_sub(age_ms(age)) }
                }
                Cleanup::Compact => {
                    let below = partition.row_place(partition.end_offset());
                    SweepTask::Compact { partition, below, seen: HashSet::new(), seen_bytes: 0 }
                }
            })
            .chain([SweepTask::Shrink])
            .collect();
    }

    pub(super) fn is_over(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn cancel(&mut self) {
        self.0.clear();
    }

    pub(super) async fn run_step(
        &mut self,
        file: &mut SqliteConnection,
    ) -> Result<(), sqlx::Error> {
        let done = match self.0.front_mut() {
            None => return Ok(()),
            Some(SweepTask::Expire { partition, before_ms }) => {
                expire_records(file, partition, *before_ms).await?
            }
            Some(SweepTask::Compact { partition, below, seen, seen_bytes }) => {
                compact_records(file, partition, below, seen, seen_bytes).await?
            }
            Some(SweepTask::Shrink) => shrink_file(file).await?,
        };
        if done {
            self.0.pop_front();
        }
        Ok(())
    }
}

fn age_ms(age: Duration) -> i64 {
    i64::try_from(age.as_millis()).unwrap_or(i64::MAX)
}

/// Deletes records from the start of the partition. Returns true when the first record that is young
/// enough is reached.
async fn expire_records(
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
    .bind(STEP_RECORDS)
    .fetch_all(&mut *file)
    .await?;
    let old = oldest.iter().take_while(|(_, timestamp)| *timestamp < before_ms);
    let Some((last, _)) = old.last().copied() else { return Ok(true) };
    let start = EmbeddedPartition::offset_from_place(last) + 1;
    // In one transaction: the start also gives the next offset of an empty partition.
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

/// Deletes records with a newer one of the same key; the next step continues below them. Returns true
/// when the first record is reached. The last record of a partition always stays.
async fn compact_records(
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
    .bind(STEP_RECORDS)
    .fetch_all(&mut *file)
    .await?;
    let done = (newest.len() as i64) < STEP_RECORDS;
    let mut replaced = Vec::new();
    for (place, key) in newest {
        *below = place;
        let Some(key) = key else { continue };
        if seen.contains(&key) {
            replaced.push(place.to_string());
        } else if *seen_bytes < MAX_KEY_BYTES {
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

/// Returns some free pages to the file system. Returns true when few are left.
async fn shrink_file(file: &mut SqliteConnection) -> Result<bool, sqlx::Error> {
    let free: i64 = sqlx::query_scalar("PRAGMA freelist_count").fetch_one(&mut *file).await?;
    if free <= MAX_FREE_PAGES {
        return Ok(true);
    }
    sqlx::query(VACUUM_STEP).execute(file).await?;
    Ok(false)
}
