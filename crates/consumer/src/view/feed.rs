//! One reader's way through an inbox: first what they missed, then what comes, without a seam.
//!
//! A feed holds a place in the log and no events. Whenever something of its user changes it reads
//! the inbox from that place on, so there is nothing that a slow reader could fill or a fast one
//! could overtake; an inbox that evicted what the reader has not had yet is a gap, which is said.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use model::{Action, Cursor, NotificationId, Receipt, UserId};

use super::{
    NotLive, Since, View,
    inboxes::{Inboxes, Part},
    page::{Gap, GapReason, Item},
    watchers::{Receipts, Watch},
};

/// The most entries that are taken from an inbox at a time.
const BATCH: usize = 32;

/// Where a feed begins, and what it has.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Start {
    /// Where to begin.
    pub since: Since,
    /// With [`Since::Newest`], at most so many of the entries that are there already.
    pub limit: Option<usize>,
    /// Only notifications of this category.
    pub category: Option<Box<str>>,
}

/// Something a reader is told.
#[derive(Debug, Clone)]
pub enum Event {
    /// What is known of the entries at or before a place. First of all, and again whenever
    /// receipts went by too fast to be told one by one.
    State(State),
    /// An entry.
    Notification {
        /// The entry.
        item: Item,
        /// How many of the inbox's entries are not read.
        unread: usize,
    },
    /// What the recipient did, here or on another device.
    Receipt {
        /// What.
        receipt: Arc<Receipt>,
        /// How many of the inbox's entries are not read now.
        unread: usize,
    },
    /// Entries may be missing.
    Gap(Gap),
    /// Nothing has happened for some time; this is how far the log was read.
    Heartbeat(Cursor),
    /// The last event: why the feed ends.
    End(Ended),
}

/// The entries that a reader may hold from before.
#[derive(Debug, Clone)]
pub struct State {
    /// How many of the inbox's entries are not read.
    pub unread: usize,
    /// Entries at or before `at` that are shown and read.
    pub read_ids: Vec<NotificationId>,
    /// Entries at or before `at` that are shown and not read.
    pub unread_ids: Vec<NotificationId>,
    /// The place from which on everything is told.
    pub at: Cursor,
}

/// Why a feed ends although nobody left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ended {
    /// The user's partition is not this instance's any more.
    Moved,
    /// The process ends.
    Shutdown,
    /// The reader may not read any longer.
    Expired,
}

/// Why no feed was opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The inbox cannot be read here and now.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// The user has as many feeds as are allowed.
    #[error("this user is followed {0} times already, which is the most that is allowed")]
    TooMany(usize),
}

/// A reader's place.
#[derive(Debug)]
pub struct Feed {
    view: Arc<View>,
    watch: Watch,
    user: UserId,
    home: i32,
    category: Option<Box<str>>,
    /// Everything up to this offset has been told.
    after: i64,
    /// The newest offset when this began: what comes after it is new.
    opened_at: i64,
    /// Every receipt up to this offset has been told.
    receipts_after: i64,
    /// More is there than the last batch held.
    more: bool,
}

impl Feed {
    /// Opens a feed for this user, of whom there may be `most`, with what is told first. Waits for
    /// at most `patience` until the user's partition is live, and contains the place at which the
    /// feed is to begin.
    ///
    /// # Errors
    /// [`OpenError`].
    pub async fn open(
        view: Arc<View>,
        user: UserId,
        start: Start,
        most: usize,
        patience: Duration,
    ) -> Result<(Self, Vec<Event>), OpenError> {
        let (home, partition) = view.at_home(user)?;
        let watch = partition.watch(user);
        if watch.readers() > most {
            return Err(OpenError::TooMany(most));
        }
        let reached = match start.since {
            Since::Cursor(cursor) if cursor.partition == home => cursor.offset,
            Since::Cursor(_) | Since::Newest | Since::Beginning | Since::Time(_) => -1,
        };
        let oldest = view.oldest();
        let begin = |inboxes: &Inboxes| {
            let beginning = inboxes.begin(home, user, &start, oldest);
            let state = state(inboxes, user, beginning.at, oldest);
            (inboxes.last(), inboxes.last_receipt(), state, beginning)
        };
        // A cursor from the answer to a send may be a moment ahead of the view.
        let caught_up = |inboxes: &Inboxes| (inboxes.last() >= reached).then(|| begin(inboxes));
        let (opened_at, receipts_after, state, beginning) =
            match partition.when(home, patience, caught_up).await {
                Err(NotLive::Behind { partition: number, position }) => partition
                    .if_live(begin)
                    .ok_or(NotLive::Behind { partition: number, position })?,
                found => found?,
            };
        view.assured(home)?;
        let mut events = vec![Event::State(state)];
        events.extend(beginning.gap.map(Event::Gap));
        let (after, category) = (beginning.after, start.category);
        let more = true;
        let feed =
            Self { view, watch, user, home, category, after, opened_at, receipts_after, more };
        Ok((feed, events))
    }

    /// Whether this was not there yet when the feed was opened.
    #[must_use]
    pub fn is_new(&self, item: &Item) -> bool {
        item.at.offset > self.opened_at
    }

    /// What comes next, at least one event. Safe to drop while it waits.
    pub async fn next(&mut self) -> Vec<Event> {
        loop {
            if !self.more && !self.watch.changed().await {
                return vec![Event::End(Ended::Moved)];
            }
            match self.pull() {
                Some(events) if events.is_empty() => {}
                Some(events) => return events,
                None => return vec![Event::End(Ended::Moved)],
            }
        }
    }

