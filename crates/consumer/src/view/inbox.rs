//! One user's entries, oldest first, bounded in number and age.
//!
//! Two kinds of record change an inbox: notifications, in the order of their partition, and
//! receipts, in the order of theirs. How the two interleave makes no difference: a receipt for a
//! notification that has not come yet waits for it.

use std::{
    collections::{HashMap, VecDeque},
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    time::Duration,
};

use model::{Action, NotificationId};

use super::entry::Entry;

/// How much an inbox holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// The newest so many entries, at least 1.
    pub entries: usize,
    /// Entries that were sent within this time.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 1000, age: Duration::from_secs(30 * 24 * 60 * 60) }
    }
}

impl Limits {
    /// The time in milliseconds before which an entry is too old, if it is `now_ms`.
    #[must_use]
    pub fn oldest(&self, now_ms: i64) -> i64 {
        now_ms.saturating_sub(i64::try_from(self.age.as_millis()).unwrap_or(i64::MAX))
    }
}

/// What happened to an entry on its way into an inbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// It is the newest now.
    New,
    /// The inbox holds one of the same id already; nothing changed.
    Duplicate,
    /// The same, but with another content: an Idempotency-Key was used twice.
    Conflict,
    /// What became of it is in the snapshot that the inbox comes from; nothing changed.
    Known,
}

/// Why entries are not in an inbox any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Eviction {
    /// Newer ones took their place.
    Evicted,
    /// They were too old.
    Expired,
}

/// The newest entry that was evicted.
#[derive(Debug, Clone, Copy)]
pub struct Evicted {
    /// Its offset: everything up to here may be missing.
    pub through: i64,
    /// When it was sent.
    pub sent_at_ms: i64,
    /// Why it is not here.
    pub reason: Eviction,
}

/// What many inboxes hold together. Kept up to date by each change, so that nobody has to look
/// through them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Totals {
    /// Entries that are not dismissed.
    pub entries: usize,
    /// Bytes of their JSON.
    pub bytes: usize,
    /// Entries whose place newer ones took; only ever grows.
    pub evicted: u64,
    /// Entries that became too old; only ever grows.
    pub expired: u64,
}

impl Totals {
    fn add(&mut self, json: &str) {
        self.entries += 1;
        self.bytes += json.len();
    }

    fn remove(&mut self, json: &str) {
        self.entries -= 1;
        self.bytes -= json.len();
    }
}

/// An inbox.
#[derive(Debug, Default, Clone)]
pub struct Inbox {
    entries: VecDeque<Entry>,
    /// A short hash of each entry's id, in the same order: looking for an id reads 4 bytes an
    /// entry, side by side, instead of the entries themselves.
    hashes: VecDeque<u32>,
    evicted: Option<Evicted>,
    /// Receipts for notifications that have not come yet, with the receipt's offset. Rare once a
    /// partition is live, so it costs a pointer.
    #[allow(clippy::box_collection)] // 8 bytes an inbox instead of 48
    pending: Option<Box<HashMap<NotificationId, (Action, i64)>>>,
    /// One beyond the offset of the last receipt for this inbox; 0 before any.
    touched: i64,
}

impl Inbox {
    /// Adds an entry, whose offset is above all others, and evicts what is beyond the limits.
    pub fn add(
        &mut self,
        mut entry: Entry,
        limits: Limits,
        now_ms: i64,
        tally: &mut Totals,
    ) -> Added {
        let hash = short_hash(&entry.id);
        let same = self.position(&entry.id, hash).and_then(|index| self.entries.get(index));
        if let Some(same) = same {
            let both = same.fingerprint.zip(entry.fingerprint);
            let other = both.is_some_and(|(one, other)| one != other);
            return if other { Added::Conflict } else { Added::Duplicate };
        }
        if let Some(action) = self.take_pending(&entry.id) {
            apply(&mut entry, action);
        }
        if let Some(json) = &entry.json {
            tally.add(json);
        }
        while self.entries.len() >= limits.entries.max(1) {
            self.evict(Eviction::Evicted, tally);
        }
        make_room(&mut self.entries);
        make_room(&mut self.hashes);
        self.entries.push_back(entry);
        self.hashes.push_back(hash);
        self.expire(limits, now_ms, tally);
        Added::New
    }

