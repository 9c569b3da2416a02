//! The inboxes of a partition that is ours, and the questions that are asked of them.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    sync::atomic::{AtomicU64, Ordering},
};

use event_log::{RecordAnchor, StartAt as From};
use model::{Action, Cursor, NotificationId, Receipt, UserId};

use super::{
    entry::Entry,
    feed::Start,
    inbox::{Added, Evicted, Inbox, Limits, Totals},
    page::{Gap, GapReason, Item, Page, Query, Since},
    rebuild::Source,
    snapshot::Overlap,
};

/// How many reused keys are remembered, for snapshots: as many as can come while one is taken.
pub(super) const CONFLICTS_KEPT: usize = 1000;

/// Every inbox of one partition.
#[derive(Debug)]
pub struct Inboxes {
    pub(super) users: HashMap<UserId, Inbox>,
    pub(super) tally: Totals,
    /// The last offset that was folded of each topic; −1 before any.
    pub(super) last: [i64; 2],
    /// The last record that was folded of each topic, where snapshots are kept.
    pub(super) marks: [Option<RecordAnchor>; 2],
    /// The offsets of the newest notifications that reused a key, oldest first.
    pub(super) conflicts: VecDeque<i64>,
    /// Of a snapshot that was taken while records were folded: which of those it has.
    pub(super) overlap: Option<Box<Overlap>>,
    /// Whether these come from a snapshot.
    pub(super) restored: bool,
    /// It turned out that this is not what the log holds.
    pub(super) void: bool,
    /// No two of a process have the same.
    pub(super) life: u64,
    /// The notifications are complete from this offset on: the first that the log had at the
    /// assignment, or later, when inboxes were forgotten because all they held was too old.
    pub(super) low: i64,
}

impl Default for Inboxes {
    fn default() -> Self {
        static LIVES: AtomicU64 = AtomicU64::new(0);
        Self {
            users: HashMap::new(),
            tally: Totals::default(),
            last: [-1, -1],
            marks: [None, None],
            conflicts: VecDeque::new(),
            overlap: None,
            restored: false,
            void: false,
            life: LIVES.fetch_add(1, Ordering::Relaxed),
            low: 0,
        }
    }
}

impl Inboxes {
    /// How many users have an inbox.
    #[must_use]
    pub fn users(&self) -> usize {
        self.users.len()
    }

    /// What all of them hold together.
    #[must_use]
    pub fn tally(&self) -> Totals {
        self.tally
    }

    /// The last offset of the notifications that was folded; −1 before any.
    #[must_use]
    pub fn last(&self) -> i64 {
        self.last[Source::Notifications as usize]
    }

    /// The last offset of the receipts that was folded; −1 before any.
    #[must_use]
    pub fn last_receipt(&self) -> i64 {
        self.last[Source::Receipts as usize]
    }

    /// The record at this offset is next; its mark, where snapshots are kept.
    pub(super) fn advance(&mut self, source: Source, offset: i64, mark: Option<RecordAnchor>) {
        self.last[source as usize] = offset;
        self.marks[source as usize] = mark;
        if let Some(overlap) = &mut self.overlap {
            self.void |= !overlap.pass(source, offset, mark);
            if overlap.is_over() {
                self.overlap = None;
            }
        }
    }

    /// All records of this topic that were there are folded.
    pub(super) fn caught_up(&mut self, source: Source) {
        self.void |= self.overlap.as_ref().is_some_and(|overlap| overlap.is_open(source));
    }

    /// Where the records of this topic begin for these inboxes.
    pub(super) fn start(&self, source: Source) -> From {
        let mark = self.marks[source as usize];
        From::from_anchor(mark.filter(|_| self.restored && !self.void))
    }

    /// Whether this is not what the log holds.
    pub(super) fn is_void(&self) -> bool {
        self.void
    }

    /// This is not what the log holds.
    pub(super) fn set_void(&mut self) {
        self.void = true;
    }

    pub(super) fn set_low(&mut self, source: Source, low: i64) {
        let last = &mut self.last[source as usize];
        *last = (*last).max(low - 1);
        if source == Source::Receipts {
            return;
        }
        if !self.restored {
            self.low = low;
            return;
        }
        // What retention has removed since is nothing that a rebuild would find. A second copy of it
        // that is still there was dropped when it was folded, and stays so.
        if low > 0 {
            for inbox in self.users.values_mut() {
                inbox.forget_before(low, &mut self.tally);
            }
        }
        self.low = self.low.max(low);
    }

