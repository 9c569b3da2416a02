//! The one connection that writes: made anew after a failure, and who is told of it.

use std::{path::PathBuf, sync::Arc};

use sqlx::{Connection as _, SqliteConnection};

use super::{schema, topics::Topics};

pub(super) struct Connection {
    path: PathBuf,
    topics: Arc<Topics>,
    /// None after a failure: a connection that has failed is not trusted again.
    file: Option<SqliteConnection>,
    /// Whether the last write failed, so that a full disk is logged once and not once a batch.
    failing: bool,
}

impl Connection {
    pub(super) fn new(path: PathBuf, topics: Arc<Topics>, file: SqliteConnection) -> Self {
        Self { path, topics, file: Some(file), failing: false }
    }

    /// The connection, or a new one. A new one reads from the file where the partitions end, so
    /// that what is known here is never ahead of it or behind.
    pub(super) async fn get(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
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

    /// To be told after each attempt to write.
    pub(super) async fn heard<T>(&mut self, outcome: &Result<T, sqlx::Error>) {
        match outcome {
            Ok(_) if self.failing => {
                tracing::info!("the log can be written again");
                self.failing = false;
            }
            Ok(_) => {}
            Err(error) => {
                if !self.failing {
                    tracing::error!(%error, "the log cannot be written; records are refused until it can");
                }
                self.failing = true;
                self.close().await;
            }
        }
    }

    /// Whether the file answers; after a failure, whether it can be written again.
    pub(super) async fn ping(&mut self) -> Result<(), sqlx::Error> {
        let failing = self.failing;
        let asked = match self.get().await {
            Ok(file) if failing => schema::touch(file).await,
            Ok(file) => sqlx::query("SELECT 1 FROM topics LIMIT 1").execute(file).await.map(drop),
            Err(error) => Err(error),
        };
        self.heard(&asked).await;
        asked
    }

    pub(super) async fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // Closing rolls back whatever was left open.
            let _ = file.close().await;
        }
    }

    /// Moves everything into the one file, so that a copy of that file is a copy of the log.
    pub(super) async fn end(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(file).await
        {
            tracing::warn!(%error, "the log's write-ahead log stays until it is opened again");
        }
        self.close().await;
    }
}
