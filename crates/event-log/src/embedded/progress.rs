//! How far a group is in each partition, and the dead-letter records that go with it: written
//! together by the writer, in one transaction.

use std::{collections::HashMap, sync::Arc};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::oneshot;

use super::{headers, topics::Partition};
use crate::poison::PoisonRecord;

/// What a group's reader has the writer do. Done twice it does no more than once, so it may be
/// asked again when nobody knows whether it was done.
pub(super) struct Settle {
    pub(super) group: Arc<str>,
    /// To be copied, in the order of their offsets: where each comes from and where it goes.
    pub(super) poison: Vec<Copy>,
    /// How far the group is: one beyond the last record that was folded or copied.
    pub(super) positions: Vec<(Arc<Partition>, i64)>,
    pub(super) done: oneshot::Sender<Result<(), String>>,
}

pub(super) struct Copy {
    pub(super) from: Arc<Partition>,
    pub(super) to: Arc<Partition>,
    pub(super) poison: Arc<PoisonRecord>,
}

/// How far the group is in each of these partitions, by number.
pub(super) async fn known(
    file: &mut SqliteConnection,
    group: &str,
    partitions: &[Arc<Partition>],
) -> Result<HashMap<i32, i64>, sqlx::Error> {
    let rows: Vec<(i64, i64)> =
        sqlx::query_as("SELECT partition_id, next_offset FROM progress WHERE group_name = ?")
            .bind(group)
            .fetch_all(file)
            .await?;
    let rows: HashMap<i64, i64> = rows.into_iter().collect();
    let known = partitions
        .iter()
        .map(|partition| (partition.number, rows.get(&partition.id).copied().unwrap_or(0)));
    Ok(known.collect())
}

/// Does all or nothing; when it returns, it is on the disk. Returns where the partitions that were
/// written to end.
pub(super) async fn settle(
    file: &mut SqliteConnection,
    settle: &Settle,
    timestamp_ms: i64,
) -> Result<Vec<(Arc<Partition>, i64)>, sqlx::Error> {
    let mut transaction = file.begin_with("BEGIN IMMEDIATE").await?;
    let mut ends: HashMap<i64, (Arc<Partition>, i64)> = HashMap::new();
    for Copy { from, to, poison } in &settle.poison {
        // What the file says counts, not what the reader believes: an earlier attempt may have
        // arrived after all.
        let moved = sqlx::query(ADVANCE)
            .bind(&*settle.group)
            .bind(from.id)
            .bind(poison.offset + 1)
            .execute(&mut *transaction)
            .await?;
        if moved.rows_affected() == 0 {
            continue;
        }
        let (_, end) = ends.entry(to.id).or_insert_with(|| (Arc::clone(to), to.end()));
        let headers: Vec<(&str, Vec<u8>)> =
            poison.headers.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
        sqlx::query(
            "INSERT INTO records (place, timestamp, key, headers, value) VALUES (?, ?, ?, ?, ?)",
        )
        .bind(to.place(*end))
        .bind(timestamp_ms)
        .bind(poison.key.as_deref())
        .bind(headers::encode(&headers))
        .bind(poison.value.as_deref())
        .execute(&mut *transaction)
        .await?;
        *end += 1;
    }
    for (partition, next) in &settle.positions {
        sqlx::query(ADVANCE)
            .bind(&*settle.group)
            .bind(partition.id)
            .bind(next)
            .execute(&mut *transaction)
            .await?;
    }
    transaction.commit().await?;
    Ok(ends.into_values().collect())
}

/// A group's progress never goes back.
const ADVANCE: &str =
    "INSERT INTO progress (group_name, partition_id, next_offset) VALUES (?, ?, ?)
     ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset
     WHERE excluded.next_offset > next_offset";
