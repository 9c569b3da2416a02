//! The one who writes: a thread with the one connection that does. It takes whatever has queued up
//! while the disk was busy, writes it in one transaction, and so shares one `fsync` between all
//! that wait for one.

use std::{
    collections::HashMap,
    path::PathBuf,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use sqlx::SqliteConnection;
use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    connection::Connection,
    insert::insert,
    open::{Lock, primary_code},
    progress::{self, ProgressRequest},
    queue::{Append, Item},
    retention::Sweep,
    topics::{EmbeddedPartition, Topics},
};
use crate::{AppendError, LogUnreachable, Position, Topic, TopicError};

/// How many items are taken from the queue at once, and so written in one transaction at most.
const BATCH: usize = 4096;
/// How often old records are looked for.
const SWEEP_EVERY: Duration = Duration::from_secs(3600);
/// The pause between the steps of a sweep, so that appends hardly notice it.
const SWEEP_PACE: Duration = Duration::from_millis(20);

pub(super) struct Writer {
    topics: Arc<Topics>,
    connection: Connection,
    sweep: Sweep,
    closing: Option<oneshot::Sender<()>>,
}

impl Writer {
    pub(super) fn new(path: PathBuf, topics: Arc<Topics>, file: SqliteConnection) -> Self {
        let connection = Connection::new(path, Arc::clone(&topics), file);
        Self { topics, connection, sweep: Sweep::default(), closing: None }
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
        self.connection.end().await;
        self.closing
    }

    async fn answer(&mut self, item: Item) {
        match item {
            Item::Progress(request) => self.answer_progress(request).await,
            Item::Ensure(topics, answer) => {
                let _ = answer.send(self.ensure(&topics).await);
            }
            Item::Ping(answer) => {
                let _ =
                    answer.send(self.connection.ping().await.map_err(|error| error.to_string()));
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
        let mut ends: HashMap<i64, (Arc<EmbeddedPartition>, i64)> = HashMap::new();
        let mut offsets = Vec::with_capacity(batch.len());
        let written = match self.connection.get().await {
            Ok(file) => {
                for append in batch.iter() {
                    let partition = &append.partition;
                    let (_, end) = ends
                        .entry(partition.id)
                        .or_insert_with(|| (Arc::clone(partition), partition.end_offset()));
                    offsets.push(*end);
                    *end += 1;
                }
                insert(file, batch, &offsets, now_ms()).await
            }
            Err(error) => Err(error),
        };
        self.connection.heard(&written).await;
        // Nothing was begun where there was no connection to begin with.
        let begun = !offsets.is_empty();
        match written {
            Ok(()) => {
                publish(ends.values());
                for (append, offset) in batch.drain(..).zip(offsets) {
                    let partition = append.partition.number;
                    let _ = append.ack.send(Ok(Position { partition, offset }));
                }
            }
            Err(error) => {
                let answer = not_written(&error, begun);
                for append in batch.drain(..) {
                    let _ = append.ack.send(Err(answer.clone()));
                }
            }
        }
    }

    async fn answer_progress(&mut self, request: ProgressRequest) {
        let ProgressRequest { group, offsets, answer } = request;
        let outcome = match self.connection.get().await {
            Ok(file) => progress::advance(file, &group, &offsets).await,
            Err(error) => Err(error),
        };
        self.connection.heard(&outcome).await;
        let _ = answer.send(outcome.map_err(|error| error.to_string()));
    }

    async fn ensure(&mut self, topics: &[Topic]) -> Result<(), TopicError> {
        let file = match self.connection.get().await {
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
        self.sweep.begin(&self.topics, now_ms());
        Ok(())
    }

    async fn sweep(&mut self) {
        let swept = match self.connection.get().await {
            Ok(file) => self.sweep.step(file).await,
            Err(error) => Err(error),
        };
        if let Err(error) = swept {
            tracing::warn!(%error, "old records of the log stay for another hour");
            self.sweep.give_up();
            self.connection.close().await;
        }
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

/// Tells the partitions where they end now, then their readers.
fn publish<'a>(ends: impl IntoIterator<Item = &'a (Arc<EmbeddedPartition>, i64)> + Clone) {
    for (partition, end) in ends.clone() {
        partition.set_end_offset(*end);
    }
    for (partition, _) in ends {
        partition.wake_readers();
    }
}

/// What a failed transaction means for its records. After an error of the disk nobody can say
/// whether a later start finds them: the commit may have arrived there while its `fsync` failed.
/// After any other one the transaction was rolled back.
fn not_written(error: &sqlx::Error, begun: bool) -> AppendError {
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
