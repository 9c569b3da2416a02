//! Folding: every partition is replayed from where the fold says, and then followed at its end. The file
//! is read when the writer says that something was committed, and never asked otherwise.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use futures_util::TryStreamExt as _;
use sqlx::{Connection as _, SqliteConnection};
use tokio::{
    sync::{mpsc::UnboundedReceiver, watch},
    time::timeout,
};

use super::{
    rows::{self, CHUNK},
    schema,
    topics::{Partition, TopicState},
};
use crate::{
    PartitionHandler, RecordAnchor, RecordOutcome, Watermarks, offset_tracker::OffsetTracker,
    reader::Command,
};

/// The longest that nothing is called, and that a stop is not noticed.
const IDLE: Duration = Duration::from_millis(50);
/// How long to wait after a failed read, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));

/// How often progress is reported to be committed.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// How far a partition was read.
struct Progress {
    partition: Arc<Partition>,
    /// What the fold has from an earlier time: the record at `next` must be this one.
    proof: Option<RecordAnchor>,
    next: i64,
    /// Where it ended when it was assigned: it is live from there on.
    high: i64,
    live: bool,
}

impl Progress {
    fn position(&self) -> (i32, i64) {
        // What is not proven says nothing of how far the group is.
        let next = if self.proof.is_some() { 0 } else { self.next };
        (self.partition.number, next)
    }
}

pub(super) struct Folding<'s, F> {
    path: PathBuf,
    topic: String,
    state: Arc<TopicState>,
    fold: F,
    /// None: nobody's progress is kept.
    tracker: Option<Arc<OffsetTracker>>,
    /// None: every partition is read.
    commands: Option<UnboundedReceiver<Command>>,
    stop: &'s AtomicBool,
    file: Option<SqliteConnection>,
    partitions: Vec<Progress>,
    moved: watch::Receiver<()>,
    ticked: Instant,
    reported: Instant,
}

impl<'s, F: PartitionHandler> Folding<'s, F> {
    pub(super) fn new(
        path: PathBuf,
        topic: String,
        state: Arc<TopicState>,
        fold: F,
        tracker: Option<Arc<OffsetTracker>>,
        commands: Option<UnboundedReceiver<Command>>,
        stop: &'s AtomicBool,
    ) -> Self {
        let (file, partitions, moved, now) = (None, Vec::new(), state.watch(), Instant::now());
        Self {
            path,
            topic,
            state,
            fold,
            tracker,
            commands,
            stop,
            file,
            partitions,
            moved,
            ticked: now,
            reported: now,
        }
    }

    pub(super) async fn run(mut self) {
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
            self.report_progress(REPORT_INTERVAL);
            self.tick_if_due();
        }
        for progress in &self.partitions {
            self.fold.on_revoked(progress.partition.number);
        }
        self.report_progress(Duration::ZERO);
        if let Some(file) = self.file.take() {
            let _ = file.close().await;
        }
    }

    fn assign(&mut self, partitions: &[Arc<Partition>]) {
        let first = self.partitions.len();
        for partition in partitions {
            let progress = self.begin(partition);
            self.partitions.push(progress);
        }
        for progress in &self.partitions[first..] {
            let extent = Watermarks { low: progress.partition.start(), high: progress.high };
            self.fold.on_watermarks(progress.partition.number, extent);
        }
    }

    fn begin(&mut self, partition: &Arc<Partition>) -> Progress {
        let proof = self.fold.on_assigned(partition.number).anchor();
        let next = proof.map_or(partition.start(), |mark| mark.offset);
        if let Some(tracker) = &self.tracker {
            tracker.begin_assignment(partition.number, proof.map(|mark| mark.offset + 1));
        }
        let (partition, high) = (Arc::clone(partition), partition.end());
        Progress { partition, proof, next, high, live: false }
    }

    /// What the fold has of this partition does not count: it starts over.
    fn start_over(&mut self, index: usize, why: &str) {
        let partition = Arc::clone(&self.partitions[index].partition);
        self.fold.on_reset(partition.number, why);
        self.fold.on_revoked(partition.number);
        let mut progress = self.begin(&partition);
        (progress.proof, progress.next) = (None, partition.start());
        let extent = Watermarks { low: progress.next, high: progress.high };
        self.partitions[index] = progress;
        self.fold.on_watermarks(partition.number, extent);
    }

    /// Looks for the record that proves what the fold has of this partition.
    async fn prove(&mut self, index: usize, proof: RecordAnchor) -> Result<(), sqlx::Error> {
        let file = match self.file.take() {
            Some(file) => file,
            None => schema::connect_to_read(&self.path).await?,
        };
        let file = self.file.insert(file);
        let partition = Arc::clone(&self.partitions[index].partition);
        let row = {
            let mut rows = rows::fetch(file, &partition, proof.offset, proof.offset + 1);
            rows.try_next().await?
        };
        let found = match &row {
            Some(row) => Some(rows::record(row, &partition)?.anchor()),
            None => None,
        };
        let why = match found {
            Some(found) if found == proof => {
                let progress = &mut self.partitions[index];
                (progress.proof, progress.next) = (None, proof.offset + 1);
                return Ok(());
            }
            Some(_) => "the log has another record in the place of its last one: it is another log",
            None => "its last record is not in the log any more",
        };
        tracing::warn!(
            log.topic = self.topic,
            log.partition = partition.number,
            "what was kept of this partition is not used ({why}); it is read from its beginning",
        );
        self.start_over(index, why);
        Ok(())
    }

    /// Starts those over of which the fold wants that, or that began above the committed offset.
    fn look(&mut self) {
        if let Some(number) = self.tracker.as_ref().and_then(|tracker| tracker.next_behind())
            && let Some(index) = self.partitions.iter().position(|p| p.partition.number == number)
        {
            let why = "its start is above the committed offset, so poison records might be missed";
            self.start_over(index, why);
        }
        if let Some(number) = self.fold.take_invalidated()
            && let Some(index) = self.partitions.iter().position(|p| p.partition.number == number)
        {
            self.start_over(index, "the other topic has shown that it does not count");
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
                    self.fold.on_revoked(number);
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
            if let Some(proof) = self.partitions[index].proof {
                self.prove(index, proof).await?;
            }
            let progress = &self.partitions[index];
            if progress.next < progress.high {
                self.read(index, progress.high).await?;
            }
            let progress = &mut self.partitions[index];
            if progress.next >= progress.high {
                progress.live = true;
                self.fold.on_live(progress.partition.number);
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
        let start = progress.partition.start();
        if progress.next < start {
            // In a replay that is as it should be: they are too old, and would have been gone before.
            if progress.live {
                tracing::error!(
                    log.topic = self.topic,
                    log.partition = progress.partition.number,
                    log.offset = progress.next,
                    missing = start - progress.next,
                    "retention removed records that were not read yet",
                );
            }
            progress.next = start;
        }
        let mut rows = rows::fetch(file, &progress.partition, progress.next, end);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let record = rows::record(&row, &progress.partition)?;
            if let RecordOutcome::Poison(reason) = self.fold.on_record(&record)
                && let Some(tracker) = &self.tracker
            {
                tracker.add_poison(&record, &reason);
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

    fn report_progress(&mut self, interval: Duration) {
        if let Some(tracker) = &self.tracker
            && self.reported.elapsed() >= interval
        {
            self.reported = Instant::now();
            tracker.record_progress(self.partitions.iter().map(Progress::position));
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
            self.fold.renew_lease();
            self.look();
        }
    }
}