    pub(super) fn add(&mut self, user: UserId, entry: Entry, limits: Limits, now_ms: i64) -> Added {
        let (offset, source) = (entry.offset, Source::Notifications);
        if self.overlap.as_ref().is_some_and(|overlap| overlap.has(user, source, offset)) {
            let reused = self.conflicts.contains(&offset);
            return if reused { Added::Conflict } else { Added::Known };
        }
        let inbox = self.users.entry(user).or_default();
        let added = inbox.add(entry, limits, now_ms, &mut self.tally);
        if added == Added::Conflict && !self.conflicts.contains(&offset) {
            if self.conflicts.len() == CONFLICTS_KEPT {
                self.conflicts.pop_front();
            }
            self.conflicts.push_back(offset);
        }
        added
    }

    pub(super) fn mark(&mut self, receipt: &Receipt, offset: i64, limits: Limits) {
        let (user, source) = (receipt.user_id, Source::Receipts);
        if self.overlap.as_ref().is_some_and(|overlap| overlap.has(user, source, offset)) {
            return;
        }
        let inbox = self.users.entry(user).or_default();
        inbox.mark(receipt.action, &receipt.ids, offset, limits, &mut self.tally);
    }

    pub(super) fn expire(&mut self, limits: Limits, now_ms: i64) {
        let (low, tally) = (&mut self.low, &mut self.tally);
        self.users.retain(|_, inbox| {
            inbox.expire(limits, now_ms, tally);
            if inbox.is_empty() {
                // What is forgotten with it must not be missed silently by an old cursor.
                let evicted = inbox.evicted(i64::MIN);
                *low = evicted.map_or(*low, |evicted| (*low).max(evicted.through + 1));
            }
            !inbox.is_empty()
        });
    }

    /// The ids of the entries for which this action would change something: of those in `ids`, or
    /// of those up to and with the offset `through`, or of all.
    #[must_use]
    pub fn would_change(
        &self,
        user: UserId,
        action: Action,
        which: &Selector,
        oldest: i64,
    ) -> Vec<NotificationId> {
        let Some(inbox) = self.users.get(&user) else { return Vec::new() };
        let changes = |entry: &&Entry| match action {
            Action::Read => !entry.read,
            Action::Unread => entry.read,
            Action::Dismissed => true,
        };
        let chosen = |entry: &&Entry| match which {
            Selector::Ids(ids) => ids.contains(&entry.id),
            Selector::Through(offset) => entry.offset <= *offset,
            Selector::All => true,
        };
        inbox
            .shown_after(-1, oldest)
            .filter(changes)
            .filter(chosen)
            .map(|entry| entry.id.clone())
            .collect()
    }

