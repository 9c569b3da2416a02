//! OpenAPI schemas of the bodies that are not serialized from a type: an inbox holds ready-to-send
//! JSON. The fuzz suite compares both.

use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// The sender or the recipient.
#[derive(Serialize, ToSchema)]
pub(super) struct User {
    #[schema(minimum = 1, example = 2)]
    id: i64,
    /// The user's name at the time of sending.
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
    /// Kind of notification, chosen by the sender.
    #[schema(required = false, nullable = false)]
    category: Option<String>,
    /// Target of a click.
    #[schema(required = false, nullable = false)]
    link: Option<String>,
    /// Any JSON, for the recipient's program.
    #[schema(required = false)]
    data: Option<Value>,
    /// Never changes.
    #[schema(example = "01a20397-68d9-7367-9612-d4f7597a900b")]
    id: String,
    #[schema(format = DateTime, example = "2026-11-22T14:09:44.153Z")]
    sent_at: String,
    read: bool,
    /// Position in the log.
    #[schema(example = "3-1042")]
    cursor: String,
}

/// A part of an inbox, oldest first.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// "No notifications found for user", if the list is empty.
    #[schema(required = false, nullable = false)]
    message: Option<String>,
    notifications: Vec<Notification>,
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

/// Requested notifications may be missing: those after `after`, up to and including `through`.
#[derive(Serialize, ToSchema)]
pub(super) struct Gap {
    reason: GapReason,
    #[schema(required = false, nullable = false, example = "3-7")]
    after: Option<String>,
    #[schema(example = "3-40")]
    through: String,
}

/// Why notifications are missing.
#[derive(Serialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[allow(dead_code)] // For the OpenAPI document only.
pub(super) enum GapReason {
    /// Evicted by newer ones.
    Evicted,
    /// Older than the inbox keeps.
    Expired,
    /// Removed from the log by retention.
    Retention,
    /// The cursor is of another partition, or of a topic that was recreated.
    Unknown,
}
