//! Reads from the inboxes of one partition. They only clone handles, because the caller holds the
//! partition's lock meanwhile.

use std::collections::HashSet;

use model::{Action, Cursor, NotificationId, UserId};

use super::{
    entry::Entry,
    inbox::{Eviction, Inbox},
    inboxes::Inboxes,
    page::{FeedStart, Gap, GapReason, Page, PageItem, PageQuery, ReadState, Selector, Since},
};

/// The most entries that a feed reads at a time.
const MAX_BATCH: usize = 32;
/// The bytes of JSON after which a feed reads no further entry at a time. A stream that is not read
/// keeps a batch.
const MAX_BATCH_BYTES: usize = 16 << 10;
/// The entries that a receipt is for.
#[derive(Debug)]
pub struct WouldChange {
    /// The selected entries that the action would change, oldest first.
    pub changed: Vec<NotificationId>,
    /// The selected ids that the inbox does not show.
    pub unknown: Vec<NotificationId>,
}

/// The start of a feed.
#[derive(Debug)]
pub(super) struct FeedPosition {
    /// The position after which the client gets every event.
    pub(super) at: Cursor,
    /// Offset of the last entry that was missing at the start. The feed reports those after it only.
    pub(super) missing_through: i64,
    /// Set if entries that were asked for may be missing.
    pub(super) gap: Option<Gap>,
}

/// The next entries of a feed.
#[derive(Debug, Default)]
pub(super) struct FeedBatch {
    pub(super) items: Vec<PageItem>,
    /// Number of entries in the whole inbox that are not read.
    pub(super) unread: usize,
    /// True if the inbox has further entries after these.
    pub(super) more: bool,
    /// Set if an entry after the position was evicted.
    pub(super) eviction: Option<Eviction>,
}

impl Inboxes {
    /// The selected entries that this action would change.
    pub fn would_change(
        &self,
        user: UserId,
        action: Action,
        selector: &Selector,
        oldest_ms: i64,
    ) -> WouldChange {
        let mut unknown = match selector {
            Selector::Ids(ids) => ids.clone(),
            Selector::Through(_) | Selector::All => HashSet::new(),
        };
        let mut changed = Vec::new();
        let inbox = self.users.get(&user).into_iter();
        for entry in inbox.flat_map(|inbox| inbox.shown_after(-1, oldest_ms)) {
            let is_selected = match selector {
                Selector::Ids(_) => unknown.remove(&entry.id),
                Selector::Through(through) => entry.offset <= through.offset,
                Selector::All => true,
            };
            if is_selected && entry.state.is_changed_by(action) {
                changed.push(entry.id.clone());
            }
        }
        WouldChange { changed, unknown: unknown.into_iter().collect() }
    }

    /// Answers a query about this user's inbox. Entries that were sent before `oldest_ms` are too
    /// old to be shown.
    pub fn read_page(
        &self,
        partition: i32,
        user: UserId,
        query: &PageQuery,
        oldest_ms: i64,
    ) -> Page {
        let here = self.cursor_at(partition, self.last_offset());
        let topic_epochs = self.topic_epochs;
        let inbox = self.users.get(&user);
        let gap = self.find_gap(partition, inbox, query.since, oldest_ms);
        let Some(inbox) = inbox else {
            let (items, version) = (Vec::new(), (-1, -1, 0));
            return Page {
                items,
                unread: 0,
                cursor: here,
                more: false,
                gap,
                version,
                topic_epochs,
            };
        };
        let after = start_offset(query.since, gap);
        let matches = |entry: &&Entry| {
            entry.offset > after
                && !matches!(query.since, Since::Time(from) if entry.sent_at_ms < from)
                && !(query.unread && entry.state.read)
                && query
                    .category
                    .as_deref()
                    .is_none_or(|wanted| entry.category.as_deref() == Some(wanted))
        };
        let limit = query.limit.unwrap_or(usize::MAX);
        let (mut unread, mut matching, mut items) = (0, 0, Vec::new());
        for entry in inbox.shown_after(-1, oldest_ms) {
            unread += usize::from(!entry.state.read);
            if matches(&entry) {
                matching += 1;
                if query.since == Since::Newest || items.len() < limit {
                    items.extend(self.page_item(partition, entry));
                }
            }
        }
        let more = query.since != Since::Newest && matching > limit;
        if query.since == Since::Newest && items.len() > limit {
            items.drain(..items.len() - limit);
        }
        let cursor = if more { items.last().map_or(here, |item| item.at) } else { here };
        let version = inbox.version(oldest_ms);
        Page { items, unread, cursor, more, gap, version, topic_epochs }
    }

