//! One notification as an inbox keeps it: ready-to-send JSON beside the fields that are compared.

use std::sync::Arc;

use model::{Action, Fingerprint, Headers, Notification, NotificationId, headers::write_time};
use serde::ser::Error as _;

/// Bytes that an entry's JSON usually has beside its message; more than that costs one copy.
const JSON_OVERHEAD_BYTES: usize = 256;

/// The recipient's actions on a notification.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct EntryState {
    /// True if the recipient has read it.
    pub read: bool,
    /// True if the recipient has dismissed it: no answer shows it any more, so no JSON has this field.
    #[serde(skip)]
    pub dismissed: bool,
}

impl EntryState {
    const READ: u8 = 1;
    const DISMISSED: u8 = 2;
    /// The bits that [`to_bits`](Self::to_bits) may set.
    pub const BITS: u8 = Self::READ | Self::DISMISSED;
    /// The longest text that [`write_json`](Self::write_json) appends, in bytes.
    pub const MAX_JSON_BYTES: usize = ",\"read\":false".len();

    /// Applies what a receipt says. An entry that was dismissed stays dismissed.
    pub fn apply_action(&mut self, action: Action) {
        match action {
            Action::Read => self.read = true,
            Action::Unread => self.read = false,
            Action::Dismissed => self.dismissed = true,
        }
    }

    /// Combines two actions for a notification that has not come yet: the later one counts, except
    /// that a dismissed entry stays dismissed.
    pub fn merge_actions(earlier: Action, later: Action) -> Action {
        if earlier == Action::Dismissed { earlier } else { later }
    }

    /// Returns true if this action would change the state.
    pub fn is_changed_by(self, action: Action) -> bool {
        let mut changed = self;
        changed.apply_action(action);
        changed != self
    }

    /// The state as bits of a byte; [`from_bits`](Self::from_bits) is the inverse.
    pub fn to_bits(self) -> u8 {
        let bit = |is_set: bool, bit: u8| if is_set { bit } else { 0 };
        bit(self.read, Self::READ) | bit(self.dismissed, Self::DISMISSED)
    }

    /// The state in these bits; others are ignored.
    pub fn from_bits(bits: u8) -> Self {
        Self { read: bits & Self::READ != 0, dismissed: bits & Self::DISMISSED != 0 }
    }

    /// Appends the state as fields of a JSON object that has some already: `,"read":true`.
    pub fn write_json(self, json: &mut String) {
        json.push_str(if self.read { ",\"read\":true" } else { ",\"read\":false" });
    }
}

// The schema of the JSON that `Entry::new` writes.
/// The fields of a notification that never change.
#[derive(utoipa::ToSchema)]
#[allow(dead_code)] // described only
pub(super) struct EntryJson {
    from: EntryUser,
    to: EntryUser,
    #[schema(example = "Bruno started following you.")]
    message: String,
    /// Its kind, in the sender's own words.
    #[schema(required = false, nullable = false)]
    category: Option<String>,
    /// Target of a click.
    #[schema(required = false, nullable = false)]
    link: Option<String>,
    /// Any JSON from the sender for the recipient's program.
    #[schema(required = false)]
    data: Option<serde_json::Value>,
    /// Identifies the notification on every instance, for ever.
    #[schema(example = "01a20397-68d9-7367-9612-d4f7597a900b")]
    id: String,
    #[schema(format = DateTime, example = "2026-11-22T14:09:44.153Z")]
    sent_at: String,
}

/// A user in a notification.
#[derive(utoipa::ToSchema)]
#[schema(as = User)]
#[allow(dead_code)] // described only
pub(super) struct EntryUser {
    #[schema(minimum = 1, example = 2)]
    id: i64,
    /// The name at the time of sending.
    #[schema(example = "Bruno")]
    name: String,
}

/// A notification in an inbox.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its offset in the partition.
    pub offset: i64,
    /// When it was sent, in milliseconds since 1970, for its age: the earlier of what its producer
    /// says, which its JSON has, and the record's timestamp. A producer whose clock is ahead then
    /// cannot make an entry that never expires.
    pub sent_at_ms: i64,
    /// Its identity; an inbox holds no two entries with the same.
    pub id: NotificationId,
    /// Fingerprint of its content, if its sender gave an Idempotency-Key. Another content under the
    /// same id is another notification whose sender reused the key.
    pub fingerprint: Option<Fingerprint>,
    /// The category that readers may filter by.
    pub category: Option<Arc<str>>,
    /// The recipient's actions on it.
    pub state: EntryState,
    /// Length of its JSON, also once it was dismissed.
    pub json_bytes: u32,
    /// The beginning of its JSON object, up to and with `sent_at`, on one line. The fields that may
    /// change (the state) or follow from its position (the cursor) are added on the way out, see
    /// [`PageItem::write_json`](super::page::PageItem::write_json).
    ///
    /// `None` if it was dismissed. The entry keeps its place until it is evicted, so that the
    /// content of an inbox does not depend on when a receipt was applied.
    pub json: Option<Arc<str>>,
}

impl Entry {
    /// Returns true if it is neither dismissed nor read.
    pub fn is_unread(&self) -> bool {
        self.json.is_some() && !self.state.read
    }

    /// The entry of this notification, in its initial state. `timestamp_ms` is the record's; 0 or
    /// less means that it has none.
    pub fn new(
        offset: i64,
        timestamp_ms: i64,
        notification: &Notification<'_>,
        headers: Headers,
    ) -> Result<Self, serde_json::Error> {
        let mut json = Vec::with_capacity(notification.message.len() + JSON_OVERHEAD_BYTES);
        serde_json::to_writer(&mut json, notification)?;
        // The sender may have written `data` on several lines. A line break in JSON can only stand
        // between tokens, so a space can replace it.
        if notification.data.is_some() {
            json.iter_mut()
                .filter(|byte| matches!(byte, b'\n' | b'\r'))
                .for_each(|byte| *byte = b' ');
        }
        json.pop();
        json.extend_from_slice(b",\"id\":");
        serde_json::to_writer(&mut json, &headers.id)?;
        json.extend_from_slice(b",\"sent_at\":\"");
        let mut json = String::from_utf8(json).map_err(serde_json::Error::custom)?;
        write_time(&mut json, headers.sent_at);
        json.push('"');
        let sent_at_ms = headers.sent_at.as_millisecond();
        Ok(Self {
            offset,
            sent_at_ms: if timestamp_ms <= 0 { sent_at_ms } else { sent_at_ms.min(timestamp_ms) },
            id: headers.id,
            fingerprint: headers.fingerprint,
            category: notification.category.as_deref().map(Arc::from),
            state: EntryState::default(),
            json_bytes: u32::try_from(json.len()).map_err(serde_json::Error::custom)?,
            json: Some(json.into()),
        })
    }

    /// Applies what a receipt says, and frees the JSON of a dismissed entry.
    pub fn apply_action(&mut self, action: Action) {
        self.state.apply_action(action);
        if self.state.dismissed {
            self.json = None;
        }
    }
}
