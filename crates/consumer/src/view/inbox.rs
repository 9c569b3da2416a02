//! One user's entries, oldest first, bounded in number, bytes and age.
//!
//! Two kinds of record change an inbox: notifications, in the order of their partition, and
//! receipts, in the order of theirs. The result does not depend on how the two interleave: a receipt
//! for a notification that has not come yet waits for it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use model::{Action, NotificationId};

use super::entry::{Entry, EntryState};

/// The bounds of every inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The most entries, at least 1; the newest stay.
    pub entries: usize,
    /// The most bytes of JSON; the newest entries stay, at least one.
    pub bytes: usize,
    /// The greatest age of an entry.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1000, bytes: 1 << 20, age: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

impl Limits {
    /// The time in milliseconds before which an entry is too old at `now_ms`.
    pub fn oldest_ms(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX))
    }
}

/// The result of adding an entry to an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddOutcome {
    /// It is the newest entry now.
    New,
    /// The inbox has an entry with this id already; nothing changed.
    Duplicate,
    /// The inbox has an entry with this id and another content, so an Idempotency-Key was reused;
    /// nothing changed.
    Conflict,
    /// The inbox was restored with this record applied; nothing changed.
    AlreadyApplied,
}

/// Why an entry has left an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EvictionReason {
    /// A newer entry took its place.
    Evicted,
    /// It was too old.
    Expired,
}

/// The newest entry that was evicted.
#[derive(Debug, Clone, Copy)]
pub struct Eviction {
    /// Its offset: entries up to here may be missing.
    pub through: i64,
    /// When it was sent.
    pub sent_at_ms: i64,
    /// Why it was evicted.
    pub reason: EvictionReason,
}

/// Counts of a partition's inboxes. Each change updates them, so that reading them takes no walk
/// through the inboxes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that are not dismissed.
    pub entries: usize,
    /// Bytes of their JSON.
    pub bytes: usize,
    /// Entries whose place newer ones took, since the process began.
    pub evicted: u64,
    /// Entries that became too old, since the process began.
    pub expired: u64,
}

impl Totals {
    fn add_json(&mut self, json: &str) {
        self.entries += 1;
        self.bytes += json.len();
    }

    fn remove_json(&mut self, json: &str) {
        self.entries -= 1;
        self.bytes -= json.len();
    }
}

/// One user's inbox.
#[derive(Debug, Clone)]
pub struct Inbox {
    /// All entries, dismissed ones too, oldest first.
    pub(crate) entries: VecDeque<Entry>,
    /// A short hash of each entry's id, in the same order. A search by id reads 4 contiguous bytes
    /// an entry instead of the entries themselves.
    hashes: VecDeque<u32>,
    /// Bytes of the JSON of all entries, as it was before any was dismissed.
    bytes: usize,
    /// Number of entries that are neither dismissed nor read.
    unread: usize,
    last_eviction: Option<Eviction>,
    /// No entry was sent before this time. Nearly every read finds by it that no entry is too old.
    earliest_ms: i64,
    /// Actions for notifications that have not come yet, each with its receipt's offset. Rare once a
    /// partition is live, so an inbox without any spends a pointer on it.
    #[allow(clippy::box_collection)] // 8 bytes an inbox instead of 48
    pending: Option<Box<HashMap<NotificationId, (Action, i64)>>>,
    /// One beyond the offset of the last receipt for this inbox; 0 before any.
    pub(crate) next_receipt_offset: i64,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            entries: VecDeque::new(),
            hashes: VecDeque::new(),
            bytes: 0,
            unread: 0,
            last_eviction: None,
            earliest_ms: i64::MAX,
            pending: None,
            next_receipt_offset: 0,
        }
    }
}

