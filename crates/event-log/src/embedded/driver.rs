//! Drives the records of each assigned partition into the handler. It reads the file in chunks, and
//! only when the writer has signalled a commit; what it reads it reports to the partitions' states.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::{TryStreamExt as _, stream::BoxStream};
use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteRow};
use tokio::{
    sync::{mpsc::UnboundedReceiver, watch},
    time::timeout,
};

use super::{
    headers::{Headers, decode_headers},
    schema,
    topics::{EmbeddedPartition, TopicState},
};
use crate::{
    Behind, PartitionHandler, Record, Watermarks,
    assigned_partitions::AssignedPartitions,
    behind::{BehindCause, MAX_UNCONFIRMED},
    partition_state::{Action, Actions, PartitionState},
    reader::{FollowerCommand, READING_LEASE_TTL},
};

/// How often the lease is renewed. A stop is noticed after this at the latest.
const TICK_INTERVAL: Duration = Duration::from_millis(50);
/// How often progress is committed. Only lag tools depend on it.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// How long to wait after a failed read, at first and at most.
const MIN_RETRY_DELAY: Duration = Duration::from_millis(20);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(1);

/// How many records one statement reads. Between two statements SQLite can empty the write-ahead
/// log, and the driver reads live partitions.
const MAX_CHUNK: i64 = 1024;

pub(super) struct EmbeddedDriver<'s, H> {
    path: PathBuf,
    topic: Arc<TopicState>,
    partitions: AssignedPartitions<H>,
    /// `None` for a member of a group, which reads every partition.
    commands: Option<UnboundedReceiver<FollowerCommand>>,
    stop: &'s AtomicBool,
    file: Option<SqliteConnection>,
    moved: watch::Receiver<()>,
    ticked_at: Instant,
    recorded_at: Instant,
}

impl<'s, H: PartitionHandler> EmbeddedDriver<'s, H> {
    pub(super) fn new(
        path: PathBuf,
        topic: Arc<TopicState>,
        partitions: AssignedPartitions<H>,
        commands: Option<UnboundedReceiver<FollowerCommand>>,
        stop: &'s AtomicBool,
    ) -> Self {
        let (moved, now) = (topic.moved.subscribe(), Instant::now());
        let (ticked_at, recorded_at) = (now, now);
        Self { path, topic, partitions, commands, stop, file: None, moved, ticked_at, recorded_at }
    }

    pub(super) async fn run(mut self) {
        if self.commands.is_none() {
            let all = self.topic.partitions.clone();
            self.assign_partitions(&all);
        }
        let mut delay = MIN_RETRY_DELAY;
        let mut failing: Option<SystemTime> = None;
        while !self.stop.load(Ordering::Acquire) {
            self.obey_commands(None);
            match self.read_partitions().await {
                Ok(has_read) => {
                    if failing.is_some() {
                        let topic = self.partitions.topic();
                        tracing::info!(log.topic = topic, "the log can be read again");
                        self.report_behind(None);
                    }
                    (failing, delay) = (None, MIN_RETRY_DELAY);
                    if !has_read {
                        self.wait_for_change().await;
                    }
                }
                Err(error) => {
                    let since = *failing.get_or_insert_with(SystemTime::now);
                    if delay == MIN_RETRY_DELAY {
                        let topic = self.partitions.topic();
                        tracing::error!(log.topic = topic, %error, "cannot read the log; retrying");
                    }
                    if since.elapsed().is_ok_and(|failed_for| failed_for > MAX_UNCONFIRMED) {
                        self.report_behind(Some(since));
                    }
                    self.wait_to_retry(delay).await;
                    delay = (delay * 2).min(MAX_RETRY_DELAY);
                }
            }
            self.tick_if_due();
        }
        self.partitions.record_progress();
        // The tracker goes on with its copies and commits until it is closed.
        self.partitions.revoke_from_handler(&self.partitions.numbers());
        if let Some(file) = self.file.take() {
            let _ = file.close().await;
        }
    }

    /// Tells of all partitions that they cannot be read since then, or can again.
    fn report_behind(&mut self, since: Option<SystemTime>) {
        let cause = BehindCause::FileUnreadable.to_string();
        let behind = since.map(|since| Behind { since, cause });
        for partition in self.partitions.numbers() {
            self.partitions.report_behind(partition, behind.clone());
        }
    }

    fn assign_partitions(&mut self, partitions: &[Arc<EmbeddedPartition>]) {
        for partition in partitions {
            self.partitions.assign(partition.number, Some(partition.start_offset()));
        }
        for partition in partitions {
            self.report_watermarks(partition);
        }
    }

    fn report_watermarks(&mut self, partition: &EmbeddedPartition) {
        let watermarks = Watermarks { low: partition.start_offset(), high: partition.end_offset() };
        self.partitions.report_watermarks(partition.number, watermarks);
    }

