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
use tokio::{
    sync::{mpsc::UnboundedReceiver, watch},
    time::timeout,
};

use super::{
    headers::{self, Headers},
    member::{Member, Membership},
    open::Lock,
    schema,
    topics::{Partition, TopicState, Topics},
};
use crate::{
    Extent, Fold, Record, Verdict,
    reader::{Command, Follower, Reader},
};

/// Records that are read in one statement. Between two of them the write-ahead log can be emptied,
/// and live partitions get their turn.
const CHUNK: i64 = 1024;
/// The longest that nothing is called, and that a stop is not noticed.
const IDLE: Duration = Duration::from_millis(50);
/// How long to wait after a failed read, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// See [`Log::join`](crate::Log::join).
pub(super) fn join<F: Fold>(source: Source, membership: Membership, fold: F) -> Reader {
    let signs = Arc::clone(&membership.signs);
    Reader::spawn("log-reader", &signs, move |stop| {
        source.run(fold, Role::Member(membership), stop);
    })
}

/// See [`Log::follow`](crate::Log::follow).
pub(super) fn follow<F: Fold>(source: Source, fold: F) -> Follower {
    Follower::spawn("log-follower", move |stop, commands| {
        source.run(fold, Role::Follower(commands), stop);
    })
}

/// Who reads.
enum Role {
    /// Every partition.
    Member(Membership),
    /// What it is told.
    Follower(UnboundedReceiver<Command>),
}

/// What is read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) topics: Arc<Topics>,
    /// The file is in use for as long as this lives.
    pub(super) lock: Option<Arc<Lock>>,
    pub(super) topic: String,
}

impl Source {
    fn run<F: Fold>(self, fold: F, role: Role, stop: &AtomicBool) {
        // A runtime of its own: folding blocks its thread, and must not wait for anyone else.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = find(&self.topics, &self.topic, stop).await {
                    let (member, commands) = match role {
                        Role::Follower(commands) => (None, Some(commands)),
                        Role::Member(membership) => {
                            let topics = Arc::clone(&self.topics);
                            (Some(Member::new(membership, &self.topic, topics)), None)
                        }
                    };
                    let (path, topic, moved) = (self.path, self.topic, state.watch());
                    let (partitions, ticked) = (Vec::new(), Instant::now());
                    let folding = Folding {
                        path,
                        topic,
                        state,
                        fold,
                        member,
                        commands,
                        stop,
                        file: None,
                        partitions,
                        moved,
                        ticked,
                    };
                    folding.run().await;
                }
            }),
            Err(error) => tracing::error!(%error, "no runtime for the reader of the log"),
        }
        // The file was in use until now.
        drop(self.lock);
    }
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

impl Progress {
    fn position(&self) -> (Arc<Partition>, i64) {
        (Arc::clone(&self.partition), self.next)
    }
}

struct Folding<'s, F> {
    path: PathBuf,
    topic: String,
    state: Arc<TopicState>,
    fold: F,
    /// None: nobody's progress is kept.
    member: Option<Member>,
    /// None: every partition is read.
    commands: Option<UnboundedReceiver<Command>>,
    stop: &'s AtomicBool,
    file: Option<SqliteConnection>,
    partitions: Vec<Progress>,
    moved: watch::Receiver<()>,
    ticked: Instant,
}

