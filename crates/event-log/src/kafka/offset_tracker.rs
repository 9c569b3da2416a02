//! What the group has to be told, by the polling thread to the one that tells it: how far each
//! partition was folded, and which records are poison. Its one rule: what is committed never goes
//! back, and never passes a poison record that was not copied.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use parking_lot::{Condvar, Mutex};

use super::metadata::AssignmentEpoch;
use crate::{poison::PoisonRecord, reader::ReaderStatus};

/// How much poison may wait to be copied.
const MOST_RECORDS: usize = 10_000;
const MOST_BYTES: usize = 32 << 20;
/// How many of them one transaction copies.
const BATCH: usize = 500;
/// How long the polling thread waits for room: well below `max.poll.interval.ms`, 60 s.
const ROOM_WITHIN: Duration = Duration::from_secs(4);
/// How long a revocation waits for a commit that is on its way, so that none comes after the next
/// owner's.
const COMMIT_WITHIN: Duration = Duration::from_secs(5);

/// Shared by the polling thread and the one that commits.
pub(super) struct OffsetTracker {
    topic: String,
    group: String,
    quarantine: bool,
    signs: Arc<ReaderStatus>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    entries: HashMap<i32, Entry>,
    /// What waits to be copied.
    records: usize,
    bytes: usize,
    /// There was no room in time; until there is some, nobody waits for it again.
    overflowing: bool,
    /// A commit of these partitions is on its way.
    committing: Vec<i32>,
    closing: bool,
    closed: bool,
}

struct Entry {
    number: u64,
    /// Where reading began, if not at the beginning, until it is known whether the group is that
    /// far: poison before it would never be read again.
    start: Option<i64>,
    /// It is not. Nothing is told of this partition until it is started over.
    behind: bool,
    /// Where the group is; none until Kafka has said it.
    committed: Option<i64>,
    /// One beyond the last record that was folded, when that was last told.
    next: Option<i64>,
    /// Not copied yet, by offset.
    add_poison: VecDeque<Arc<PoisonRecord>>,
    /// The first that found no room. What follows it is not copied either.
    lost: Option<i64>,
}

impl Entry {
    /// Where the group may be said to be; none where that is nothing new.
    fn position(&self) -> Option<i64> {
        let committed = self.committed.filter(|_| !self.behind)?;
        let poison = self.add_poison.front().map(|poison| poison.offset);
        let bounds = [self.next, poison, self.lost].into_iter().flatten();
        bounds.min().filter(|position| self.next.is_some() && *position > committed)
    }
}

/// A poison record, and the assignment in which it was read.
pub(super) type Item = (AssignmentEpoch, Arc<PoisonRecord>);
pub(super) type Batch = [Item];

/// What is to be done next.
pub(super) enum Work {
    /// To ask how far the group is in these.
    Ask(Vec<AssignmentEpoch>),
    /// To copy these, which are in the order of their offsets.
    Copy(Vec<Item>),
    /// To commit these positions; [`Ledger::committed`] must follow.
    Commit(Vec<(AssignmentEpoch, i64)>),
    /// Nothing any more.
    End,
}

impl OffsetTracker {
    pub(super) fn new(
        topic: &str,
        group: &str,
        quarantine: bool,
        signs: Arc<ReaderStatus>,
    ) -> Self {
        Self {
            topic: topic.to_owned(),
            group: group.to_owned(),
            quarantine,
            signs,
            state: Mutex::default(),
            changed: Condvar::new(),
        }
    }

    // What the polling thread says.

    /// The partition is read from the offset `start`, or from its beginning.
    pub(super) fn begin_assignment(&self, assignment: AssignmentEpoch, start: Option<i64>) {
        let AssignmentEpoch { partition, epoch: number } = assignment;
        let (committed, next, poison, lost) = (None, None, VecDeque::new(), None);
        let entry =
            Entry { number, start, behind: false, committed, next, add_poison: poison, lost };
        self.signs.settled.lock().remove(&partition);
        self.state.lock().entries.insert(partition, entry);
        self.changed.notify_all();
    }

