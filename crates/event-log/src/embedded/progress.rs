//! The group's committed offsets: a table of the file, which the writer's thread reads and updates.

use std::{collections::HashMap, sync::Arc};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::oneshot;

use super::{
    queue::{EmbeddedWriter, WriterRequest},
    topics::Topics,
};
use crate::commits::GroupOffsets;

pub(super) struct FileOffsets {
    pub(super) group: String,
    pub(super) topic: String,
    pub(super) topics: Arc<Topics>,
    pub(super) writer: EmbeddedWriter,
}

impl FileOffsets {
    fn partition_id(&self, number: i32) -> Result<i64, String> {
        self.topics.find_partition(&self.topic, number).map(|partition| partition.id)
    }

    fn request_progress(&self, offsets: Vec<(i64, i64)>) -> Result<HashMap<i64, i64>, String> {
        let (answer, answered) = oneshot::channel();
        let group = self.group.clone();
        self.writer.send_request(WriterRequest::Progress { group, offsets, answer })?;
        answered.blocking_recv().map_err(|_| "the log is closed".to_owned())?
    }
}

impl GroupOffsets for FileOffsets {
    fn fetch_committed(
        &self,
        partitions: &[i32],
        report: &mut dyn FnMut(i32, i64),
    ) -> Result<(), String> {
        let committed = self.request_progress(Vec::new())?;
        for number in partitions {
            report(*number, committed.get(&self.partition_id(*number)?).map_or(0, |o| *o));
        }
        Ok(())
    }

    fn commit_offsets(&self, offsets: &[(i32, i64)]) -> Result<(), String> {
        let by_id =
            offsets.iter().map(|(number, offset)| Ok((self.partition_id(*number)?, *offset)));
        self.request_progress(by_id.collect::<Result<_, String>>()?).map(drop)
    }
}

/// Returns the group's committed offsets by partition id. When it returns, they are on the disk.
pub(super) async fn advance_progress(
    file: &mut SqliteConnection,
    group: &str,
    offsets: &[(i64, i64)],
) -> Result<HashMap<i64, i64>, sqlx::Error> {
    if !offsets.is_empty() {
        let mut transaction = file.begin_with("BEGIN IMMEDIATE").await?;
        for (partition, next) in offsets {
            // A committed offset never goes back.
            sqlx::query(
                "INSERT INTO progress (group_name, partition_id, next_offset) VALUES (?, ?, ?)
                 ON CONFLICT DO UPDATE SET next_offset = excluded.next_offset
                 WHERE excluded.next_offset > next_offset",
            )
            .bind(group)
            .bind(partition)
            .bind(next)
            .execute(&mut *transaction)
            .await?;
        }
        transaction.commit().await?;
    }
    let rows: Vec<(i64, i64)> =
        sqlx::query_as("SELECT partition_id, next_offset FROM progress WHERE group_name = ?")
            .bind(group)
            .fetch_all(file)
            .await?;
    Ok(rows.into_iter().collect())
}
