//! Receipts: the values of the records in the receipts topic.

use serde::{Deserialize, Serialize};

use crate::{headers::NotificationId, user::UserId};

/// `ce_type` of a receipt's record.
pub const RECEIPT_TYPE: &str = "notification.receipt";

/// Maximum number of ids in one receipt; the consumer splits more over several. Keeps a record below
/// 64 KiB.
pub const MAX_IDS: usize = 400;

/// A recipient's action on notifications. As JSON: `{"user_id":1,"action":"read","ids":["…"]}`.
///
/// The latest receipt for a notification counts, except that a dismissed notification stays
/// dismissed. The view may apply a receipt before its notification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The recipient, whose id is the record's key.
    pub user_id: UserId,
    /// The action.
    pub action: Action,
    /// The notifications: at most [`MAX_IDS`] in the receipts that the consumer writes.
    pub ids: Vec<NotificationId>,
}

/// An action on a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Mark as read.
    Read,
    /// Mark as unread.
    Unread,
    /// Remove from the inbox.
    Dismissed,
}

impl Action {
    /// Its name in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Unread => "unread",
            Self::Dismissed => "dismissed",
        }
    }
}
