//! The one who writes: a thread with the one connection that does. It takes whatever has queued up
//! while the disk was busy, writes it in one transaction, and so shares one `fsync` between all
//! that wait for one.

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
    insert::insert,
    open::{Lock, primary_code},
    progress::{self, Settle},
    queue::{Append, Item},
    retention::Sweep,
    schema,
    topics::{Partition, Topics},
};
use crate::{AppendError, Position, Topic, TopicError, Unreachable};

/// How many items are taken from the queue at once, and so written in one transaction at most.
const BATCH: usize = 4096;
/// How often old records are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// The pause between the steps of a sweep, so that appends hardly notice it.
const SWEEP_PACE: Duration = Duration::from_millis(20);

pub(super) struct Writer {
    path: PathBuf,
    topics: Arc<Topics>,
    /// None after a failure: a connection that has failed is not trusted again.
    file: Option<SqliteConnection>,
    /// Whether the last write failed, so that a full disk is logged once and not once a batch.
    failing: bool,
    sweep: Sweep,
    closing: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, topics: Arc<Topics>, file: SqliteConnection) -> Self {
        let (file, sweep) = (Some(file), Sweep::default());
        Self { path, topics, file, failing: false, sweep, closing: None }
    }

    /// Starts its thread, which ends when the log is closed or the last handle is dropped.
    pub(super) fn start(
        self,
        items: mpsc::UnboundedReceiver<Item>,
        lock: Arc<Lock>,
    ) -> std::io::Result<()> {
        // A runtime of its own, so that an acknowledgement does not wait for whatever else the
        // process does.
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build()?;
        std::thread::Builder::new().name("log-writer".into()).spawn(move || {
            let closing = runtime.block_on(self.run(items));
            // Whoever waits for the end may open the log again at once.
            drop(lock);
            if let Some(closing) = closing {
                let _ = closing.send(());
            }
        })?;
        Ok(())
    }

    async fn run(
        mut self,
        mut queue: mpsc::UnboundedReceiver<Item>,
    ) -> Option<oneshot::Sender<()>> {
        let mut last = 0;
        let mut items = Vec::with_capacity(BATCH);
        let mut batch = Vec::with_capacity(BATCH);
        let mut hourly = interval(SWEEP_EVERY);
        let mut pace = interval(SWEEP_PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            wait_for_company(&queue, last);
            tokio::select! {
                taken = queue.recv_many(&mut items, BATCH) => {
                    if taken == 0 {
                        break;
                    }
                }
                _ = hourly.tick() => self.sweep.begin(&self.topics, now_ms()),
                _ = pace.tick(), if !self.sweep.is_over() => self.sweep().await,
            }
            last = items.len();
            for item in items.drain(..) {
                match item {
                    Item::Append(append) => batch.push(append),
                    item => {
                        self.commit(&mut batch).await;
                        if let Item::Close(done) = item {
                            // Nobody can append any more; what is in the queue is still written.
                            queue.close();
                            self.closing = Some(done);
                        } else {
                            self.answer(item).await;
                        }
                    }
                }
            }
            self.commit(&mut batch).await;
        }
        self.end().await;
        self.closing
    }

    async fn answer(&mut self, item: Item) {
        match item {
            Item::Settle(settle) => self.settle(settle).await,
            Item::Ensure(topics, answer) => {
                let _ = answer.send(self.ensure(&topics).await);
            }
            Item::Ping(answer) => {
                let _ = answer.send(self.ping().await.map_err(|error| error.to_string()));
            }
            Item::Flush(done) => {
                let _ = done.send(());
            }
            Item::Append(_) | Item::Close(_) => {}
        }
    }

    /// Writes the batch and acknowledges its records, or fails all of them.
    async fn commit(&mut self, batch: &mut Vec<Append>) {
        if batch.is_empty() {
            return;
        }
        // Ends are only moved when the transaction is durable, so that a failed one leaves no trace.
        let mut ends: HashMap<i64, (Arc<Partition>, i64)> = HashMap::new();
        let mut offsets = Vec::with_capacity(batch.len());
        let written = match self.connect().await {
            Ok(file) => {
                for append in batch.iter() {
                    let partition = &append.partition;
                    let (_, end) = ends
                        .entry(partition.id)
                        .or_insert_with(|| (Arc::clone(partition), partition.end()));
                    offsets.push(*end);
                    *end += 1;
                }
                insert(file, batch, &offsets, now_ms())
                    .await
                    .map_err(|error| (not_written(&error), error))
            }
            Err(error) => Err((AppendError::Unreachable(error.to_string()), error)),
        };
        match written {
            Ok(()) => {
                self.recovered();
                for (partition, end) in ends.values() {
                    partition.set_end(*end);
                }
                for (partition, _) in ends.values() {
                    partition.wake();
                }
                for (append, offset) in batch.drain(..).zip(offsets) {
                    let partition = append.partition.number;
                    let _ = append.ack.send(Ok(Position { partition, offset }));
                }
            }
            Err((answer, error)) => {
                self.failed(&error).await;
                for append in batch.drain(..) {
                    let _ = append.ack.send(Err(answer.clone()));
                }
            }
        }
    }

    /// Writes a group's progress and the poison below it.
    async fn settle(&mut self, settle: Settle) {
        let written = match self.connect().await {
            Ok(file) => progress::settle(file, &settle, now_ms()).await,
            Err(error) => Err(error),
        };
        let done = match written {
            Ok(ends) => {
                self.recovered();
                for (partition, end) in &ends {
                    partition.set_end(*end);
                    partition.wake();
                }
                Ok(())
            }
            Err(error) => {
                self.failed(&error).await;
                Err(error.to_string())
            }
        };
        let _ = settle.done.send(done);
    }

    async fn ensure(&mut self, topics: &[Topic]) -> Result<(), TopicError> {
        let all = Arc::clone(&self.topics);
        let file = match self.connect().await {
            Ok(file) => file,
            Err(error) => return Err(Unreachable(error.to_string()).into()),
        };
        for topic in topics {
            let ensured = all.ensure(file, topic).await;
            if let Err(error) = ensured {
                if matches!(error, TopicError::Unreachable(_)) {
                    self.drop_connection().await;
                }
                return Err(error);
            }
        }
        self.sweep.begin(&self.topics, now_ms());
        Ok(())
    }

    /// Whether the file answers; after a failure, whether it can be written again.
    async fn ping(&mut self) -> Result<(), sqlx::Error> {
        let failing = self.failing;
        let file = self.connect().await?;
        let asked = if failing {
            schema::touch(file).await
        } else {
            sqlx::query("SELECT 1 FROM topics LIMIT 1").execute(file).await.map(drop)
        };
        match &asked {
            Ok(()) => self.recovered(),
            Err(error) => self.failed(error).await,
        }
        asked
    }

    async fn sweep(&mut self) {
        let Some(file) = &mut self.file else { return self.sweep.give_up() };
        if let Err(error) = self.sweep.step(file).await {
            tracing::warn!(%error, "old records of the log stay for another hour");
            self.sweep.give_up();
            self.drop_connection().await;
        }
    }

    /// The connection, or a new one. A new one reads from the file where the partitions end, so
    /// that what is known here is never ahead of it or behind.
    async fn connect(&mut self) -> Result<&mut SqliteConnection, sqlx::Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => {
                let mut file = schema::connect_to_write(&self.path).await?;
                self.topics.load(&mut file).await?;
                file
            }
        };
        Ok(self.file.insert(file))
    }

    async fn drop_connection(&mut self) {
        if let Some(file) = self.file.take() {
            // Closing rolls back whatever was left open.
            let _ = file.close().await;
        }
    }

    async fn failed(&mut self, error: &sqlx::Error) {
        if !self.failing {
            tracing::error!(%error, "the log cannot be written; records are refused until it can");
        }
        self.failing = true;
        self.drop_connection().await;
    }

    fn recovered(&mut self) {
        if self.failing {
            tracing::info!("the log can be written again");
        }
        self.failing = false;
    }

    /// Moves everything into the one file, so that a copy of that file is a copy of the log.
    async fn end(&mut self) {
        if let Some(file) = &mut self.file
            && let Err(error) = sqlx::query("PRAGMA wal_checkpoint(TRUNCATE)").execute(file).await
        {
            tracing::warn!(%error, "the log's write-ahead log stays until it is opened again");
        }
        self.drop_connection().await;
    }
}

/// Gives those who were acknowledged just now a moment to append again: one commit for all of them
/// instead of one for the first and another for the rest, which is half as fast. It takes a few
/// microseconds at most, and nothing where few wait for each other.
fn wait_for_company(queue: &mpsc::UnboundedReceiver<Item>, last: usize) {
    for _ in 0..20 {
        if last < 4 || queue.len() >= last {
            return;
        }
        std::thread::yield_now();
    }
}

/// What a failed transaction means for its records. After an error of the disk nobody can say
/// whether a later start finds them: the commit may have arrived there while its `fsync` failed.
/// After any other one the transaction was rolled back.
fn not_written(error: &sqlx::Error) -> AppendError {
    const SQLITE_IOERR: i32 = 10;
    match primary_code(error) {
        Some(code) if code != SQLITE_IOERR => AppendError::Unreachable(error.to_string()),
        _ => AppendError::TimedOut(error.to_string()),
    }
}

fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}