    /// Answers a query about this user's inbox. `oldest` is the time before which entries are too
    /// old.
    #[must_use]
    pub fn page(&self, partition: i32, user: UserId, query: &Query, oldest: i64) -> Page {
        let here = Cursor::new(partition, self.last());
        let Some(inbox) = self.users.get(&user) else {
            let gap = self.gap(partition, None, query.since, oldest);
            let (items, version) = (Vec::new(), (-1, -1, 0));
            return Page { items, unread: 0, cursor: here, more: false, gap, version };
        };
        let gap = self.gap(partition, Some(inbox), query.since, oldest);
        let after = after(query.since, gap);
        let wanted = |entry: &&Entry| {
            entry.offset > after
                && !matches!(query.since, Since::Time(from) if entry.sent_at_ms < from)
                && !(query.unread && entry.read)
                && query
                    .category
                    .as_deref()
                    .is_none_or(|wanted| entry.category.as_deref() == Some(wanted))
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        let (mut unread, mut matching, mut items) = (0, 0, Vec::new());
        for entry in inbox.shown_after(-1, oldest) {
            unread += usize::from(!entry.read);
            if wanted(&entry) {
                matching += 1;
                if query.since == Since::Newest || items.len() < limit {
                    items.extend(item(partition, entry));
                }
            }
        }
        let more = query.since != Since::Newest && matching > limit;
        if query.since == Since::Newest && items.len() > limit {
            items.drain(..items.len() - limit);
        }
        let cursor = if more { items.last().map_or(here, |item| item.at) } else { here };
        Page { items, unread, cursor, more, gap, version: inbox.version(oldest) }
    }

    /// The place after which a feed begins, and whether something of what it asks for may be missing.
    pub(super) fn begin(
        &self,
        partition: i32,
        user: UserId,
        start: &Start,
        oldest: i64,
    ) -> Beginning {
        let inbox = self.users.get(&user);
        let gap = self.gap(partition, inbox, start.since, oldest);
        let shown = || inbox.into_iter().flat_map(|inbox| inbox.shown_after(-1, oldest));
        let offset = match start.since {
            Since::Cursor(_) | Since::Beginning => after(start.since, gap),
            Since::Newest => {
                let before = start.limit.and_then(|limit| shown().rev().nth(limit));
                before.map_or(-1, |entry| entry.offset)
            }
            Since::Time(from) => {
                let first = shown().find(|entry| entry.sent_at_ms >= from);
                first.map_or(self.last(), |entry| entry.offset - 1)
            }
        };
        let evicted = inbox.and_then(|inbox| inbox.evicted(oldest));
        let after = evicted.map_or(offset, |evicted| offset.max(evicted.through));
        Beginning { at: Cursor::new(partition, offset), after, gap }
    }

    /// At most `most` entries of this user after an offset, oldest first, of the categories that are
    /// wanted.
    pub(super) fn part(
        &self,
        partition: i32,
        user: UserId,
        after: i64,
        most: usize,
        wanted: impl Fn(Option<&str>) -> bool,
        oldest: i64,
    ) -> Part {
        let Some(inbox) = self.users.get(&user) else { return Part::default() };
        let mut wanted =
            inbox.shown_after(after, oldest).filter(|entry| wanted(entry.category.as_deref()));
        let items: Vec<_> =
            wanted.by_ref().take(most).filter_map(|entry| item(partition, entry)).collect();
        let more = wanted.next().is_some();
        let unread = inbox.unread(oldest);
        let evicted = inbox.evicted(oldest).filter(|evicted| evicted.through > after);
        Part { items, unread, more, evicted }
    }

    /// The ids of this user's entries at or before an offset: those that are read, and those that
    /// are not; and how many of all are not.
    pub(super) fn marks(
        &self,
        user: UserId,
        through: i64,
        oldest: i64,
    ) -> (Vec<NotificationId>, Vec<NotificationId>, usize) {
        let Some(inbox) = self.users.get(&user) else { return Default::default() };
        let held = inbox.shown_after(-1, oldest).take_while(|entry| entry.offset <= through);
        let (read, unread): (Vec<_>, Vec<_>) = held.partition(|entry| entry.read);
        let ids = |entries: Vec<&Entry>| entries.iter().map(|entry| entry.id.clone()).collect();
        (ids(read), ids(unread), inbox.unread(oldest))
    }

    /// Whether something of what is asked for may be missing.
    fn gap(&self, partition: i32, inbox: Option<&Inbox>, since: Since, oldest: i64) -> Option<Gap> {
        let evicted = inbox.and_then(|inbox| inbox.evicted(oldest));
        let through = |offset| Cursor::new(partition, offset);
        match since {
            Since::Newest | Since::Beginning => None,
            Since::Time(from) => {
                evicted.filter(|evicted| evicted.sent_at_ms >= from).map(|evicted| Gap {
                    reason: GapReason::Inbox(evicted.reason),
                    after: None,
                    through: through(evicted.through),
                })
            }
            Since::Cursor(cursor) => {
                let gap = |reason, offset| {
                    Some(Gap { reason, after: Some(cursor), through: through(offset) })
                };
                if cursor.partition != partition || cursor.offset > self.last() {
                    return gap(GapReason::Unknown, self.last());
                }
                match evicted {
                    Some(evicted) if evicted.through > cursor.offset => {
                        gap(GapReason::Inbox(evicted.reason), evicted.through)
                    }
                    _ if cursor.offset + 1 < self.low => gap(GapReason::Retention, self.low - 1),
                    _ => None,
                }
            }
        }
    }
}

/// Where a feed begins.
#[derive(Debug)]
pub(super) struct Beginning {
    /// The place from which on everything is told.
    pub(super) at: Cursor,
    /// The same, or later: there is nothing between the two any more.
    pub(super) after: i64,
    /// Why there is nothing, where something was asked for.
    pub(super) gap: Option<Gap>,
}

/// Some of an inbox's entries.
#[derive(Debug, Default)]
pub(super) struct Part {
    /// The entries.
    pub(super) items: Vec<Item>,
    /// How many of all entries are not read.
    pub(super) unread: usize,
    /// Whether there are more after these.
    pub(super) more: bool,
    /// Entries before these that would have been among them.
    pub(super) evicted: Option<Evicted>,
}

/// Which entries a recipient means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// These.
    Ids(HashSet<NotificationId>),
    /// Those up to and with this offset.
    Through(i64),
    /// All that there are now.
    All,
}

/// The offset that a cursor names; −1 where none is given, or the gap says that it is of another log,
/// which says nothing about this one.
fn after(since: Since, gap: Option<Gap>) -> i64 {
    match since {
        Since::Cursor(cursor) if gap.is_none_or(|gap| gap.reason != GapReason::Unknown) => {
            cursor.offset
        }
        Since::Cursor(_) | Since::Newest | Since::Beginning | Since::Time(_) => -1,
    }
}

fn item(partition: i32, entry: &Entry) -> Option<Item> {
    Some(Item {
        at: Cursor::new(partition, entry.offset),
        sent_at_ms: entry.sent_at_ms,
        read: entry.read,
        json: entry.json.clone()?,
    })
}
