//! Reading: a thread that replays every partition from its beginning and then follows its end. It
//! reads when the writer says that something was committed, and never asks the file otherwise.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};
use tokio::{sync::watch, time::timeout};

use super::{
    headers::{self, Headers},
    open::Lock,
    schema,
    topics::{Partition, TopicState, Topics},
};
use crate::{Extent, Fold, Reader, Record};

/// Records that are read in one statement. Between two of them the write-ahead log can be emptied,
/// and live partitions get their turn.
const CHUNK: i64 = 1024;
/// The longest that nothing is called, and that a stop is not noticed.
const IDLE: Duration = Duration::from_millis(50);
/// How long to wait after a failed read, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// See [`Log::join`](crate::Log::join).
pub(super) fn join<F: Fold>(
    path: PathBuf,
    topics: Arc<Topics>,
    lock: Option<Arc<Lock>>,
    topic: String,
    fold: F,
) -> Reader {
    Reader::spawn("log-reader", move |stop| {
        // A runtime of its own: folding blocks its thread, and must not wait for anyone else.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = find(&topics, &topic, stop).await {
                    Follower::new(path, topic, &state, fold, stop).run().await;
                }
            }),
            Err(error) => tracing::error!(%error, "no runtime for the reader of the log"),
        }
        // The file was in use until now.
        drop(lock);
    })
}

/// The topic; waited for, should it not be there yet.
async fn find(topics: &Topics, name: &str, stop: &AtomicBool) -> Option<Arc<TopicState>> {
    let mut told = false;
    while !stop.load(Ordering::Acquire) {
        if let Some(topic) = topics.get(name) {
            return Some(topic);
        }
        if !told {
            tracing::warn!(log.topic = name, "there is no such topic; waiting for it");
            told = true;
        }
        tokio::time::sleep(IDLE).await;
    }
    None
}

/// How far a partition was read.
struct Progress {
    partition: Arc<Partition>,
    next: i64,
    /// Where it ended when it was assigned: it is live from there on.
    high: i64,
    live: bool,
}

struct Follower<'s, F> {
    path: PathBuf,
    topic: String,
    fold: F,
    stop: &'s AtomicBool,
    file: Option<SqliteConnection>,
    partitions: Vec<Progress>,
    moved: Option<watch::Receiver<()>>,
    idle: Instant,
}

impl<'s, F: Fold> Follower<'s, F> {
    fn new(path: PathBuf, topic: String, state: &TopicState, fold: F, stop: &'s AtomicBool) -> Self {
        let moved = state.partitions.first().map(|partition| partition.watch());
        let partitions = state.partitions.iter().map(|partition| Progress {
            partition: Arc::clone(partition),
            next: partition.start(),
            high: partition.end(),
            live: false,
        });
        let partitions = partitions.collect();
        Self { path, topic, fold, stop, file: None, partitions, moved, idle: Instant::now() }
    }

    async fn run(mut self) {
        for progress in &self.partitions {
            self.fold.assigned(progress.partition.number);
        }
        for progress in &self.partitions {
            let extent = Extent { low: progress.next, high: progress.high };
            self.fold.extent(progress.partition.number, extent);
        }
        let mut backoff = BACKOFF.0;
        let mut failing = false;
        while !self.stop.load(Ordering::Acquire) {
            match self.advance().await {
                Ok(advanced) => {
                    if failing {
                        tracing::info!(log.topic = self.topic, "the log can be read again");
                    }
                    (failing, backoff) = (false, BACKOFF.0);
                    if !advanced {
                        self.wait().await;
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(log.topic = self.topic, %error, "the log cannot be read; trying again");
                    }
                    failing = true;
                    // A connection that has failed is not trusted again.
                    if let Some(file) = self.file.take() {
                        let _ = file.close().await;
                    }
                    self.pause(backoff).await;
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
            self.idle_if_due();
        }
        for progress in &self.partitions {
            self.fold.revoked(progress.partition.number);
        }
        if let Some(file) = self.file.take() {
            let _ = file.close().await;
        }
    }

    /// Reads what live partitions have got, then a little more of the first that is not live.
    /// False: there was nothing to read.
    async fn advance(&mut self) -> Result<bool, sqlx::Error> {
        let mut advanced = false;
        // Seen before the ends are, so that no later move is missed.
        if let Some(moved) = &mut self.moved {
            moved.mark_unchanged();
        }
        for index in 0..self.partitions.len() {
            let progress = &self.partitions[index];
            let end = progress.partition.end();
            if progress.live && progress.next < end {
                self.read(index, end).await?;
                advanced = true;
            }
        }
        if let Some(index) = self.partitions.iter().position(|progress| !progress.live) {
            let progress = &self.partitions[index];
            if progress.next < progress.high {
                self.read(index, progress.high).await?;
            }
            let progress = &mut self.partitions[index];
            if progress.next >= progress.high {
                progress.live = true;
                self.fold.live(progress.partition.number);
            }
            advanced = true;
        }
        Ok(advanced)
    }

    /// Reads a chunk of a partition, not beyond `end`.
    async fn read(&mut self, index: usize, end: i64) -> Result<(), sqlx::Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => schema::connect_to_read(&self.path).await?,
        };
        let file = self.file.insert(file);
        let progress = &mut self.partitions[index];
        let mut rows = sqlx::query(
            "SELECT place, timestamp, key, headers, value FROM records
             WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
        )
        .bind(progress.partition.place(progress.next))
        .bind(progress.partition.place(end))
        .bind(CHUNK)
        .fetch(file);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let record = record(&row, &progress.partition)?;
            self.fold.record(&record);
            // Only now, so that an error before it loses nothing and one after it doubles nothing.
            progress.next = record.offset + 1;
            count += 1;
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        if count < CHUNK {
            // The rest are offsets whose records are gone.
            progress.next = end;
        }
        Ok(())
    }

    /// Waits until a partition has moved, or for as long as nobody minds.
    async fn wait(&mut self) {
        match &mut self.moved {
            Some(moved) => {
                let _ = timeout(IDLE, moved.changed()).await;
            }
            None => tokio::time::sleep(IDLE).await,
        }
    }

    async fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            tokio::time::sleep(IDLE.min(pause)).await;
            self.idle_if_due();
        }
    }

    fn idle_if_due(&mut self) {
        if self.idle.elapsed() >= IDLE {
            self.idle = Instant::now();
            self.fold.idle();
        }
    }
}

fn record<'r>(row: &'r SqliteRow, partition: &Partition) -> Result<Record<'r>, sqlx::Error> {
    let offset = Partition::offset(row.try_get(0)?);
    let headers = headers::decode(row.try_get(3)?).unwrap_or_else(|_| {
        tracing::error!(
            log.partition = partition.number, log.offset = offset,
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
