//! Drives the records of each assigned partition into the handler: executes the actions of
//! [`PartitionState`]. It reads the file only when the writer has signalled a commit.

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
    rows::{self, MAX_CHUNK},
    schema,
    topics::{Partition, TopicState},
};
use crate::{
    PartitionHandler, Record, RecordOutcome, Watermarks,
    offset_tracker::OffsetTracker,
    partition_state::{Action, Actions, PartitionState, ResetReason},
    reader::FollowerCommand,
};

/// How often the lease is renewed. A stop is noticed after this at the latest.
const TICK_INTERVAL: Duration = Duration::from_millis(50);
/// How long to wait after a failed read, at first and at most.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How often progress is committed. Only lag tools depend on it.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);

struct AssignedPartition {
    partition: Arc<Partition>,
    state: PartitionState,
}

pub(super) struct EmbeddedDriver<'s, H> {
    path: PathBuf,
    topic: String,
    topic_state: Arc<TopicState>,
    handler: H,
    /// `None` for a follower.
    tracker: Option<Arc<OffsetTracker>>,
    /// `None` for a member of a group, which reads every partition.
    commands: Option<UnboundedReceiver<FollowerCommand>>,
    stop: &'s AtomicBool,
    file: Option<SqliteConnection>,
    partitions: Vec<AssignedPartition>,
    moved: watch::Receiver<()>,
    ticked_at: Instant,
    recorded_at: Instant,
}

impl<'s, H: PartitionHandler> EmbeddedDriver<'s, H> {
    pub(super) fn new(
        path: PathBuf,
        topic: String,
        topic_state: Arc<TopicState>,
        handler: H,
        tracker: Option<Arc<OffsetTracker>>,
        commands: Option<UnboundedReceiver<FollowerCommand>>,
        stop: &'s AtomicBool,
    ) -> Self {
        let moved = topic_state.watch();
        Self {
            path,
            topic,
            topic_state,
            handler,
            tracker,
            commands,
            stop,
            file: None,
            partitions: Vec::new(),
            moved,
            ticked_at: Instant::now(),
            recorded_at: Instant::now(),
        }
    }

    pub(super) async fn run(mut self) {
        if self.commands.is_none() {
            let all = self.topic_state.partitions.clone();
            self.assign_partitions(&all);
        }
        let mut delay = MIN_RETRY_DELAY;
        let mut failing = false;
        while !self.stop.load(Ordering::Acquire) {
            self.obey_commands(None);
            match self.read_partitions().await {
                Ok(has_read) => {
                    if failing {
                        tracing::info!(log.topic = self.topic, "the log can be read again");
                    }
                    (failing, delay) = (false, MIN_RETRY_DELAY);
                    if !has_read {
                        self.wait_for_change().await;
                    }
                }
                Err(error) => {
                    if !failing {
                        tracing::error!(log.topic = self.topic, %error, "cannot read the log; retrying");
                    }
                    failing = true;
                    self.wait_to_retry(delay).await;
                    delay = (delay * 2).min(MAX_RETRY_DELAY);
                }
            }
            if self.recorded_at.elapsed() >= COMMIT_INTERVAL {
                self.record_progress();
            }
            self.tick_if_due();
        }
        for assigned in &self.partitions {
            self.handler.on_revoked(assigned.partition.number);
        }
        self.record_progress();
        if let Some(file) = self.file.take() {
            let _ = file.close().await;
        }
    }

    fn assign_partitions(&mut self, partitions: &[Arc<Partition>]) {
        let first = self.partitions.len();
        for partition in partitions {
            let start = self.handler.on_assigned(partition.number);
            let state = PartitionState::new(start, Some(partition.start()));
            self.begin_tracking(partition.number, state);
            self.partitions.push(AssignedPartition { partition: Arc::clone(partition), state });
        }
        for index in first..self.partitions.len() {
            self.report_watermarks(index);
        }
    }

    fn begin_tracking(&self, number: i32, state: PartitionState) {
        if let Some(tracker) = &self.tracker {
            tracker.begin_assignment(number, state.anchor().map(|anchor| anchor.offset + 1));
        }
    }

    /// Reports to the tracker how far each partition was applied.
    fn record_progress(&mut self) {
        self.recorded_at = Instant::now();
        if let Some(tracker) = &self.tracker {
            tracker.record_progress(self.partitions.iter().filter_map(|assigned| {
                Some((assigned.partition.number, assigned.state.next_offset()?))
            }));
        }
    }

    fn report_watermarks(&mut self, index: usize) {
        let partition = &self.partitions[index].partition;
        let watermarks = Watermarks { low: partition.start(), high: partition.end() };
        self.handler.on_watermarks(partition.number, watermarks);
        self.transition(index, None, |state| state.on_watermarks(watermarks));
    }

    fn find_partition(&self, number: i32) -> Option<usize> {
        self.partitions.iter().position(|assigned| assigned.partition.number == number)
    }

