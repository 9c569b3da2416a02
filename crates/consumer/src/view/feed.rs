//! The events of one live stream: first what its reader has missed, then what comes.
//!
//! A feed holds a position in the log and no events. Whenever its user's inbox changes, it reads the
//! inbox from that position on. So a slow reader fills no queue, and no event is lost between the
//! first read and the first change. If the inbox has evicted entries that the reader has not had, the
//! feed sends a gap.

use std::{
    fmt::Write as _,
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use futures_util::{FutureExt as _, future::BoxFuture};
use model::{Cursor, Receipt, UserId};

use super::{
    inboxes::Inboxes,
    page::{FeedStart, Gap, GapReason, PageItem, ReadState, Since, append_json},
    partitions::View,
    query::FeedBatch,
    status::NotLive,
    watchers::Watcher,
};

/// An event of a live stream.
#[derive(Debug, Clone)]
pub enum FeedEvent {
    /// The read state of the entries at or before a position. The first event, and sent again when
    /// more receipts came than were kept for this reader.
    State(ReadState),
    /// An entry.
    Notification {
        /// The entry.
        item: PageItem,
        /// Number of entries in the whole inbox that are not read.
        unread: usize,
    },
    /// The recipient did something, here or on another device.
    Receipt {
        /// The action and its notifications.
        receipt: Arc<Receipt>,
        /// Number of entries in the whole inbox that are not read now.
        unread: usize,
    },
    /// Entries may be missing.
    Gap(Gap),
    /// There was no other event; the log is read up to here.
    Heartbeat(Cursor),
    /// The last event.
    End(EndReason),
}

/// Why the server ends a feed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum EndReason {
    /// The user's partition was revoked from this instance.
    Moved,
    /// The process shuts down.
    Shutdown,
    /// The reader's token has expired.
    Expired,
    /// The key that signed the reader's token is no longer in use.
    Revoked,
}

/// Why a feed was not opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenFeedError {
    /// The inbox cannot be read here and now.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// The user has as many feeds as are allowed.
    #[error("live-stream limit of this user reached ({0})")]
    TooMany(usize),
}

/// A reader's position in an inbox.
pub struct Feed {
    view: Arc<View>,
    watcher: Watcher,
    user: UserId,
    home: i32,
    /// Identifies the inboxes that the feed reads. It ends if the partition gets others.
    inboxes_epoch: u64,
    /// The epoch of the log, for cursors.
    log_epoch: Option<u32>,
    category: Option<Box<str>>,
    /// Offset up to which the reader has had every entry.
    sent_through: i64,
    /// Offset of the last missing entry of which the reader knows, or that it did not ask for.
    missing_through: i64,
    /// Newest offset when the feed was opened; entries after it are new.
    opened_at: i64,
    /// Offset of the receipts' topic up to which the reader has had every receipt.
    receipts_sent_through: i64,
    /// The notifications that the log lost below this offset are known to the reader.
    lost_below: i64,
    /// True if the inbox has further entries after the last batch.
    more: bool,
    /// Set while the view may not answer.
    lease: Option<BoxFuture<'static, ()>>,
}

impl Feed {
    /// Opens a feed for this user, who may have at most `max_feeds`. Returns it with its first
    /// events. Waits for at most `wait_timeout` until the user's partition is live and has caught up
    /// to the position at which the feed begins.
    pub async fn open(
        view: Arc<View>,
        user: UserId,
        start: FeedStart,
        max_feeds: usize,
        wait_timeout: Duration,
    ) -> Result<(Self, Vec<FeedEvent>), OpenFeedError> {
        let (home, partition, wait_timeout) = view.find_home(user, wait_timeout).await?;
        let watcher = partition.watch_user(user);
        if watcher.reader_count() > max_feeds {
            return Err(OpenFeedError::TooMany(max_feeds));
        }
        let oldest_ms = view.oldest_ms();
        let begin = |inboxes: &Inboxes| {
            let position = inboxes.begin_feed(home, user, &start, oldest_ms);
            let state = inboxes.read_state(user, position.at, oldest_ms);
            let last_offsets = (inboxes.last_offset(), inboxes.last_receipt_offset());
            let at = (inboxes.epoch, last_offsets, inboxes.lost_below);
            (at, state, position)
        };
        // The cursor of an answer to a send may be a moment ahead of the view.
        let is_ahead = |inboxes: &Inboxes, cursor: Cursor| {
            let is_here = cursor.partition == home && inboxes.is_same_log(cursor);
            is_here && inboxes.last_offset() < cursor.offset
        };
        let caught_up = |inboxes: &Inboxes| match start.since {
            Since::Cursor(cursor) if is_ahead(inboxes, cursor) => None,
            _ => Some(begin(inboxes)),
        };
        let (at, state, position) = match partition.read_when(home, wait_timeout, caught_up).await {
            Err(ahead @ NotLive::NotCaughtUp(..)) => partition.read_if_live(begin).ok_or(ahead)?,
            found => found?,
        };
        let (inboxes_epoch, (opened_at, receipts_sent_through), lost_below) = at;
        view.check_lease(home)?;
        let log_epoch = state.at.epoch;
        let mut events = vec![FeedEvent::State(state)];
        events.extend(position.gap.map(FeedEvent::Gap));
        let feed = Self {
            view,
            watcher,
            user,
            home,
            inboxes_epoch,
            log_epoch,
            category: start.category,
            sent_through: position.at.offset,
            missing_through: position.missing_through,
            opened_at,
            receipts_sent_through,
            lost_below,
            more: true,
            lease: None,
        };
        Ok((feed, events))
    }

