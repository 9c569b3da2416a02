//! The writer's thread, which owns the one connection that writes. It appends all records that queued
//! up during the last `fsync` in one transaction, so that they share one `fsync`.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::{Connection as _, SqliteConnection};
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    insert::insert_records,
    open::{FileLock, primary_code},
    progress,
    queue::{QueuedAppend, WriterRequest},
    retention::Sweep,
    schema,
    topics::{EmbeddedPartition, Topics},
};
use crate::{AppendError, LogUnreachable, Position, Topic, TopicError};

/// Requests taken from the queue at once, and so records of one transaction.
const MAX_BATCH: usize = 4096;
/// How often retention runs.
const SWEEP_INTERVAL: Duration = Duration::from_secs(3600);
/// Pause between the steps of retention, which delay appends.
const SWEEP_STEP_DELAY: Duration = Duration::from_millis(20);

pub(super) struct WriterThread {
    topics: Arc<Topics>,
    connection: WriteConnection,
    sweep: Sweep,
    closing: Option<oneshot::Sender<()>>,
}

impl WriterThread {
    pub(super) fn new(path: PathBuf, topics: Arc<Topics>, file: SqliteConnection) -> Self {
        let connection = WriteConnection::new(path, Arc::clone(&topics), file);
        Self { topics, connection, sweep: Sweep::default(), closing: None }
    }

    /// Starts the thread, which ends when the log is closed or the last handle is dropped.
    pub(super) fn spawn_thread(
        self,
        requests: mpsc::UnboundedReceiver<WriterRequest>,
        lock: Arc<FileLock>,
    ) -> std::io::Result<()> {
        // A runtime of its own, so that an acknowledgement does not wait for other tasks.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            let closing = runtime.block_on(self.run_requests(requests));
            // The caller of `close` may open the log again at once.
            drop(lock);
            if let Some(closing) = closing {
                let _ = closing.send(());
            }
        })?;
        Ok(())
    }

    async fn run_requests(
        mut self,
        mut queue: mpsc::UnboundedReceiver<WriterRequest>,
    ) -> Option<oneshot::Sender<()>> {
        let mut last = 0;
        let mut requests = Vec::with_capacity(MAX_BATCH);
        let mut batch = Vec::with_capacity(MAX_BATCH);
        let mut hourly = interval(SWEEP_INTERVAL);
        let mut pace = interval(SWEEP_STEP_DELAY);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            wait_for_appenders(&queue, last);
            tokio::select! {
                taken = queue.recv_many(&mut requests, MAX_BATCH) => {
                    if taken == 0 {
                        break;
                    }
                }
                _ = hourly.tick() => self.sweep.restart(&self.topics, now_ms()),
                _ = pace.tick(), if !self.sweep.is_over() => self.step_sweep().await,
            }
            last = requests.len();
            for request in requests.drain(..) {
                match request {
                    WriterRequest::Append(append) => batch.push(append),
                    request => {
                        self.append_batch(&mut batch).await;
                        if let WriterRequest::Close(done) = request {
                            // Later requests fail; the queued ones are still answered.
                            queue.close();
                            self.closing = Some(done);
                        } else {
                            self.answer_request(request).await;
                        }
                    }
                }
            }
            self.append_batch(&mut batch).await;
        }
        self.connection.checkpoint_and_close().await;
        self.closing
    }

    async fn answer_request(&mut self, request: WriterRequest) {
        match request {
            WriterRequest::Progress { group, offsets, answer } => {
                let advance = async |file: &mut SqliteConnection| {
                    progress::advance_progress(file, &group, &offsets).await
                };
                let outcome = self.connection.write(advance).await;
                let _ = answer.send(outcome.map_err(|error| error.to_string()));
            }
            WriterRequest::Ensure(topics, answer) => {
                let _ = answer.send(self.ensure_topics(&topics).await);
            }
            WriterRequest::Ping(answer) => {
                let outcome = self.connection.ping_file().await;
                let _ = answer.send(outcome.map_err(|error| error.to_string()));
            }
            WriterRequest::Flush(done) => {
                let _ = done.send(());
            }
            WriterRequest::Append(_) | WriterRequest::Close(_) => {}
        }
    }

    /// Appends the batch and acknowledges its records, or fails all of them.
    async fn append_batch(&mut self, batch: &mut Vec<QueuedAppend>) {
        if batch.is_empty() {
            return;
        }
        // The ends move only once the transaction is durable.
        let mut ends: HashMap<i64, (Arc<EmbeddedPartition>, i64)> = HashMap::new();
        let mut offsets = Vec::with_capacity(batch.len());
        let write = async |file: &mut SqliteConnection| {
            for append in batch.iter() {
                let partition = &append.partition;
                let (_, end) = ends
                    .entry(partition.id)
                    .or_insert_with(|| (Arc::clone(partition), partition.end_offset()));
                offsets.push(*end);
                *end += 1;
            }
            insert_records(file, batch, &offsets, now_ms()).await
        };
        let written = self.connection.write(write).await;
        // Without a connection, no transaction began.
        let begun = !offsets.is_empty();
        match written {
            Ok(()) => {
                // The readers wake once all ends have moved.
                ends.values().for_each(|(partition, end)| partition.set_end_offset(*end));
                ends.values().for_each(|(partition, _)| partition.wake_readers());
                for (append, offset) in batch.drain(..).zip(offsets) {
                    let (partition, epoch) =
                        (append.partition.number, Some(append.partition.epoch));
                    let _ = append.ack.send(Ok(Position { partition, offset, epoch }));
                }
            }
            Err(error) => {
                let answer = append_error(&error, begun);
                for append in batch.drain(..) {
                    let _ = append.ack.send(Err(answer.clone()));
                }
            }
        }
    }

    async fn ensure_topics(&mut self, topics: &[Topic]) -> Result<(), TopicError> {
        let file = match self.connection.get_or_connect().await {
            Ok(file) => file,
            Err(error) => return Err(LogUnreachable(error.to_string()).into()),
        };
        for topic in topics {
            if let Err(error) = self.topics.ensure_topic(file, topic).await {
                if matches!(error, TopicError::Unreachable(_)) {
                    self.connection.close().await;
                }
                return Err(error);
            }
        }
        self.sweep.restart(&self.topics, now_ms());
        Ok(())
    }

    async fn step_sweep(&mut self) {
        let swept = match self.connection.get_or_connect().await {
            Ok(file) => self.sweep.run_step(file).await,
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            tracing::warn!(%error, "retention failed; the next attempt is in an hour");
            self.sweep.cancel();
            self.connection.close().await;
        }
    }
}

