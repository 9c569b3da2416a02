//! The one member of a group: how far it has folded, and the poison that is on its way to the
//! dead-letter topic. It tells the writer, and never passes a poison record that is not copied.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use sqlx::SqliteConnection;
use tokio::{
    sync::oneshot::{self, error::TryRecvError},
    time::timeout,
};

use super::{
    progress::{self, Copy, Settle},
    queue::{EmbeddedWriter, Item},
    topics::{Partition, Topics},
};
use crate::{Record, poison::PoisonRecord, reader::ReaderStatus};

/// How much poison may wait to be copied, and how much of it is copied at once.
const MOST_RECORDS: usize = 10_000;
const MOST_BYTES: usize = 16 << 20;
const BATCH: usize = 500;
/// How long reading waits for room.
const ROOM_WITHIN: Duration = Duration::from_secs(10);
/// How long the end of reading waits for what is left.
const GOODBYE: Duration = Duration::from_secs(3);
/// How often progress is written when there is no poison. Nothing depends on it but how much of
/// the next replay is looked through for poison.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How long after a failure it is tried again.
const AGAIN_AFTER: Duration = Duration::from_millis(200);

/// The group, and where its poison goes; none: nowhere.
pub(super) struct Membership {
    pub(super) group: String,
    pub(super) quarantine: Option<String>,
    pub(super) writer: EmbeddedWriter,
    pub(super) signs: Arc<ReaderStatus>,
}

pub(super) struct Member {
    group: Arc<str>,
    topic: String,
    quarantine: Option<String>,
    writer: EmbeddedWriter,
    topics: Arc<Topics>,
    signs: Arc<ReaderStatus>,
    /// Where the group is, by partition; none until the file has said it.
    known: Option<HashMap<i32, i64>>,
    poison: VecDeque<(Arc<Partition>, Arc<PoisonRecord>)>,
    bytes: usize,
    /// The first of a partition that found no room.
    lost: HashMap<i32, i64>,
    overflowing: bool,
    asked: Option<Asked>,
    /// When progress is next written, and when anything is after a failure.
    commit_at: Instant,
    again_at: Instant,
    failing: bool,
}

/// What the writer was asked for.
struct Asked {
    poison: usize,
    positions: Vec<(i32, i64)>,
    done: oneshot::Receiver<Result<(), String>>,
}

impl Member {
    pub(super) fn new(membership: Membership, topic: &str, topics: Arc<Topics>) -> Self {
        let Membership { group, quarantine, writer, signs } = membership;
        let now = Instant::now();
        Self {
            group: group.into(),
            topic: topic.to_owned(),
            quarantine,
            writer,
            topics,
            signs,
            known: None,
            poison: VecDeque::new(),
            bytes: 0,
            lost: HashMap::new(),
            overflowing: false,
            asked: None,
            commit_at: now + COMMIT_EVERY,
            again_at: now,
            failing: false,
        }
    }

    /// Reads where the group is, unless that is known.
    pub(super) async fn know(
        &mut self,
        file: &mut SqliteConnection,
        partitions: &[Arc<Partition>],
    ) -> Result<(), sqlx::Error> {
        if self.known.is_none() {
            let known = progress::known(file, &self.group, partitions).await?;
            *self.signs.settled.lock() = known.clone();
            self.known = Some(known);
        }
        Ok(())
    }

    /// Whether the group has been told of everything before this offset; it has, for all that is
    /// not known.
    pub(super) fn has_told(&self, number: i32, offset: i64) -> bool {
        let known = self.known.as_ref().and_then(|known| known.get(&number));
        known.is_none_or(|known| *known >= offset)
    }

    /// Takes a poison record, unless it is known to be copied; waits a while for room.
    pub(super) async fn poison(
        &mut self,
        partition: &Arc<Partition>,
        record: &Record<'_>,
        reason: &str,
    ) {
        let number = partition.number;
        let below =
            |known: &HashMap<i32, i64>| known.get(&number).is_some_and(|k| record.offset < *k);
        if self.quarantine.is_none() || self.known.as_ref().is_some_and(below) {
            return;
        }
        let poison = PoisonRecord::of(record, &self.topic, &self.group, reason);
        let until = Instant::now() + ROOM_WITHIN;
        while self.is_full() && !self.overflowing && Instant::now() < until {
            self.step(std::iter::empty(), false);
            self.wait(AGAIN_AFTER).await;
        }
        if self.is_full() || self.lost.contains_key(&number) {
            self.overflowing = true;
            self.signs.unquarantined.fetch_add(1, Ordering::Relaxed);
            if self.lost.insert(number, record.offset).is_none() {
                tracing::error!(
                    log.topic = self.topic,
                    log.partition = number,
                    log.offset = record.offset,
                    "no room to set a poison record aside: the dead-letter topic cannot be \
                     written. The next start sets it aside and those that follow",
                );
            }
            return;
        }
        self.overflowing = false;
        self.bytes += poison.bytes();
        self.poison.push_back((Arc::clone(partition), Arc::new(poison)));
    }

