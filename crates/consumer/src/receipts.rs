//! Writes receipts: what a recipient read, unread or dismissed becomes records of the receipts'
//! topic. Never changes the view; it waits until the view has applied them.

use std::{sync::Arc, time::Duration};

use event_log::{AppendError, NewRecord, Position, Writer};
use jiff::Timestamp;
use model::{
    Action, Headers, NotificationId, Receipt, TopicNames, UserId,
    headers::to_millisecond,
    receipt::MAX_IDS,
    record::{self, EncodedRecord},
};

use crate::view::{NotLive, Selector, View, WouldChange};

/// Time for the log to acknowledge, and again for the view to apply.
const RECEIPT_DEADLINE: Duration = Duration::from_secs(10);

pub(crate) struct ReceiptWriter {
    view: Arc<View>,
    writer: Writer,
    topic: String,
    read_timeout: Duration,
}

/// Why a receipt was not written, or is not applied yet. It is safe to retry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiptError {
    /// Either no receipt was written, or all were, and the view applies them soon.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    #[error(transparent)]
    Append(#[from] AppendError),
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
}

impl ReceiptWriter {
    /// `read_timeout`: how long to wait for the user's partition.
    pub(crate) fn new(
        view: Arc<View>,
        writer: Writer,
        names: &TopicNames,
        read_timeout: Duration,
    ) -> Self {
        Self { view, writer, topic: names.receipts.clone(), read_timeout }
    }

    /// Writes receipts for the selected entries that the action changes, waits until the view has
    /// applied them, and returns which entries that were.
    pub(crate) async fn write_receipts(
        &self,
        user: UserId,
        action: Action,
        selector: &Selector,
    ) -> Result<WouldChange, ReceiptError> {
        // The selector is resolved to ids here, so that a receipt means the same entries whatever
        // arrives before it is applied.
        let targets = self.view.would_change(user, action, selector, self.read_timeout).await?;
        let ids = &targets.changed;
        let mut acks = Vec::with_capacity(ids.len() / MAX_IDS + 1);
        for ids in ids.chunks(MAX_IDS) {
            let receipt = Receipt { user_id: user, action, ids: ids.to_vec() };
            acks.push(self.append_receipt(&receipt)?);
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
        Ok(targets)
    }

    fn append_receipt(&self, receipt: &Receipt) -> Result<event_log::Ack, ReceiptError> {
        let headers = Headers {
            id: NotificationId::generate(),
            sent_at: to_millisecond(Timestamp::now()),
            traceparent: None,
            fingerprint: None,
        };
        let EncodedRecord { key, value, headers } = record::encode_receipt(receipt, &headers)?;
        let partition = self.view.home_partition(receipt.user_id);
        Ok(self.writer.append(&self.topic, NewRecord { partition, key, value, headers })?)
    }
}
