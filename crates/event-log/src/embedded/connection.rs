//! The one connection that writes, which is replaced after a failure.

use std::{path::PathBuf, sync::Arc};

use sqlx::{Connection as _, SqliteConnection};

use super::{schema, topics::Topics};

pub(super) struct WriteConnection {
    path: PathBuf,
    topics: Arc<Topics>,
    /// `None` after a failure: a failed connection is not used again.
    file: Option<SqliteConnection>,
    /// The last write failed. A full disk is logged once, not once a batch.
    failing: bool,
}

impl WriteConnection {
    pub(super) fn new(path: PathBuf, topics: Arc<Topics>, file: SqliteConnection) -> Self {
        Self { path, topics, file: Some(file), failing: false }
    }

    /// The connection, or a new one. A new one reads the ends of the partitions from the file, because
    /// the outcome of the last transaction is not known.
    pub(super) async fn get_or_connect(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut file = schema::connect_to_write(&self.path).await?;
                self.topics.load_topics(&mut file).await?;
                file
            }
        };
        Ok(self.file.insert(file))
    }

    /// Writes; after a failure, the next write opens a new connection.
    pub(super) async fn write<T>(
        &mut self,
        write: impl AsyncFnOnce(&mut SqliteConnection) -> Result<T, sqlx::Error>,
    ) -> Result<T, sqlx::Error> {
        let outcome = match self.get_or_connect().await {
            Ok(file) => write(file).await,
            Err(error) => Err(error),
        };
        match &outcome {
            Ok(_) if self.failing => tracing::info!("the log can be written again"),
            Err(error) if !self.failing => {
                tracing::error!(%error, "the log cannot be written; rejecting records");
            }
            _ => {}
        }
        self.failing = outcome.is_err();
        if self.failing {
            self.close().await;
        }
        outcome
    }

    /// Reads from the file; after a failed write, writes to it.
    pub(super) async fn ping_file(&mut self) -> Result<(), sqlx::Error> {
        // The update changes no value: it finds out if the disk accepts writes.
        let ping = if self.failing {
            "UPDATE partitions SET start_offset = start_offset WHERE id = 1"
        } else {
            "SELECT 1 FROM topics LIMIT 1"
        };
        self.write(async |file| sqlx::query(ping).execute(file).await.map(drop)).await
    }

    pub(super) async fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // Closing rolls an open transaction back.
            let _ = file.close().await;
        }
    }

    /// Empties the write-ahead log, so that a copy of the one file is a copy of the log, and closes.
    pub(super) async fn checkpoint_and_close(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(file).await
        {
            tracing::warn!(%error, "the write-ahead log is not emptied");
        }
        self.close().await;
    }
}