impl<F: Fold> Folding<'_, F> {
    async fn run(mut self) {
        if self.commands.is_none() {
            let all = self.state.partitions.clone();
            self.assign(&all);
        }
        let mut backoff = BACKOFF.0;
        let mut failing = false;
        while !self.stop.load(Ordering::Acquire) {
            self.obey(None);
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
            self.keep_progress();
            self.tick_if_due();
        }
        for progress in &self.partitions {
            self.fold.revoked(progress.partition.number);
        }
        if let Some(member) = &mut self.member {
            let progress: Vec<_> = self.partitions.iter().map(Progress::position).collect();
            member.close(&progress).await;
        }
        if let Some(file) = self.file.take() {
            let _ = file.close().await;
        }
    }

    fn assign(&mut self, partitions: &[Arc<Partition>]) {
        let first = self.partitions.len();
        for partition in partitions {
            let (next, high) = (partition.start(), partition.end());
            let partition = Arc::clone(partition);
            self.fold.assigned(partition.number);
            self.partitions.push(Progress { partition, next, high, live: false });
        }
        for progress in &self.partitions[first..] {
            let extent = Extent { low: progress.next, high: progress.high };
            self.fold.extent(progress.partition.number, extent);
        }
    }

    /// Does this, and everything else that it was told.
    fn obey(&mut self, first: Option<Command>) {
        let mut command = first;
        loop {
            let next = || self.commands.as_mut()?.try_recv().ok();
            let Some(command) = command.take().or_else(next) else { return };
            let (Command::Assign(number) | Command::Revoke(number)) = command;
            let read = self.partitions.iter().position(|p| p.partition.number == number);
            match (command, read) {
                (Command::Assign(_), None) => {
                    let index = usize::try_from(number).ok();
                    match index.and_then(|index| self.state.partitions.get(index)).cloned() {
                        Some(partition) => self.assign(&[partition]),
                        None => tracing::error!(
                            log.topic = self.topic,
                            log.partition = number,
                            "there is no such partition to follow",
                        ),
                    }
                }
                (Command::Revoke(_), Some(read)) => {
                    self.partitions.remove(read);
                    self.fold.revoked(number);
                }
                (Command::Assign(_), Some(_)) | (Command::Revoke(_), None) => {}
            }
        }
    }

    /// Reads what live partitions have got, then a little more of the first that is not live.
    /// False: there was nothing to read.
    async fn advance(&mut self) -> Result<bool, sqlx::Error> {
        let mut advanced = false;
        // Seen before the ends are, so that no later move is missed.
        self.moved.mark_unchanged();
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
        if let Some(member) = &mut self.member {
            member.know(file, &self.state.partitions).await?;
        }
        let progress = &mut self.partitions[index];
        let start = progress.partition.start();
        if progress.next < start {
            tracing::error!(
                log.topic = self.topic,
                log.partition = progress.partition.number,
                log.offset = progress.next,
                missing = start - progress.next,
                "retention removed records that were not read yet: {} offsets are missing",
                start - progress.next,
            );
            progress.next = start;
        }
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
            if let Verdict::Poison(reason) = self.fold.record(&record)
                && let Some(member) = &mut self.member
            {
                member.poison(&progress.partition, &record, &reason).await;
            }
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

    /// Waits until a partition has moved or a command has come, or for as long as nobody minds.
    async fn wait(&mut self) {
        let moved = timeout(IDLE, self.moved.changed());
        let command = match &mut self.commands {
            None => {
                let _ = moved.await;
                None
            }
            Some(commands) => tokio::select! {
                _ = moved => None,
                Some(command) = commands.recv() => Some(command),
            },
        };
        self.obey(command);
    }

    fn keep_progress(&mut self) {
        if let Some(member) = &mut self.member {
            member.step(self.partitions.iter().map(Progress::position), false);
        }
    }

    async fn pause(&mut self, pause: Duration) {
        let until = Instant::now() + pause;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            tokio::time::sleep(IDLE.min(pause)).await;
            self.tick_if_due();
        }
    }

    fn tick_if_due(&mut self) {
        if self.ticked.elapsed() >= IDLE {
            self.ticked = Instant::now();
            self.fold.tick();
        }
    }
}

fn record<'r>(row: &'r SqliteRow, partition: &Partition) -> Result<Record<'r>, sqlx::Error> {
    let offset = Partition::offset(row.try_get(0)?);
    let headers = headers::decode(row.try_get(3)?).unwrap_or_else(|_| {
        tracing::error!(
            log.partition = partition.number,
            log.offset = offset,
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