    /// Finds the start of a feed of this user.
    pub(super) fn begin_feed(
        &self,
        partition: i32,
        user: UserId,
        start: &FeedStart,
        oldest_ms: i64,
    ) -> FeedPosition {
        let inbox = self.users.get(&user);
        let gap = self.find_gap(partition, inbox, start.since, oldest_ms);
        let shown = || inbox.into_iter().flat_map(|inbox| inbox.shown_after(-1, oldest_ms));
        let offset = match start.since {
            Since::Cursor(_) | Since::Beginning => start_offset(start.since, gap),
            Since::Newest => {
                let before = start.limit.and_then(|limit| shown().rev().nth(limit));
                before.map_or(-1, |entry| entry.offset)
            }
            Since::Time(from) => {
                let first = shown().find(|entry| entry.sent_at_ms >= from);
                first.map_or(self.last_offset(), |entry| entry.offset - 1)
            }
        };
        let eviction = inbox.and_then(|inbox| inbox.last_eviction(oldest_ms));
        let missing_through = eviction.map_or(-1, |eviction| eviction.through);
        FeedPosition { at: self.cursor_at(partition, offset), missing_through, gap }
    }

    /// Entries of this user after an offset, oldest first, whose category `is_wanted`: at most
    /// [`MAX_BATCH`], and none after [`MAX_BATCH_BYTES`] of JSON.
    pub(super) fn read_batch(
        &self,
        partition: i32,
        user: UserId,
        after: i64,
        is_wanted: impl Fn(Option<&str>) -> bool,
        oldest_ms: i64,
    ) -> FeedBatch {
        let Some(inbox) = self.users.get(&user) else { return FeedBatch::default() };
        let mut wanted = inbox
            .shown_after(after, oldest_ms)
            .filter(|entry| is_wanted(entry.category.as_deref()));
        let (mut items, mut bytes) = (Vec::new(), 0);
        while items.len() < MAX_BATCH && bytes < MAX_BATCH_BYTES {
            let Some(entry) = wanted.next() else { break };
            bytes += entry.json_bytes as usize;
            items.extend(self.page_item(partition, entry));
        }
        let more = wanted.next().is_some();
        let unread = inbox.count_unread(oldest_ms);
        let eviction = inbox.last_eviction(oldest_ms).filter(|eviction| eviction.through > after);
        FeedBatch { items, unread, more, eviction }
    }

    /// The read state of this user's entries at or before a position.
    pub(super) fn read_state(&self, user: UserId, at: Cursor, oldest_ms: i64) -> ReadState {
        let (mut read_ids, mut unread_ids, mut unread) = (Vec::new(), Vec::new(), 0);
        if let Some(inbox) = self.users.get(&user) {
            for entry in inbox.shown_after(-1, oldest_ms) {
                unread += usize::from(!entry.state.read);
                if entry.offset <= at.offset {
                    let ids = if entry.state.read { &mut read_ids } else { &mut unread_ids };
                    ids.push(entry.id.clone());
                }
            }
        }
        ReadState { unread, read_ids, unread_ids, at }
    }

    /// Set if entries that a reader asks for with `since` may be missing.
    fn find_gap(
        &self,
        partition: i32,
        inbox: Option<&Inbox>,
        since: Since,
        oldest_ms: i64,
    ) -> Option<Gap> {
        let eviction = inbox.and_then(|inbox| inbox.last_eviction(oldest_ms));
        let through = |offset| self.cursor_at(partition, offset);
        match since {
            Since::Newest | Since::Beginning => None,
            Since::Time(from) => {
                eviction.filter(|eviction| eviction.sent_at_ms >= from).map(|eviction| Gap {
                    reason: eviction.reason.into(),
                    after: None,
                    through: through(eviction.through),
                })
            }
            Since::Cursor(cursor) => {
                let gap = |reason, offset| {
                    Some(Gap { reason, after: Some(cursor), through: through(offset) })
                };
                if cursor.partition != partition
                    || !self.is_same_log(cursor)
                    || cursor.offset > self.last_offset()
                {
                    return gap(GapReason::Unknown, self.last_offset());
                }
                match eviction {
                    Some(eviction) if eviction.through > cursor.offset => {
                        gap(eviction.reason.into(), eviction.through)
                    }
                    _ if cursor.offset + 1 < self.complete_from => {
                        gap(GapReason::Retention, self.complete_from - 1)
                    }
                    _ => None,
                }
            }
        }
    }

    fn page_item(&self, partition: i32, entry: &Entry) -> Option<PageItem> {
        Some(PageItem {
            at: self.cursor_at(partition, entry.offset),
            sent_at_ms: entry.sent_at_ms,
            state: entry.state,
            json: entry.json.clone()?,
        })
    }
}

/// The offset after which to read: that of the cursor, or −1 without one. A cursor of another log
/// says nothing about this one, so it is ignored.
fn start_offset(since: Since, gap: Option<Gap>) -> i64 {
    match since {
        Since::Cursor(cursor) if gap.is_none_or(|gap| gap.reason != GapReason::Unknown) => {
            cursor.offset
        }
        Since::Cursor(_) | Since::Newest | Since::Beginning | Since::Time(_) => -1,
    }
}