    fn is_full(&self) -> bool {
        self.poison.len() >= MOST_RECORDS || self.bytes >= MOST_BYTES
    }

    /// Hears what the writer has done, and asks for what is due: poison at once, progress now and
    /// then or `now`. Never waits.
    pub(super) fn step(
        &mut self,
        progress: impl Iterator<Item = (Arc<Partition>, i64)>,
        now: bool,
    ) {
        self.hear();
        let at = Instant::now();
        let due = now || at >= self.commit_at;
        let nothing = self.poison.is_empty() && !due;
        if nothing || self.asked.is_some() || self.known.is_none() || (at < self.again_at && !now) {
            return;
        }
        let mut positions = Vec::new();
        if due {
            self.commit_at = at + COMMIT_EVERY;
            for (partition, next) in progress {
                let position = self.position(partition.number, next);
                positions.extend(position.map(|position| (partition, position)));
            }
        }
        match self.copies() {
            Ok(copies) if copies.is_empty() && positions.is_empty() => {}
            Ok(copies) => self.ask(copies, positions),
            Err(error) => self.failed(&error),
        }
    }

    /// Where the group may be said to be; none where that is nothing new.
    fn position(&self, number: i32, next: i64) -> Option<i64> {
        let first = self.poison.iter().find(|(partition, _)| partition.number == number);
        let bounds = [first.map(|(_, poison)| poison.offset), self.lost.get(&number).copied()];
        let position = bounds.into_iter().flatten().min().map_or(next, |bound| bound.min(next));
        let known = self.known.as_ref()?.get(&number).copied().unwrap_or(0);
        (position > known).then_some(position)
    }

    fn copies(&self) -> Result<Vec<Copy>, String> {
        let Some(to) = &self.quarantine else { return Ok(Vec::new()) };
        let copies = self.poison.iter().take(BATCH).map(|(from, poison)| {
            let to = self.topics.partition(to, poison.partition)?;
            Ok(Copy { from: Arc::clone(from), to, poison: Arc::clone(poison) })
        });
        copies.collect()
    }

    fn ask(&mut self, poison: Vec<Copy>, positions: Vec<(Arc<Partition>, i64)>) {
        let (done, answer) = oneshot::channel();
        let told = positions.iter().map(|(partition, position)| (partition.number, *position));
        let (count, told) = (poison.len(), told.collect());
        let settle = Settle { group: Arc::clone(&self.group), poison, positions, done };
        match self.writer.ask(Item::Settle(settle)) {
            Ok(()) => self.asked = Some(Asked { poison: count, positions: told, done: answer }),
            Err(error) => self.failed(&error),
        }
    }

    fn hear(&mut self) {
        let Some(asked) = &mut self.asked else { return };
        let answer = match asked.done.try_recv() {
            Err(TryRecvError::Empty) => return,
            Err(TryRecvError::Closed) => Err("the log was closed".to_owned()),
            Ok(answer) => answer,
        };
        self.answered(answer);
    }

    fn answered(&mut self, answer: Result<(), String>) {
        let Some(Asked { poison, positions, .. }) = self.asked.take() else { return };
        if let Err(error) = answer {
            return self.failed(&error);
        }
        self.failing = false;
        let known = self.known.get_or_insert_default();
        let copied = self.poison.drain(..poison).map(|(partition, poison)| {
            self.bytes -= poison.bytes();
            (partition.number, poison.offset + 1)
        });
        for (number, position) in copied.chain(positions) {
            let known = known.entry(number).or_default();
            *known = position.max(*known);
            self.signs.settled.lock().insert(number, *known);
        }
        self.signs.set_aside(poison);
    }

    fn failed(&mut self, error: &str) {
        self.again_at = Instant::now() + AGAIN_AFTER;
        if !self.failing {
            tracing::warn!(
                log.topic = self.topic,
                error,
                "the group's progress cannot be kept at the moment; trying again",
            );
        }
        self.failing = true;
    }

    /// Waits for the writer's answer, or for this long.
    async fn wait(&mut self, pause: Duration) {
        match &mut self.asked {
            None => tokio::time::sleep(pause).await,
            Some(asked) => {
                if let Ok(answer) = timeout(pause, &mut asked.done).await {
                    self.answered(answer.unwrap_or_else(|_| Err("the log was closed".into())));
                }
            }
        }
    }

    /// Has everything written that is left, and waits for it.
    pub(super) async fn close(&mut self, progress: &[(Arc<Partition>, i64)]) {
        let until = Instant::now() + GOODBYE;
        while Instant::now() < until {
            self.step(progress.iter().cloned(), true);
            if self.asked.is_none() {
                break;
            }
            self.wait(GOODBYE).await;
        }
    }
}
