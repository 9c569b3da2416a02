//! A read request and its answer. The answer holds handles that were cloned under the partition's
//! lock; its JSON is written after the lock is released.

use std::{collections::HashSet, fmt::Write as _, sync::Arc, time::Duration};

use model::{Cursor, NotificationId};
use utoipa::ToSchema;

use super::{
    entry::{EntryJson, EntryState},
    inbox::EvictionReason,
};

/// A read request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PageQuery {
    /// The start of the page.
    pub since: Since,
    /// The most entries of a page: the first ones after [`since`](Self::since), or the newest if
    /// that is not given.
    pub limit: Option<usize>,
    /// Only entries that are not read.
    pub unread: bool,
    /// Only entries of this category.
    pub category: Option<String>,
    /// Answer only once the view contains this record.
    pub at_least: Option<Cursor>,
    /// How long to wait for an entry if the page would be empty.
    pub wait: Duration,
}

/// The start of a page or a stream.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Since {
    /// With the newest entries, as many as the limit allows.
    #[default]
    Newest,
    /// With the oldest entry.
    Beginning,
    /// After this record.
    Cursor(Cursor),
    /// At this time, in milliseconds since 1970.
    Time(i64),
}

/// The request of a live stream.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FeedStart {
    /// The start of the stream.
    pub since: Since,
    /// With [`Since::Newest`], the most entries that are there already.
    pub limit: Option<usize>,
    /// Only notifications of this category.
    pub category: Option<Box<str>>,
}

/// Which entries a receipt is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Selector {
    /// The entries with these ids.
    Ids(HashSet<NotificationId>),
    /// The entries up to and with this offset.
    Through(i64),
    /// All entries of the inbox.
    All,
}

/// A part of an inbox, oldest entry first.
#[derive(Debug)]
pub struct Page {
    /// The entries.
    pub items: Vec<PageItem>,
    /// Number of entries in the whole inbox that are not read.
    pub unread: usize,
    /// The `since` with which a client continues after this page.
    pub cursor: Cursor,
    /// True if the limit left out entries that come after this page.
    pub more: bool,
    /// Set if entries that were asked for may be missing.
    pub gap: Option<Gap>,
    /// Changes whenever the shown content of the inbox does. Every instance computes the same.
    pub version: (i64, i64, i64),
}

/// Entries that were asked for may be missing: those after `after`, up to and with `through`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, ToSchema)]
pub struct Gap {
    /// Why they are missing.
    pub reason: GapReason,
    /// The cursor that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = String, required = false, example = "3-7")]
    pub after: Option<Cursor>,
    /// The last record that may be missing.
    #[schema(value_type = String, example = "3-40")]
    pub through: Cursor,
}

/// Why entries may be missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
pub enum GapReason {
    /// Newer entries took their place in the inbox.
    Evicted,
    /// They were too old for the inbox.
    Expired,
    /// The topic's retention has removed them, or the log has lost them.
    Retention,
    /// The cursor is of another partition, or of a topic that was deleted and created again.
    Unknown,
}

impl From<EvictionReason> for GapReason {
    fn from(reason: EvictionReason) -> Self {
        match reason {
            EvictionReason::Evicted => Self::Evicted,
            EvictionReason::Expired => Self::Expired,
        }
    }
}

/// A notification in an inbox.
#[derive(Debug, Clone, ToSchema)]
#[schema(as = Notification)]
pub struct PageItem {
    /// Its position in the log.
    #[schema(rename = "cursor", value_type = String, example = "3-1042")]
    pub at: Cursor,
    /// When it was sent, in milliseconds since 1970.
    #[schema(ignore)]
    pub sent_at_ms: i64,
    /// The recipient's actions on it.
    #[serde(flatten)]
    pub state: EntryState,
    /// The beginning of its JSON object: all fields but its state and its cursor.
    #[serde(flatten)]
    #[schema(value_type = EntryJson)]
    pub json: Arc<str>,
}

// The schema of the JSON that `Page::to_json` writes.
/// A part of an inbox, oldest entry first.
#[derive(ToSchema)]
#[schema(as = Page)]
#[allow(dead_code)] // described only
pub struct PageBody {
    /// "No notifications found for user", if the list is empty.
    #[schema(required = false, nullable = false)]
    message: Option<String>,
    notifications: Vec<PageItem>,
    /// Number of unread notifications in the whole inbox.
    unread: u64,
    /// Pass it as `since` to continue after this page.
    #[schema(example = "3-1042")]
    cursor: String,
    /// True if `limit` left notifications out.
    #[schema(required = false, nullable = false)]
    more: Option<bool>,
    #[schema(required = false, nullable = false)]
    gap: Option<Gap>,
}

/// The read state of the entries that a client may hold from before.
#[derive(Debug, Clone, serde::Serialize)]
pub struct ReadState {
    /// Number of entries in the whole inbox that are not read.
    pub unread: usize,
    /// Entries at or before `at` that are shown and read.
    pub read_ids: Vec<NotificationId>,
    /// Entries at or before `at` that are shown and not read.
    pub unread_ids: Vec<NotificationId>,
    /// The position after which the client gets every event.
    #[serde(rename = "cursor")]
    pub at: Cursor,
}

/// The most bytes that [`PageItem::write_json`] and a comma add to an item's own JSON.
const ITEM_OVERHEAD_BYTES: usize =
    EntryState::MAX_JSON_BYTES + ",\"cursor\":\"12-1234567890\"},".len();

impl PageItem {
    /// Appends the whole JSON object of this entry.
    pub fn write_json(&self, json: &mut String) {
        json.push_str(&self.json);
        self.state.write_json(json);
        json.push_str(",\"cursor\":\"");
        let _ = self.at.write_to(json);
        json.push_str("\"}");
    }
}

impl Page {
    /// Adds the entries of another partition, ordered by time.
    pub(super) fn merge_page(&mut self, other: Page) {
        self.items.extend(other.items);
        self.items.sort_by_key(|item| item.sent_at_ms);
        self.unread += other.unread;
    }

    /// `{"notifications":[…],"unread":1,"cursor":"3-1042"}`, with a `message` if the page is
    /// empty, and with `more` and `gap` if they are set.
    pub fn to_json(&self) -> String {
        let length =
            self.items.iter().map(|item| item.json.len() + ITEM_OVERHEAD_BYTES).sum::<usize>();
        let mut json = String::with_capacity(length + 160);
        json.push('{');
        if self.items.is_empty() {
            // Word for word that of the ancestor tutorial.
            json.push_str("\"message\":\"No notifications found for user\",");
        }
        json.push_str("\"notifications\":[");
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            item.write_json(&mut json);
        }
        let _ = write!(json, "],\"unread\":{},\"cursor\":\"{}\"", self.unread, self.cursor);
        if self.more {
            json.push_str(",\"more\":true");
        }
        if let Some(gap) = &self.gap {
            json.push_str(",\"gap\":");
            append_json(gap, &mut json);
        }
        json.push('}');
        json
    }
}

/// Appends `value` as JSON on one line.
pub(super) fn append_json(value: &impl serde::Serialize, json: &mut String) {
    // Serializing to a string cannot fail.
    json.push_str(&serde_json::to_string(value).unwrap_or_default());
}