    /// Executes the actions that follow from an event.
    fn transition(
        &mut self,
        index: usize,
        record: Option<&Record<'_>>,
        event: impl FnOnce(&mut PartitionState) -> Actions,
    ) {
        let AssignedPartition { partition, state } = &mut self.partitions[index];
        let (number, low, was_live) = (partition.number, partition.start(), state.is_live());
        for action in event(state) {
            match action {
                Action::Reset(reason) => self.reset_partition(index, reason),
                Action::Apply => {
                    if let Some(record) = record
                        && let RecordOutcome::Poison(reason) = self.handler.on_record(record)
                        && let Some(tracker) = &self.tracker
                    {
                        tracker.add_poison(record, &reason);
                    }
                }
                Action::BecomeLive => self.handler.on_live(number),
                Action::AskAboutGap(gap) => {
                    let missing = gap.count_lost(low);
                    // Not in a replay: a later one would not have found these records either.
                    if was_live && missing > 0 {
                        tracing::error!(
                            log.topic = self.topic,
                            log.partition = number,
                            log.offset = gap.from,
                            missing,
                            "retention removed {missing} offsets before they were read",
                        );
                    }
                }
                // This driver never asks for it: the end of a partition never moves back.
                Action::ConfirmEndOffset { .. } => {}
            }
        }
    }

    fn reset_partition(&mut self, index: usize, reason: ResetReason) {
        let number = self.partitions[index].partition.number;
        let text = reason.text();
        tracing::warn!(
            log.topic = self.topic,
            log.partition = number,
            "partition is reset and read from its beginning: {text}",
        );
        self.handler.on_reset(number, text);
        self.handler.on_revoked(number);
        self.handler.on_assigned(number);
        self.begin_tracking(number, self.partitions[index].state);
        self.report_watermarks(index);
    }

    /// Obeys this command and every other one that has arrived.
    fn obey_commands(&mut self, first: Option<FollowerCommand>) {
        let mut first = first;
        loop {
            let next = || self.commands.as_mut()?.try_recv().ok();
            let Some(command) = first.take().or_else(next) else { return };
            let (FollowerCommand::Assign(number) | FollowerCommand::Revoke(number)) = command;
            match (command, self.find_partition(number)) {
                (FollowerCommand::Assign(_), None) => {
                    let partitions = &self.topic_state.partitions;
                    match usize::try_from(number).ok().and_then(|n| partitions.get(n)).cloned() {
                        Some(partition) => self.assign_partitions(&[partition]),
                        None => tracing::error!(
                            log.topic = self.topic,
                            log.partition = number,
                            "cannot assign the partition: the topic does not have it",
                        ),
                    }
                }
                (FollowerCommand::Revoke(_), Some(index)) => {
                    self.partitions.remove(index);
                    self.handler.on_revoked(number);
                }
                (FollowerCommand::Assign(_), Some(_)) | (FollowerCommand::Revoke(_), None) => {}
            }
        }
    }

    /// Reads a chunk of each live partition that has new records, then one of the first partition
    /// that is not live. Returns false if there was no record to read.
    async fn read_partitions(&mut self) -> Result<bool, sqlx::Error> {
        let mut has_read = false;
        // Before the ends are looked at, so that no later move is missed.
        self.moved.mark_unchanged();
        for index in 0..self.partitions.len() {
            let AssignedPartition { partition, state } = &self.partitions[index];
            if state.is_live() && state.next_offset() < Some(partition.end()) {
                self.read_partition(index).await?;
                has_read = true;
            }
        }
        if let Some(index) = self.partitions.iter().position(|p| !p.state.is_live()) {
            self.read_partition(index).await?;
            has_read = true;
        }
        Ok(has_read)
    }

    async fn read_partition(&mut self, index: usize) -> Result<(), sqlx::Error> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => schema::connect_to_read(&self.path).await?,
        };
        let outcome = self.read_chunk(&mut file, index).await;
        // After a failure the next read opens a new connection.
        if outcome.is_ok() {
            self.file = Some(file);
        } else {
            let _ = file.close().await;
        }
        outcome
    }

    async fn read_chunk(
        &mut self,
        file: &mut SqliteConnection,
        index: usize,
    ) -> Result<(), sqlx::Error> {
        let partition = Arc::clone(&self.partitions[index].partition);
        if self.partitions[index].state.needs_seek() {
            self.transition(index, None, |state| state.on_seek(Some(partition.start())));
        }
        let state = self.partitions[index].state;
        let from = state.anchor().map(|anchor| anchor.offset).or(state.next_offset());
        let end = partition.end();
        let mut rows = rows::fetch_rows(file, &partition, from.unwrap_or(0), end);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let record = rows::read_record(&row, &partition)?;
            self.transition(index, Some(&record), |state| state.on_record(&record));
            count += 1;
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        if count < MAX_CHUNK {
            self.transition(index, None, |state| state.on_end(Some(end)));
        }
        Ok(())
    }

    /// Waits until a partition has moved, a command has come or a tick is due.
    async fn wait_for_change(&mut self) {
        let moved = timeout(TICK_INTERVAL, self.moved.changed());
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
        self.obey_commands(command);
    }

    async fn wait_to_retry(&mut self, delay: Duration) {
        let until = Instant::now() + delay;
        while Instant::now() < until && !self.stop.load(Ordering::Acquire) {
            tokio::time::sleep(TICK_INTERVAL.min(delay)).await;
            self.tick_if_due();
        }
    }

    fn tick_if_due(&mut self) {
        if self.ticked_at.elapsed() >= TICK_INTERVAL {
            self.ticked_at = Instant::now();
            self.handler.renew_lease();
            if let Some(number) = self.handler.take_invalidated() {
                self.request_reset(number, ResetReason::Invalidated);
            }
            if let Some(number) = self.tracker.as_ref().and_then(|tracker| tracker.next_behind()) {
                self.request_reset(number, ResetReason::GroupBehind);
            }
        }
    }

    fn request_reset(&mut self, number: i32, reason: ResetReason) {
        if let Some(index) = self.find_partition(number) {
            self.transition(index, None, |state| state.reset(reason));
        }
    }
}