    /// Forgets the partition: its poison is the next owner's. Returns what is still to be
    /// committed, where that is safe.
    pub(super) fn end_assignment(&self, partition: i32, next: Option<i64>) -> Option<i64> {
        let mut state = self.state.lock();
        let mut entry = state.entries.remove(&partition)?;
        state.records -= entry.add_poison.len();
        state.bytes -= entry.add_poison.iter().map(|poison| poison.bytes()).sum::<usize>();
        self.changed.notify_all();
        let until = Instant::now() + COMMIT_WITHIN;
        while state.committing.contains(&partition) {
            if self.changed.wait_until(&mut state, until).timed_out() {
                return None;
            }
        }
        entry.next = next;
        // With poison on its way, a commit from here might come after that of its transaction.
        if entry.add_poison.is_empty() { entry.position() } else { None }
    }

    /// Says how far each partition was folded, for the next commit.
    pub(super) fn record_progress(&self, partitions: impl Iterator<Item = (i32, i64)>) {
        let mut state = self.state.lock();
        for (partition, next) in partitions {
            if let Some(entry) = state.entries.get_mut(&partition) {
                entry.next = Some(next);
            }
        }
        self.changed.notify_all();
    }

    /// A partition that was begun beyond what the group has been told.
    pub(super) fn next_behind(&self) -> Option<i32> {
        let state = self.state.lock();
        state.entries.iter().find(|(_, entry)| entry.behind).map(|(partition, _)| *partition)
    }

    /// Whether a poison record of this offset is to be copied, for all that is known.
    pub(super) fn wants_copy(&self, partition: i32, offset: i64) -> bool {
        let state = self.state.lock();
        let wanted = |entry: &Entry| entry.committed.is_none_or(|committed| offset >= committed);
        self.quarantine && state.entries.get(&partition).is_some_and(wanted)
    }

    /// Puts a poison record in the queue; waits a while, should that be full.
    pub(super) fn add_poison(&self, poison: PoisonRecord) {
        let (partition, offset, bytes) = (poison.partition, poison.offset, poison.bytes());
        let mut state = self.state.lock();
        let until = Instant::now() + ROOM_WITHIN;
        loop {
            let full = state.records >= MOST_RECORDS
                || (state.records > 0 && state.bytes + bytes > MOST_BYTES);
            let given_up = state.overflowing;
            let Some(entry) = state.entries.get_mut(&partition) else { return };
            if entry.behind || entry.committed.is_some_and(|committed| offset < committed) {
                return;
            }
            if entry.lost.is_none() && !full {
                entry.add_poison.push_back(Arc::new(poison));
                state.records += 1;
                state.bytes += bytes;
                state.overflowing = false;
                self.changed.notify_all();
                return;
            }
            let waited = given_up || entry.lost.is_some();
            if waited || self.changed.wait_until(&mut state, until).timed_out() {
                break;
            }
        }
        self.signs.unquarantined.fetch_add(1, Ordering::Relaxed);
        state.overflowing = true;
        let Some(entry) = state.entries.get_mut(&partition) else { return };
        if entry.lost.is_none() {
            entry.lost = Some(offset);
            tracing::error!(
                kafka.topic = self.topic,
                kafka.partition = partition,
                kafka.offset = offset,
                "no room to set a poison record aside: the dead-letter topic cannot be written. \
                 The group's progress in this partition stays before this record, and the next \
                 start sets it aside and those that follow",
            );
        }
    }

    /// Lets what is left be done, and waits for it, for at most `deadline`.
    pub(super) fn close(&self, deadline: Duration) {
        let until = Instant::now() + deadline;
        let mut state = self.state.lock();
        state.closing = true;
        self.changed.notify_all();
        while !state.closed && !self.changed.wait_until(&mut state, until).timed_out() {}
    }

    // What the committing thread does.