impl Inbox {
    /// Adds an entry, whose offset is above all others, and evicts entries beyond the limits.
    pub fn add_entry(
        &mut self,
        mut entry: Entry,
        limits: Limits,
        now_ms: i64,
        totals: &mut Totals,
    ) -> AddOutcome {
        let hash = short_hash(&entry.id);
        let same = self.find_entry(&entry.id, hash).and_then(|index| self.entries.get(index));
        if let Some(same) = same {
            let both = same.fingerprint.zip(entry.fingerprint);
            let differ = both.is_some_and(|(one, other)| one != other);
            return if differ { AddOutcome::Conflict } else { AddOutcome::Duplicate };
        }
        if let Some((action, _)) = self.pending.as_mut().and_then(|held| held.remove(&entry.id)) {
            entry.apply_action(action);
        }
        self.pending = self.pending.take().filter(|pending| !pending.is_empty());
        // An entry that is too old already keeps its place, as a dismissed one does, and no JSON.
        if entry.sent_at_ms < limits.oldest_ms(now_ms) && entry.json.is_some() {
            entry.apply_action(Action::Dismissed);
            totals.expired += 1;
        }
        if let Some(json) = &entry.json {
            totals.add_json(json);
        }
        self.bytes += entry.json_bytes as usize;
        self.unread += usize::from(entry.is_unread());
        // A dismissed entry keeps its place and its bytes, so that what is evicted does not depend
        // on when a receipt was applied.
        while self.entries.len() >= limits.entries.max(1)
            || (self.bytes > limits.bytes && !self.entries.is_empty())
        {
            self.evict_oldest(EvictionReason::Evicted, totals);
        }
        reserve_one(&mut self.entries);
        reserve_one(&mut self.hashes);
        self.earliest_ms = self.earliest_ms.min(entry.sent_at_ms);
        self.entries.push_back(entry);
        self.hashes.push_back(hash);
        self.expire_oldest(limits.oldest_ms(now_ms), totals);
        AddOutcome::New
    }

    /// Applies a receipt at this offset of the receipts' topic.
    pub fn apply_receipt(
        &mut self,
        action: Action,
        ids: &[NotificationId],
        offset: i64,
        limits: Limits,
        totals: &mut Totals,
    ) {
        self.next_receipt_offset = offset + 1;
        for id in ids {
            let index = self.find_entry(id, short_hash(id));
            match index.and_then(|index| self.entries.get_mut(index)) {
                Some(entry) => {
                    if let (Action::Dismissed, Some(json)) = (action, &entry.json) {
                        totals.remove_json(json);
                    }
                    let was_unread = entry.is_unread();
                    entry.apply_action(action);
                    self.unread += usize::from(entry.is_unread());
                    self.unread -= usize::from(was_unread);
                }
                None => self.add_pending(id, action, offset, limits),
            }
        }
    }

    /// Evicts entries that are too old, up to the first that is not. An inbox that gets no entries
    /// needs this now and then.
    pub fn expire_entries(&mut self, limits: Limits, now_ms: i64, totals: &mut Totals) {
        let oldest_ms = limits.oldest_ms(now_ms);
        self.expire_oldest(oldest_ms, totals);
        if self.earliest_ms < oldest_ms {
            let times = self.entries.iter().map(|entry| entry.sent_at_ms);
            self.earliest_ms = times.min().unwrap_or(i64::MAX);
        }
    }

    fn expire_oldest(&mut self, oldest_ms: i64, totals: &mut Totals) {
        while self.entries.front().is_some_and(|entry| entry.sent_at_ms < oldest_ms) {
            self.evict_oldest(EvictionReason::Expired, totals);
        }
    }

    /// The entries after this offset that are neither dismissed nor older than `oldest_ms`, oldest
    /// first.
    pub fn shown_after(
        &self,
        offset: i64,
        oldest_ms: i64,
    ) -> impl DoubleEndedIterator<Item = &Entry> {
        let first = self.entries.partition_point(|entry| entry.offset <= offset);
        let shown = move |entry: &&Entry| entry.json.is_some() && entry.sent_at_ms >= oldest_ms;
        self.entries.range(first..).filter(shown)
    }

    /// Number of entries that are shown and not read.
    pub(super) fn count_unread(&self, oldest_ms: i64) -> usize {
        let count = || self.shown_after(-1, oldest_ms).filter(|entry| entry.is_unread()).count();
        if self.earliest_ms < oldest_ms {
            return count();
        }
        debug_assert_eq!(self.unread, count());
        self.unread
    }

    /// The newest entry that was evicted, or is too old to be shown. Times need not grow with the
    /// offsets, so an entry that is too old may stand behind others that are not.
    pub fn last_eviction(&self, oldest_ms: i64) -> Option<Eviction> {
        let is_expired = |entry: &&Entry| entry.sent_at_ms < oldest_ms;
        let expired = || self.entries.iter().rev().find(is_expired);
        (self.earliest_ms < oldest_ms)
            .then(expired)
            .flatten()
            .map(|entry| Eviction {
                through: entry.offset,
                sent_at_ms: entry.sent_at_ms,
                reason: EvictionReason::Expired,
            })
            .or(self.last_eviction)
    }

    /// Three numbers that determine the shown content: the newest offset, the offset of the newest
    /// evicted entry, and one beyond the offset of the last receipt.
    pub fn version(&self, oldest_ms: i64) -> (i64, i64, i64) {
        let newest = self.entries.back().map_or(-1, |entry| entry.offset);
        let evicted = self.last_eviction(oldest_ms).map_or(-1, |eviction| eviction.through);
        (newest, evicted, self.next_receipt_offset)
    }

