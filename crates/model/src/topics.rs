//! The names of the topics: one is chosen, the others follow from it.

/// The topics of one installation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TopicNames {
    /// What was sent; keyed by recipient.
    pub notifications: String,
    /// What recipients did; keyed by recipient, with as many partitions as the notifications.
    pub receipts: String,
    /// Which instance owns which partition; compacted.
    pub owners: String,
    /// Records that are no notifications, set aside.
    pub dlq: String,
}

impl TopicNames {
    /// The names that follow from that of the notifications' topic.
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
