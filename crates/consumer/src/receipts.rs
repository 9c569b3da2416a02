//! Writes receipts: what a recipient read, unread or dismissed becomes records of the receipts'
//! topic. Never changes the view; it waits until the view has applied them.

use std::{sync::Arc, time::Duration};

use event_log::{AppendError, NewRecord, Position, Writer};
use jiff::Timestamp;
use model::{
    Action, Headers, NotificationId, Receipt, UserId, headers::to_millisecond, receipt::MAX_IDS,
    record,
};

use crate::view::{NotLive, Selector, View};

/// Time for the log to acknowledge, and again for the view to apply.
const RECEIPT_DEADLINE: Duration = Duration::from_secs(10);

/// Writes to the receipts' topic. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct ReceiptWriter {
    view: Arc<View>,
    writer: Writer,
    topic: Arc<str>,
    read_timeout: Duration,
}

/// Why a receipt was not written, or is not applied yet. It is safe to retry.
#[derive(Debug, thiserror::Error)]
pub enum ReceiptError {
    /// The inbox cannot be read now. Either no receipt was written, or all were, and the view
    /// applies them soon.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// The log did not acknowledge a receipt.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// A receipt cannot be encoded as JSON.
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
}

impl ReceiptWriter {
    /// `read_timeout`: how long to wait for the user's partition.
    #[must_use]
    pub fn new(view: Arc<View>, writer: Writer, topic: &str, read_timeout: Duration) -> Self {
        Self { view, writer, topic: topic.into(), read_timeout }
    }

    /// Writes receipts for the selected entries that the action changes, waits until the view has
    /// applied them, and returns how many entries that were.
    ///
    /// # Errors
    /// [`ReceiptError`].
    pub async fn write_receipts(
        &self,
        user: UserId,
        action: Action,
        selector: &Selector,
    ) -> Result<usize, ReceiptError> {
        // The selector is resolved to ids here, so that a receipt means the same entries whatever
        // arrives before it is applied.
        let ids = self.view.would_change(user, action, selector, self.read_timeout).await?;
        let mut acks = Vec::with_capacity(ids.len() / MAX_IDS + 1);
        for ids in ids.chunks(MAX_IDS) {
            acks.push(self.append_receipt(&Receipt {
                user_id: user,
                action,
                ids: ids.to_vec(),
            })?);
        }
        let deadline = tokio::time::Instant::now() + RECEIPT_DEADLINE;
        let mut last = None;
        for ack in acks {
            let late = |_| Err(AppendError::TimedOut("the deadline of the request".into()));
            let Position { offset, .. } =
                tokio::time::timeout_at(deadline, ack).await.unwrap_or_else(late)?;
            last = Some(offset);
        }
        if let Some(offset) = last {
            self.view.wait_for_receipt(user, offset, RECEIPT_DEADLINE).await?;
        }
        Ok(ids.len())
    }

    fn append_receipt(&self, receipt: &Receipt) -> Result<event_log::Ack, ReceiptError> {
        let headers = Headers {
            id: NotificationId::generate(),
            sent_at: to_millisecond(Timestamp::now()),
            traceparent: None,
            fingerprint: None,
        };
        let record = record::encode_receipt(receipt, &headers)?;
        let partition = self.view.home_partition(receipt.user_id);
        let record =
            NewRecord { partition, key: record.key, value: record.value, headers: record.headers };
        Ok(self.writer.append(&self.topic, record)?)
    }
}