    /// The next thing to do; waits for one.
    pub(super) fn work(&self) -> Work {
        let mut state = self.state.lock();
        loop {
            let unknown: Vec<_> = state
                .entries
                .iter()
                .filter(|(_, entry)| entry.committed.is_none())
                .map(|(partition, entry)| assignment(*partition, entry))
                .collect();
            if !unknown.is_empty() {
                return Work::Ask(unknown);
            }
            let positions = state.entries.iter().filter_map(|(partition, entry)| {
                Some((assignment(*partition, entry), entry.position()?))
            });
            let positions: Vec<_> = positions.collect();
            if !positions.is_empty() {
                state.committing = positions.iter().map(|(a, _)| a.partition).collect();
                return Work::Commit(positions);
            }
            if state.records > 0 {
                let all = state.entries.iter().flat_map(|(partition, entry)| {
                    let assignment = assignment(*partition, entry);
                    entry.add_poison.iter().map(move |poison| (assignment, Arc::clone(poison)))
                });
                return Work::Copy(all.take(BATCH).collect());
            }
            if state.closing {
                return Work::End;
            }
            self.changed.wait(&mut state);
        }
    }

    /// Kafka has said how far the group is.
    pub(super) fn known(&self, assignment: AssignmentEpoch, committed: i64) {
        let state = &mut *self.state.lock();
        if let Some(entry) = mine(&mut state.entries, assignment) {
            entry.committed = Some(committed);
            entry.behind |= entry.start.take().is_some_and(|start| committed < start);
            self.signs.settled.lock().insert(assignment.partition, committed);
            // All of it is read again, should it be behind.
            let below = if entry.behind {
                entry.add_poison.len()
            } else {
                entry.add_poison.iter().take_while(|poison| poison.offset < committed).count()
            };
            for poison in entry.add_poison.drain(..below) {
                state.records -= 1;
                state.bytes -= poison.bytes();
            }
            if entry.lost.is_some_and(|lost| lost < committed) {
                entry.lost = None;
            }
        }
        self.changed.notify_all();
    }

    /// Nobody can say how far the group is: a transaction had an unknown end.
    pub(super) fn unknown(&self, batch: &Batch) {
        let state = &mut *self.state.lock();
        for (assignment, _) in batch {
            if let Some(entry) = mine(&mut state.entries, *assignment) {
                entry.committed = None;
            }
        }
    }

    /// Those of the batch that still are ours to copy, with what `ask` answers while they are: no
    /// revocation can end meanwhile. None: there are none any more.
    pub(super) fn permit<T>(
        &self,
        batch: &Batch,
        ask: impl FnOnce() -> T,
    ) -> Option<(T, Vec<Item>)> {
        let state = &mut *self.state.lock();
        let mut ours = batch.to_vec();
        ours.retain(|(assignment, poison)| {
            mine(&mut state.entries, *assignment)
                .and_then(|entry| entry.committed)
                .is_some_and(|committed| poison.offset >= committed)
        });
        if ours.is_empty() { None } else { Some((ask(), ours)) }
    }

    /// These were copied, and the group's progress is beyond them.
    pub(super) fn copied(&self, batch: &Batch) {
        self.signs.set_aside(batch.len());
        for (assignment, poison) in batch {
            self.known(*assignment, poison.offset + 1);
        }
    }

    /// What became of [`Work::Commit`].
    pub(super) fn committed(&self, positions: &[(AssignmentEpoch, i64)], success: bool) {
        let state = &mut *self.state.lock();
        state.committing.clear();
        for (assignment, position) in positions {
            if let Some(entry) = mine(&mut state.entries, *assignment) {
                if success {
                    entry.committed = Some(*position);
                    self.signs.settled.lock().insert(assignment.partition, *position);
                } else {
                    // The next one covers it.
                    entry.next = None;
                }
            }
        }
        self.changed.notify_all();
    }

    /// Waits, unless it is to end. True: it is.
    pub(super) fn pause(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        let until = Instant::now() + pause;
        while !state.closing && !self.changed.wait_until(&mut state, until).timed_out() {}
        state.closing
    }

    pub(super) fn ended(&self) {
        self.state.lock().closed = true;
        self.changed.notify_all();
    }

    pub(super) fn topic(&self) -> &str {
        &self.topic
    }

    pub(super) fn group(&self) -> &str {
        &self.group
    }
}

fn assignment(partition: i32, entry: &Entry) -> AssignmentEpoch {
    AssignmentEpoch { partition, epoch: entry.number }
}

fn mine(entries: &mut HashMap<i32, Entry>, assignment: AssignmentEpoch) -> Option<&mut Entry> {
    entries.get_mut(&assignment.partition).filter(|entry| entry.number == assignment.epoch)
}
