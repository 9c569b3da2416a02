//! What a reader asks for, and what they take away: handles, cloned under the lock and written out
//! after it.

use std::{fmt::Write as _, sync::Arc, time::Duration};

use model::Cursor;

use super::inbox::Eviction;

/// What a reader asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Query {
    /// Where to begin.
    pub since: Since,
    /// At most so many entries: the first ones after [`since`](Self::since), or the newest when
    /// that is not given.
    pub limit: Option<usize>,
    /// Only what is not read.
    pub unread: bool,
    /// Only this category.
    pub category: Option<String>,
    /// Only once the view contains this place.
    pub at_least: Option<Cursor>,
    /// How long to wait for an entry, if there is none.
    pub wait: Duration,
}

/// Where a page begins.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// The newest entries, as many as the limit allows.
    #[default]
    Newest,
    /// The oldest entry.
    Beginning,
    /// After this place.
    Cursor(Cursor),
    /// At this time, in milliseconds since 1970.
    Time(i64),
}

/// A part of an inbox, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The entries.
    pub items: Vec<Item>,
    /// How many of the inbox's entries are not read.
    pub unread: usize,
    /// To be given as `since` for what comes after this page.
    pub cursor: Cursor,
    /// Whether the limit left entries out that come after this page.
    pub more: bool,
    /// Entries that were asked for may be missing.
    pub gap: Option<Gap>,
    /// Changes whenever what this user's inbox shows does, and is the same on every instance.
    pub version: (i64, i64, i64),
}

/// Entries that were asked for may be missing: those after `after` up to and with `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Gap {
    /// Why.
    pub reason: GapReason,
    /// The place that was asked for.
    pub after: Option<Cursor>,
    /// The last place that may be missing.
    pub through: Cursor,
}

/// Why entries may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GapReason {
    /// The inbox holds them no more.
    Inbox(Eviction),
    /// The log holds them no more.
    Retention,
    /// The cursor is of another log, or of one that was deleted and made again.
    Unknown,
}

impl GapReason {
    /// As an answer says it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Inbox(Eviction::Evicted) => "evicted",
            Self::Inbox(Eviction::Expired) => "expired",
            Self::Retention => "retention",
            Self::Unknown => "unknown",
        }
    }
}

/// One entry of a page.
#[derive(Debug, Clone)]
pub struct Item {
    /// Where it is in the log.
    pub at: Cursor,
    /// When it was sent, in milliseconds since 1970.
    pub sent_at_ms: i64,
    /// Whether its recipient has seen it.
    pub read: bool,
    /// The beginning of its JSON, see [`Entry`](super::entry::Entry).
    pub json: Arc<str>,
}

/// What an empty inbox says, word for word as the ancestor tutorial does.
pub const NONE_FOUND: &str = "No notifications found for user";

/// More than what [`Item::write`] adds to an item's own JSON.
const AROUND_ITEM: usize = ",\"read\":false,\"cursor\":\"12-1234567890\"},".len();

impl Item {
    /// Appends the whole JSON object of this entry.
    pub fn write(&self, json: &mut String) {
        json.push_str(&self.json);
        json.push_str(if self.read { ",\"read\":true" } else { ",\"read\":false" });
        json.push_str(",\"cursor\":\"");
        let _ = self.at.write_to(json);
        json.push_str("\"}");
    }
}

impl Page {
    /// Adds the entries of another partition, by time.
    pub(super) fn merge(&mut self, other: Page) {
        self.items.extend(other.items);
        self.items.sort_by_key(|item| item.sent_at_ms);
        self.unread += other.unread;
    }

    /// `{"notifications":[…],"unread":1,"cursor":"3-1042"}`, with [`NONE_FOUND`] as `message` when
    /// there are none, with `more` and `gap` where they are so.
    #[must_use]
    pub fn to_json(&self) -> String {
        let length = self.items.iter().map(|item| item.json.len() + AROUND_ITEM).sum::<usize>();
        let mut json = String::with_capacity(length + 160);
        json.push('{');
        if self.items.is_empty() {
            let _ = write!(json, "\"message\":\"{NONE_FOUND}\",");
        }
        json.push_str("\"notifications\":[");
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            item.write(&mut json);
        }
        let _ = write!(json, "],\"unread\":{},\"cursor\":\"{}\"", self.unread, self.cursor);
        if self.more {
            json.push_str(",\"more\":true");
        }
        if let Some(gap) = &self.gap {
            json.push_str(",\"gap\":");
            gap.write(&mut json);
        }
        json.push('}');
        json
    }
}

impl Gap {
    /// Appends this as a JSON object: `{"reason":"evicted","after":"3-7","through":"3-40"}`.
    pub fn write(&self, json: &mut String) {
        let _ = write!(json, "{{\"reason\":\"{}\"", self.reason.as_str());
        if let Some(after) = self.after {
            let _ = write!(json, ",\"after\":\"{after}\"");
        }
        let _ = write!(json, ",\"through\":\"{}\"}}", self.through);
    }
}