    /// Applies a receipt at this offset of the receipts' topic.
    pub fn mark(
        &mut self,
        action: Action,
        ids: &[NotificationId],
        offset: i64,
        limits: Limits,
        tally: &mut Totals,
    ) {
        self.touched = offset + 1;
        for id in ids {
            match self.position(id, short_hash(id)).and_then(|index| self.entries.get_mut(index)) {
                Some(entry) => {
                    if let (Action::Dismissed, Some(json)) = (action, &entry.json) {
                        tally.remove(json);
                    }
                    apply(entry, action);
                }
                None => self.wait_for(id, action, offset, limits),
            }
        }
    }

    /// Evicts what is too old. To be called now and then for inboxes that nothing is added to.
    pub fn expire(&mut self, limits: Limits, now_ms: i64, tally: &mut Totals) {
        let oldest = limits.oldest(now_ms);
        while self.entries.front().is_some_and(|entry| entry.sent_at_ms < oldest) {
            self.evict(Eviction::Expired, tally);
        }
    }

    /// The entries after this offset that are not dismissed and not older than `oldest`, oldest
    /// first.
    pub fn shown_after(&self, offset: i64, oldest: i64) -> impl DoubleEndedIterator<Item = &Entry> {
        // The same rule by which `expire` evicts: as far as the first that is young enough.
        let expired = self.entries.iter().take_while(|entry| entry.sent_at_ms < oldest).count();
        let first = self.entries.partition_point(|entry| entry.offset <= offset);
        self.entries.range(expired.max(first)..).filter(|entry| entry.json.is_some())
    }

    /// How many entries are shown and not read.
    #[must_use]
    pub fn unread(&self, oldest: i64) -> usize {
        self.shown_after(-1, oldest).filter(|entry| !entry.read).count()
    }

    /// The newest entry that is not here any more, or should not be.
    #[must_use]
    pub fn evicted(&self, oldest: i64) -> Option<Evicted> {
        let expired = self.entries.iter().take_while(|entry| entry.sent_at_ms < oldest).last();
        expired
            .map(|entry| Evicted {
                through: entry.offset,
                sent_at_ms: entry.sent_at_ms,
                reason: Eviction::Expired,
            })
            .or(self.evicted)
    }

    /// What this inbox shows follows from these numbers: the newest offset, that of the newest
    /// entry which is not here any more, and one beyond that of the last receipt.
    #[must_use]
    pub fn version(&self, oldest: i64) -> (i64, i64, i64) {
        let newest = self.entries.back().map_or(-1, |entry| entry.offset);
        (newest, self.evicted(oldest).map_or(-1, |evicted| evicted.through), self.touched)
    }