    fn transition(
        &mut self,
        partition: &EmbeddedPartition,
        record: Option<&Record<'_>>,
        event: impl FnOnce(&mut PartitionState) -> Actions,
    ) {
        let number = partition.number;
        let was_live = self.partitions.state(number).is_some_and(PartitionState::is_live);
        for action in self.partitions.transition(number, record, event) {
            match action {
                Action::Reset(_) => self.report_watermarks(partition),
                // Not in a replay: one that begins later does not find these records either.
                Action::AskAboutGap(gap) if was_live => {
                    self.partitions.report_lost_offsets(number, gap, partition.start_offset());
                }
                // The end of a partition never moves back here.
                Action::ConfirmEndOffset { .. } => {}
                Action::AskAboutGap(_) | Action::Apply | Action::BecomeLive => {}
            }
        }
    }

    /// Obeys this command and every other one that has arrived.
    fn obey_commands(&mut self, first: Option<FollowerCommand>) {
        let mut first = first;
        loop {
            let next = || self.commands.as_mut()?.try_recv().ok();
            let Some(command) = first.take().or_else(next) else { return };
            match command {
                FollowerCommand::Revoke(number) => {
                    self.partitions.revoke(&[number]);
                }
                FollowerCommand::Assign(number) if self.partitions.is_assigned(number) => {}
                FollowerCommand::Assign(number) => match self.topic.find_partition(number) {
                    Some(partition) => self.assign_partitions(&[partition]),
                    None => tracing::error!(
                        log.topic = self.partitions.topic(),
                        log.partition = number,
                        "cannot assign the partition: the topic does not have it",
                    ),
                },
            }
        }
    }

    /// Reads a chunk of each live partition that has new records, then one of the first partition
    /// that is not live. Returns false if all of them are read to their ends.
    async fn read_partitions(&mut self) -> Result<bool, sqlx::Error> {
        let mut has_read = false;
        // Before the ends are looked at, so that no later move is missed.
        self.moved.mark_unchanged();
        for (number, state) in self.partitions.states().collect::<Vec<_>>() {
            let Some(partition) = self.topic.find_partition(number) else { continue };
            if state.is_live() && state.next_offset() < Some(partition.end_offset()) {
                self.read_partition(&partition).await?;
                has_read = true;
            }
        }
        let replaying = self.partitions.states().find(|(_, state)| !state.is_live());
        if let Some(partition) = replaying.and_then(|(number, _)| self.topic.find_partition(number))
        {
            self.read_partition(&partition).await?;
            has_read = true;
        }
        Ok(has_read)
    }

    async fn read_partition(&mut self, partition: &EmbeddedPartition) -> Result<(), sqlx::Error> {
        let mut file = match self.file.take() {
            Some(file) => file,
            None => schema::connect_to_read(&self.path).await?,
        };
        let outcome = self.read_chunk(&mut file, partition).await;
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
        partition: &EmbeddedPartition,
    ) -> Result<(), sqlx::Error> {
        if self.partitions.state(partition.number).is_some_and(PartitionState::needs_seek) {
            self.transition(partition, None, |state| state.on_seek(Some(partition.start_offset())));
        }
        let state = self.partitions.state(partition.number);
        let from = state.and_then(|s| s.anchor().map(|anchor| anchor.offset).or(s.next_offset()));
        let end = partition.end_offset();
        let mut rows = fetch_rows(file, partition, from.unwrap_or(0), end);
        let mut count = 0;
        while let Some(row) = rows.try_next().await? {
            let record = read_record(&row, partition)?;
            self.transition(partition, Some(&record), |state| state.on_record(&record));
            count += 1;
            if self.stop.load(Ordering::Acquire) {
                return Ok(());
            }
        }
        if count < MAX_CHUNK {
            self.transition(partition, None, |state| state.on_end(Some(end)));
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
        if self.recorded_at.elapsed() >= COMMIT_INTERVAL {
            self.recorded_at = Instant::now();
            self.partitions.record_progress();
        }
        if self.ticked_at.elapsed() >= TICK_INTERVAL {
            self.ticked_at = Instant::now();
            // No other process owns partitions of this file, so no lease of a broker is needed.
            self.partitions.renew_lease(Instant::now() + READING_LEASE_TTL);
            if let Some((number, reason)) = self.partitions.next_reset()
                && let Some(partition) = self.topic.find_partition(number)
            {
                self.transition(&partition, None, |state| state.reset(reason));
            }
        }
    }
}

/// The partition's rows from offset `from` up to, not including, `to`; [`MAX_CHUNK`] at most.
fn fetch_rows<'f>(
    file: &'f mut SqliteConnection,
    partition: &EmbeddedPartition,
    from: i64,
    to: i64,
) -> BoxStream<'f, Result<SqliteRow, sqlx::Error>> {
    sqlx::query(
        "SELECT place, timestamp, key, headers, value FROM records
         WHERE place >= ? AND place < ? ORDER BY place LIMIT ?",
    )
    .bind(partition.row_place(from))
    .bind(partition.row_place(to))
    .bind(MAX_CHUNK)
    .fetch(file)
}

/// The record of a row that [`fetch_rows`] found.
fn read_record<'r>(
    row: &'r SqliteRow,
    partition: &EmbeddedPartition,
) -> Result<Record<'r>, sqlx::Error> {
    let offset = EmbeddedPartition::offset_from_place(row.try_get(0)?);
    let headers = decode_headers(row.try_get(3)?).unwrap_or_else(|| {
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
