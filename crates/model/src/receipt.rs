//! What a recipient did with notifications: the value of a record of the receipts' topic.

use serde::{Deserialize, Serialize};

use crate::{headers::NotificationId, user::UserId};

/// The value of `ce_type` of a receipt.
pub const TYPE: &str = "notification.receipt";

/// The most ids in one receipt; more are split over several. Keeps a record below 64 KiB.
pub const MAX_IDS: usize = 400;

/// Something that a recipient did. As JSON: `{"user_id":1,"action":"read","ids":["…"]}`.
///
/// Of several receipts for one notification the latest counts, except that what is dismissed
/// stays so. A receipt may be folded before the notification that it speaks of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The recipient, whose id is the record's key.
    pub user_id: UserId,
    /// What was done.
    pub action: Action,
    /// With which notifications: at most [`MAX_IDS`] when we write it.
    pub ids: Vec<NotificationId>,
}

/// What can be done with a notification.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// It was seen.
    Read,
    /// It is to count as not seen again.
    Unread,
    /// It is to be shown no more.
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