    /// Whether it holds nothing, not even a receipt that waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty() && self.pending.is_none()
    }

    /// All entries, dismissed ones too, oldest first.
    pub(super) fn entries(&self) -> impl ExactSizeIterator<Item = &Entry> {
        self.entries.iter()
    }

    /// The newest entry that was evicted so far.
    pub(super) fn last_evicted(&self) -> Option<Evicted> {
        self.evicted
    }

    /// The receipts that wait for their notifications, each with its offset.
    pub(super) fn pending(&self) -> impl Iterator<Item = (&NotificationId, Action, i64)> {
        let pending = self.pending.iter().flat_map(|pending| pending.iter());
        pending.map(|(id, (action, offset))| (id, *action, *offset))
    }

    /// One beyond the offset of the last receipt; 0 before any.
    pub(super) fn touched(&self) -> i64 {
        self.touched
    }

    /// An inbox of what the four above said of it.
    pub(super) fn restored(
        entries: Vec<Entry>,
        evicted: Option<Evicted>,
        pending: HashMap<NotificationId, (Action, i64)>,
        touched: i64,
        tally: &mut Totals,
    ) -> Self {
        entries.iter().filter_map(|entry| entry.json.as_ref()).for_each(|json| tally.add(json));
        let hashes = entries.iter().map(|entry| short_hash(&entry.id)).collect();
        let pending = if pending.is_empty() { None } else { Some(Box::new(pending)) };
        Self { entries: entries.into(), hashes, evicted, pending, touched }
    }

    /// Forgets what was before this offset, as if it had never been there.
    pub(super) fn forget_before(&mut self, low: i64, tally: &mut Totals) {
        while self.entries.front().is_some_and(|entry| entry.offset < low) {
            self.hashes.pop_front();
            if let Some(json) = self.entries.pop_front().and_then(|entry| entry.json) {
                tally.remove(&json);
            }
        }
        self.evicted = self.evicted.filter(|evicted| evicted.through >= low);
    }

    fn position(&self, id: &NotificationId, hash: u32) -> Option<usize> {
        let (front, back) = self.hashes.as_slices();
        if !front.contains(&hash) && !back.contains(&hash) {
            return None;
        }
        self.entries.iter().position(|entry| entry.id == *id)
    }

    fn evict(&mut self, reason: Eviction, tally: &mut Totals) {
        self.hashes.pop_front();
        if let Some(entry) = self.entries.pop_front() {
            // What was dismissed is gone already, for its recipient.
            if let Some(json) = &entry.json {
                tally.remove(json);
                match reason {
                    Eviction::Evicted => tally.evicted += 1,
                    Eviction::Expired => tally.expired += 1,
                }
            }
            self.evicted =
                Some(Evicted { through: entry.offset, sent_at_ms: entry.sent_at_ms, reason });
        }
    }

    fn take_pending(&mut self, id: &NotificationId) -> Option<Action> {
        let pending = self.pending.as_mut()?;
        let (action, _) = pending.remove(id)?;
        if pending.is_empty() {
            self.pending = None;
        }
        Some(action)
    }

    /// Keeps a receipt until its notification comes. At most twice as many as an inbox has
    /// entries: our own receipts are written for entries that the inbox holds at that time. While
    /// one of these waits for an entry that will still be there at the end, later ones can only be
    /// for what came within `limits.entries` before or after it. So the oldest beyond that number
    /// are for entries that will have been evicted.
    fn wait_for(&mut self, id: &NotificationId, action: Action, offset: i64, limits: Limits) {
        let pending = self.pending.get_or_insert_default();
        pending
            .entry(id.clone())
            .and_modify(|(held, at)| {
                *at = offset;
                if *held != Action::Dismissed {
                    *held = action;
                }
            })
            .or_insert((action, offset));
        let most = limits.entries.saturating_mul(2);
        // Pruned at twice that, so that it costs little for each.
        if pending.len() > most.saturating_mul(2) {
            let mut offsets: Vec<_> = pending.values().map(|(_, at)| *at).collect();
            let cut = offsets.len() - most;
            let (_, first_kept, _) = offsets.select_nth_unstable(cut);
            let first_kept = *first_kept;
            pending.retain(|_, (_, at)| *at >= first_kept);
        }
    }
}

fn apply(entry: &mut Entry, action: Action) {
    match action {
        Action::Read => entry.read = true,
        Action::Unread => entry.read = false,
        Action::Dismissed => entry.json = None,
    }
}

/// Makes room for one more, and for a quarter of what is there. The standard library doubles: up to
/// half of an inbox's memory would be air, and there are as many inboxes as users.
fn make_room<T>(queue: &mut VecDeque<T>) {
    if queue.len() == queue.capacity() {
        queue.reserve_exact((queue.len() / 4).max(4));
    }
}

fn short_hash(id: &NotificationId) -> u32 {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(id);
    // The upper half is as good as the lower.
    (hash >> 32) as u32
}