    /// Returns true if this entry came after the feed was opened.
    pub fn is_new(&self, item: &PageItem) -> bool {
        item.at.offset > self.opened_at
    }

    /// Waits for the next events, at least one. Cancel safe.
    pub async fn next_events(&mut self) -> Vec<FeedEvent> {
        poll_fn(|cx| self.poll_events(cx)).await
    }

    /// Ready with the next events, at least one.
    pub(crate) fn poll_events(&mut self, cx: &mut Context<'_>) -> Poll<Vec<FeedEvent>> {
        let moved = || Poll::Ready(vec![FeedEvent::End(EndReason::Moved)]);
        loop {
            if !self.more && !ready!(self.watcher.poll_change(cx)) {
                return moved();
            }
            // Until the lease is renewed or the partition is revoked there is no event: the stream
            // need not end, because the brokers may only be slow.
            if !self.view.holds_lease() {
                self.more = true;
                let view = &self.view;
                let lease = self.lease.get_or_insert_with(|| {
                    let view = Arc::clone(view);
                    async move { view.await_lease().await }.boxed()
                });
                if lease.poll_unpin(cx).is_pending() {
                    if !ready!(self.watcher.poll_change(cx)) {
                        return moved();
                    }
                    continue;
                }
            }
            self.lease = None;
            match self.read_events() {
                Some(events) if events.is_empty() => {}
                Some(events) => return Poll::Ready(events),
                None => return moved(),
            }
        }
    }

    /// The bytes that `render` makes of this event in this format, shared with other readers of the
    /// same user.
    pub(crate) fn share_rendered(
        &self,
        event: &FeedEvent,
        format: &'static str,
        render: impl FnOnce() -> Bytes,
    ) -> Bytes {
        self.watcher.share_rendered(event, format, render)
    }

    /// A heartbeat, or the events that are there after all.
    pub fn heartbeat(&mut self) -> Vec<FeedEvent> {
        match self.read_events() {
            Some(events) if events.is_empty() => {
                vec![FeedEvent::Heartbeat(self.cursor_at(self.sent_through))]
            }
            Some(events) => events,
            None => vec![FeedEvent::End(EndReason::Moved)],
        }
    }

    fn cursor_at(&self, offset: i64) -> Cursor {
        Cursor::new(self.home, offset).with_epoch(self.log_epoch)
    }

