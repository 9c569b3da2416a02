//! What a reader takes away from an inbox: handles, cloned under the lock and written out after it.

use std::{fmt::Write as _, sync::Arc};

use model::Cursor;

/// A part of an inbox, oldest first.
#[derive(Debug)]
pub struct Page {
    /// The entries.
    pub items: Vec<Item>,
    /// How many of the inbox's entries are not read.
    pub unread: usize,
    /// How far the view had come: it contains everything up to here.
    pub cursor: Cursor,
}

/// One entry of a page.
#[derive(Debug)]
pub struct Item {
    /// Where it is in the log.
    pub at: Cursor,
    /// When it was sent, in milliseconds since 1970.
    pub sent_at_ms: i64,
    /// The beginning of its JSON, see [`Entry`](super::entry::Entry).
    pub json: Arc<str>,
}

/// What an empty inbox says, word for word as the ancestor tutorial does.
pub const NONE_FOUND: &str = "No notifications found for user";

impl Page {
    /// Adds the entries of another partition, by time.
    pub(super) fn merge(&mut self, other: Page) {
        self.items.extend(other.items);
        self.items.sort_by_key(|item| item.sent_at_ms);
        self.unread += other.unread;
    }

    /// `{"notifications":[…],"unread":1,"cursor":"3-1042"}`, with [`NONE_FOUND`] as `message` when
    /// there are none.
    #[must_use]
    pub fn to_json(&self) -> String {
        const AROUND_ITEM: usize = ",\"read\":false,\"cursor\":\"12-1234567890\"},".len();
        let length = self.items.iter().map(|item| item.json.len() + AROUND_ITEM).sum::<usize>();
        let mut json = String::with_capacity(length + 128);
        json.push('{');
        if self.items.is_empty() {
            let _ = write!(json, "\"message\":\"{NONE_FOUND}\",");
        }
        json.push_str("\"notifications\":[");
        for (index, item) in self.items.iter().enumerate() {
            if index > 0 {
                json.push(',');
            }
            json.push_str(&item.json);
            let _ = write!(json, ",\"read\":false,\"cursor\":\"{}\"}}", item.at);
        }
        let _ = write!(json, "],\"unread\":{},\"cursor\":\"{}\"}}", self.unread, self.cursor);
        json
    }
}