    /// Returns true if the inbox has neither entries nor pending receipts.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.pending.is_none()
    }

    /// The receipts that wait for their notifications, each with its offset.
    pub(crate) fn pending_receipts(&self) -> impl Iterator<Item = (&NotificationId, Action, i64)> {
        let pending = self.pending.iter().flat_map(|pending| pending.iter());
        pending.map(|(id, (action, offset))| (id, *action, *offset))
    }

    /// An inbox with this content, which is added to the totals.
    pub(crate) fn from_parts(
        entries: Vec<Entry>,
        last_eviction: Option<Eviction>,
        pending: HashMap<NotificationId, (Action, i64)>,
        next_receipt_offset: i64,
        totals: &mut Totals,
    ) -> Self {
        let shown = entries.iter().filter_map(|entry| entry.json.as_ref());
        shown.for_each(|json| totals.add_json(json));
        let hashes = entries.iter().map(|entry| short_hash(&entry.id)).collect();
        let bytes = entries.iter().map(|entry| entry.json_bytes as usize).sum();
        let unread = entries.iter().filter(|entry| entry.is_unread()).count();
        let earliest_ms = entries.iter().map(|entry| entry.sent_at_ms).min().unwrap_or(i64::MAX);
        let pending = if pending.is_empty() { None } else { Some(Box::new(pending)) };
        let entries = entries.into();
        Self {
            entries,
            hashes,
            bytes,
            unread,
            last_eviction,
            earliest_ms,
            pending,
            next_receipt_offset,
        }
    }

    /// Removes every trace of the entries before this offset.
    pub(super) fn forget_before(&mut self, offset: i64, totals: &mut Totals) {
        while self.entries.front().is_some_and(|entry| entry.offset < offset) {
            self.hashes.pop_front();
            if let Some(entry) = self.entries.pop_front() {
                self.bytes -= entry.json_bytes as usize;
                self.unread -= usize::from(entry.is_unread());
                entry.json.inspect(|json| totals.remove_json(json));
            }
        }
        self.last_eviction = self.last_eviction.filter(|eviction| eviction.through >= offset);
    }

    fn find_entry(&self, id: &NotificationId, hash: u32) -> Option<usize> {
        let (front, back) = self.hashes.as_slices();
        if !front.contains(&hash) && !back.contains(&hash) {
            return None;
        }
        self.entries.iter().position(|entry| entry.id == *id)
    }

    fn evict_oldest(&mut self, reason: EvictionReason, totals: &mut Totals) {
        self.hashes.pop_front();
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= entry.json_bytes as usize;
            self.unread -= usize::from(entry.is_unread());
            // A dismissed entry had left the totals when it was dismissed.
            if let Some(json) = &entry.json {
                totals.remove_json(json);
                match reason {
                    EvictionReason::Evicted => totals.evicted += 1,
                    EvictionReason::Expired => totals.expired += 1,
                }
            }
            let (through, sent_at_ms) = (entry.offset, entry.sent_at_ms);
            self.last_eviction = Some(Eviction { through, sent_at_ms, reason });
        }
    }

    /// Keeps a receipt until its notification comes, at least the newest twice as many as an inbox
    /// has entries. The consumer writes receipts only for entries that the inbox has at that time.
    /// While one waits for an entry that will still be there at the end, later receipts can only be
    /// for entries that came within `limits.entries` before or after it. So receipts beyond that
    /// number are for entries that will have been evicted.
    fn add_pending(&mut self, id: &NotificationId, action: Action, offset: i64, limits: Limits) {
        let pending = self.pending.get_or_insert_default();
        pending
            .entry(id.clone())
            .and_modify(|(held, at)| {
                *at = offset;
                *held = EntryState::merge_actions(*held, action);
            })
            .or_insert((action, offset));
        let max_kept = limits.entries.saturating_mul(2);
        // Pruned at twice that, so that the cost for each receipt is small.
        if pending.len() > max_kept.saturating_mul(2) {
            let mut offsets: Vec<_> = pending.values().map(|(_, at)| *at).collect();
            let cut = offsets.len() - max_kept;
            let (_, first_kept, _) = offsets.select_nth_unstable(cut);
            let first_kept = *first_kept;
            pending.retain(|_, (_, at)| *at >= first_kept);
        }
    }
}

/// Reserves one more place, and a quarter of the present ones. The standard library doubles: up to
/// half of an inbox's memory would be unused, and there are as many inboxes as users.
fn reserve_one<T>(queue: &mut VecDeque<T>) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact((queue.len() / 4).max(4));
    }
}

fn short_hash(id: &NotificationId) -> u32 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
    // The upper half is as good as the lower.
    (hash >> 32) as u32
}