    /// Reads the next batch, which is empty without a lease. `None` if the partition was revoked or
    /// reset.
    fn read_events(&mut self) -> Option<Vec<FeedEvent>> {
        if !self.view.holds_lease() {
            return Some(Vec::new());
        }
        let oldest_ms = self.view.oldest_ms();
        // Before the inbox is read, so that its unread count includes each of these.
        let receipts = self.watcher.receipts_after(self.receipts_sent_through);
        let partition = self.view.partition(self.home)?;
        let (batch, position, state, lost_below) = partition.read_if_complete(|inboxes| {
            // The offsets of a partition that was reset may be those of another log.
            if inboxes.epoch != self.inboxes_epoch {
                return None;
            }
            let is_wanted = |category: Option<&str>| {
                self.category.as_deref().is_none_or(|wanted| category == Some(wanted))
            };
            let batch =
                inboxes.read_batch(self.home, self.user, self.sent_through, is_wanted, oldest_ms);
            let through = batch.items.last().filter(|_| batch.more).map(|item| item.at.offset);
            let position = through.unwrap_or_else(|| inboxes.last_offset().max(self.sent_through));
            // The state of all entries that the reader has by then.
            let state = (receipts.is_none() && !batch.more).then(|| {
                let at = self.cursor_at(position);
                (inboxes.last_receipt_offset(), inboxes.read_state(self.user, at, oldest_ms))
            });
            Some((batch, position, state, inboxes.lost_below))
        })??;
        let FeedBatch { items, unread, more, eviction } = batch;
        let mut events = Vec::new();
        if let Some(eviction) = eviction.filter(|one| one.through > self.missing_through) {
            self.missing_through = eviction.through;
            events.push(FeedEvent::Gap(Gap {
                reason: eviction.reason.into(),
                after: Some(self.cursor_at(self.sent_through)),
                through: self.cursor_at(eviction.through),
            }));
        }
        if lost_below > self.lost_below {
            self.lost_below = lost_below;
            // Without a position of its own: the reader may have had later entries already.
            let (reason, through) = (GapReason::Retention, self.cursor_at(lost_below - 1));
            events.push(FeedEvent::Gap(Gap { reason, after: None, through }));
        }
        events.extend(items.into_iter().map(|item| FeedEvent::Notification { item, unread }));
        self.sent_through = position;
        self.more = more;
        // While further entries follow, the unread count would be ahead of what the reader has.
        if !more {
            if let Some((last, state)) = state {
                self.receipts_sent_through = last;
                events.push(FeedEvent::State(state));
            }
            for (offset, receipt) in receipts.unwrap_or_default() {
                self.receipts_sent_through = offset;
                events.push(FeedEvent::Receipt { receipt, unread });
            }
        }
        Some(events)
    }
}

impl FeedEvent {
    /// Returns true if these are known to be the same event of one user's feeds. Compares no texts.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        match (self, other) {
            (
                Self::Notification { item, unread },
                Self::Notification { item: other, unread: other_unread },
            ) => {
                (item.at, item.state, unread) == (other.at, other.state, other_unread)
                    && Arc::ptr_eq(&item.json, &other.json)
            }
            (
                Self::Receipt { receipt, unread },
                Self::Receipt { receipt: other, unread: other_unread },
            ) => unread == other_unread && Arc::ptr_eq(receipt, other),
            _ => false,
        }
    }

    /// Its name on every transport.
    pub fn name(&self) -> &'static str {
        match self {
            Self::State(_) => "state",
            Self::Notification { .. } => "notification",
            Self::Receipt { .. } => "receipt",
            Self::Gap(_) => "gap",
            Self::Heartbeat(_) => "heartbeat",
            Self::End(_) => "end",
        }
    }

    /// The cursor from which a reader continues after this event; `None` leaves it as it was.
    pub fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::State(state) => Some(state.at),
            Self::Notification { item, .. } => Some(item.at),
            Self::Heartbeat(at) => Some(*at),
            // The entries that follow begin with the oldest of the inbox.
            Self::Gap(Gap { reason: GapReason::Unknown, .. }) => None,
            // Entries before an expired one may follow.
            Self::Gap(Gap { reason: GapReason::Expired, .. }) => None,
            Self::Gap(gap) => gap.after.map(|_| gap.through),
            Self::Receipt { .. } | Self::End(_) => None,
        }
    }

    /// Returns true if [`write_data`](Self::write_data) writes something.
    pub fn has_data(&self) -> bool {
        !matches!(self, Self::Heartbeat(_))
    }

    /// Appends its data, a JSON object on one line.
    pub fn write_data(&self, json: &mut String) {
        match self {
            Self::State(state) => append_json(state, json),
            Self::Notification { item, unread } => {
                item.write_json(json);
                json.pop();
                let _ = write!(json, ",\"unread\":{unread}}}");
            }
            Self::Receipt { receipt, unread } => {
                let action = receipt.action.as_str();
                let _ = write!(json, "{{\"action\":\"{action}\",\"ids\":");
                append_json(&receipt.ids, json);
                let _ = write!(json, ",\"unread\":{unread}}}");
            }
            Self::Gap(gap) => append_json(gap, json),
            Self::Heartbeat(_) => {}
            Self::End(reason) => append_json(&serde_json::json!({ "reason": reason }), json),
        }
    }
}