    /// How far the log is read, for a reader to whom nothing was told for some time; or, if there
    /// is something after all, that.
    pub fn heartbeat(&mut self) -> Vec<Event> {
        match self.pull() {
            Some(events) if events.is_empty() => {
                vec![Event::Heartbeat(Cursor::new(self.home, self.after))]
            }
            Some(events) => events,
            None => vec![Event::End(Ended::Moved)],
        }
    }

    /// The next batch. None: the partition is not ours any more.
    fn pull(&mut self) -> Option<Vec<Event>> {
        self.view.assured(self.home).ok()?;
        let oldest = self.view.oldest();
        // Before the inbox is read, so that the count of what is not read includes each of these.
        let receipts = self.watch.receipts_after(self.receipts_after);
        let forgotten = matches!(receipts, Receipts::Forgotten);
        let (part, position, told) = self.view.partition(self.home)?.if_live(|inboxes| {
            let wanted = |category: Option<&str>| {
                self.category.as_deref().is_none_or(|wanted| category == Some(wanted))
            };
            let part = inboxes.part(self.home, self.user, self.after, BATCH, wanted, oldest);
            let through = part.items.last().filter(|_| part.more).map(|item| item.at.offset);
            let position = through.unwrap_or_else(|| inboxes.last().max(self.after));
            // Everything that happened to what is told by then.
            let told = (forgotten && !part.more).then(|| {
                let at = Cursor::new(self.home, position);
                (inboxes.last_receipt(), state(inboxes, self.user, at, oldest))
            });
            (part, position, told)
        })?;
        let Part { items, unread, more, evicted } = part;
        let mut events = Vec::new();
        if let Some(evicted) = evicted {
            events.push(Event::Gap(Gap {
                reason: GapReason::Inbox(evicted.reason),
                after: Some(Cursor::new(self.home, self.after)),
                through: Cursor::new(self.home, evicted.through),
            }));
        }
        events.extend(items.into_iter().map(|item| Event::Notification { item, unread }));
        self.after = position;
        self.more = more;
        // While there is more to come, its count would be ahead of what was told.
        if !more {
            match (told, receipts) {
                (Some((last, state)), _) => {
                    self.receipts_after = last;
                    events.push(Event::State(state));
                }
                (None, Receipts::Known(receipts)) => {
                    for (offset, receipt) in receipts {
                        self.receipts_after = offset;
                        events.push(Event::Receipt { receipt, unread });
                    }
                }
                (None, Receipts::Forgotten) => {}
            }
        }
        Some(events)
    }
}

fn state(inboxes: &Inboxes, user: UserId, at: Cursor, oldest: i64) -> State {
    let (read_ids, unread_ids, unread) = inboxes.marks(user, at.offset, oldest);
    State { unread, read_ids, unread_ids, at }
}

impl Event {
    /// Its name, on every transport.
    #[must_use]
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

    /// The place from which a reader who has had this event goes on. None: as before.
    #[must_use]
    pub fn cursor(&self) -> Option<Cursor> {
        match self {
            Self::State(state) => Some(state.at),
            Self::Notification { item, .. } => Some(item.at),
            Self::Heartbeat(at) => Some(*at),
            // What is there follows from the beginning of the inbox.
            Self::Gap(Gap { reason: GapReason::Unknown, .. }) => None,
            Self::Gap(gap) => gap.after.map(|_| gap.through),
            Self::Receipt { .. } | Self::End(_) => None,
        }
    }

    /// Whether [`write_data`](Self::write_data) writes something.
    #[must_use]
    pub fn has_data(&self) -> bool {
        !matches!(self, Self::Heartbeat(_))
    }

    /// Appends its data, a JSON object on one line.
    pub fn write_data(&self, json: &mut String) {
        match self {
            Self::State(state) => {
                let _ = write!(json, "{{\"unread\":{},\"read_ids\":", state.unread);
                write_ids(&state.read_ids, json);
                json.push_str(",\"unread_ids\":");
                write_ids(&state.unread_ids, json);
                let _ = write!(json, ",\"cursor\":\"{}\"}}", state.at);
            }
            Self::Notification { item, unread } => {
                item.write(json);
                json.pop();
                let _ = write!(json, ",\"unread\":{unread}}}");
            }
            Self::Receipt { receipt, unread } => {
                let action = match receipt.action {
                    Action::Read => "read",
                    Action::Unread => "unread",
                    Action::Dismissed => "dismissed",
                };
                let _ = write!(json, "{{\"action\":\"{action}\",\"ids\":");
                write_ids(&receipt.ids, json);
                let _ = write!(json, ",\"unread\":{unread}}}");
            }
            Self::Gap(gap) => gap.write(json),
            Self::Heartbeat(_) => {}
            Self::End(Ended::Moved) => json.push_str("{\"reason\":\"moved\"}"),
            Self::End(Ended::Expired) => json.push_str("{\"reason\":\"expired\"}"),
            Self::End(Ended::Shutdown) => json.push_str("{\"reason\":\"shutdown\"}"),
        }
    }
}

fn write_ids(ids: &[NotificationId], json: &mut String) {
    json.push('[');
    for (index, id) in ids.iter().enumerate() {
        if index > 0 {
            json.push(',');
        }
        match id {
            NotificationId::Uuid(_) | NotificationId::Position(_) => {
                let _ = write!(json, "\"{id}\"");
            }
            // Of any spelling, so it may need escapes.
            NotificationId::Other(text) => {
                json.push_str(&serde_json::Value::from(text.as_ref()).to_string());
            }
        }
    }
    json.push(']');
}