/// Lets the senders of the last batch append again before the next transaction begins. Otherwise the
/// first of them would get a transaction alone, which halves the throughput. It takes a few
/// microseconds at most, and returns at once after a small batch.
fn wait_for_appenders(queue: &mpsc::UnboundedReceiver<WriterRequest>, last: usize) {
    for _ in 0..20 {
        if last < 4 || queue.len() >= last {
            return;
        }
        std::thread::yield_now();
    }
}

/// The error for the records of a failed transaction. After an I/O error they may be in the file: the
/// commit may be written although its `fsync` failed. After any other error they were rolled back.
fn append_error(error: &sqlx::Error, begun: bool) -> AppendError {
    const SQLITE_IOERR: i32 = 10;
    match primary_code(error) {
        Some(SQLITE_IOERR) | None if begun => AppendError::TimedOut(error.to_string()),
        _ => AppendError::Unreachable(error.to_string()),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// The one connection that writes, which is replaced after a failure.
struct WriteConnection {
    path: PathBuf,
    topics: Arc<Topics>,
    /// `None` after a failure: a failed connection is not used again.
    file: Option<SqliteConnection>,
    /// The last write failed. A full disk is logged once, not once a batch.
    failing: bool,
}

impl WriteConnection {
    fn new(path: PathBuf, topics: Arc<Topics>, file: SqliteConnection) -> Self {
        Self { path, topics, file: Some(file), failing: false }
    }

    /// The connection, or a new one. A new one reads the ends of the partitions from the file, because
    /// the outcome of the last transaction is not known.
    async fn get_or_connect(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
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
    async fn write<T>(
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
    async fn ping_file(&mut self) -> Result<(), sqlx::Error> {
        // The update changes no value: it finds out if the disk accepts writes.
        let ping = if self.failing {
            "UPDATE partitions SET start_offset = start_offset WHERE id = 1"
        } else {
            "SELECT 1 FROM topics LIMIT 1"
        };
        self.write(async |file| sqlx::query(ping).execute(file).await.map(drop)).await
    }

    async fn close(&mut self) {
        if let Some(file) = self.file.take() {
            // Closing rolls an open transaction back.
            let _ = file.close().await;
        }
    }

    /// Empties the write-ahead log, so that a copy of the one file is a copy of the log, and closes.
    async fn checkpoint_and_close(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(file).await
        {
            tracing::warn!(%error, "the write-ahead log is not emptied");
        }
        self.close().await;
    }
}
