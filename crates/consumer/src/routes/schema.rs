//! OpenAPI schemas of the bodies that are not serialized from a type: an inbox holds ready-to-send
//! JSON. The fuzz suite compares both.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A user as a notification shows them.
#[derive(Serialize, ToSchema)]
pub(super) struct User {
    #[schema(minimum = 1, example = 2)]
    id: i64,
    /// At the time of sending.
    #[schema(example = "Bruno")]
    name: String,
}

/// A notification in an inbox.
#[derive(Serialize, ToSchema)]
pub(super) struct Notification {
    from: User,
    to: User,
    #[schema(example = "Bruno started following you.")]
    message: String,
    /// What kind it is, in the sender's words.
    #[schema(required = false, nullable = false)]
    category: Option<String>,
    /// Where a click leads.
    #[schema(required = false, nullable = false)]
    link: Option<String>,
    /// Whatever the sender wanted the recipient's program to have.
    #[schema(required = false)]
    data: Option<Value>,
    /// The same everywhere and for ever.
    #[schema(example = "01a20397-68d9-7367-9612-d4f7597a900b")]
    id: String,
    #[schema(format = DateTime, example = "2026-11-22T14:09:44.153Z")]
    sent_at: String,
    read: bool,
    /// Its place in the log.
    #[schema(example = "3-1042")]
    cursor: String,
}

/// A part of an inbox, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// "No notifications found for user", when there are none.
    #[schema(required = false, nullable = false)]
    message: Option<String>,
    notifications: Vec<Notification>,
    /// How many of the whole inbox are not read.
    unread: u64,
    /// To be given as `since` for what comes next.
    #[schema(example = "3-1042")]
    cursor: String,
    /// `limit` left something out.
    #[schema(required = false, nullable = false)]
    more: Option<bool>,
    #[schema(required = false, nullable = false)]
    gap: Option<Gap>,
}

/// Something that was asked for may be missing: what comes after `after`, up to and with `through`.
#[derive(Serialize, ToSchema)]
pub(super) struct Gap {
    reason: GapReason,
    #[schema(required = false, nullable = false, example = "3-7")]
    after: Option<String>,
    #[schema(example = "3-40")]
    through: String,
}

/// Why something is missing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // Only described.
pub(super) enum GapReason {
    /// Newer entries took its place.
    Evicted,
    /// It was too old for the inbox.
    Expired,
    /// The log holds it no more.
    Retention,
    /// The cursor is of another partition, or of a topic that was made again.
    Unknown,
}
