//! Topic names.

/// The topics of one installation. All names derive from that of the notifications topic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    /// Notifications, keyed by recipient.
    pub notifications: String,
    /// Receipts, keyed by recipient; has the same partition count as the notifications topic.
    pub receipts: String,
    /// The owner of each partition; compacted.
    pub owners: String,
    /// The dead-letter queue.
    pub dlq: String,
}

impl TopicNames {
    /// Derives the names from that of the notifications topic.
    #[must_use]
    pub fn from_notifications(notifications: &str) -> Self {
        Self {
            notifications: notifications.to_owned(),
            receipts: format!("{notifications}.receipts"),
            owners: format!("{notifications}.owners"),
            dlq: format!("{notifications}.dlq"),
        }
    }
}
