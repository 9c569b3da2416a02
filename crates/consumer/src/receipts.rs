//! Writes receipts: what a recipient read, unread or dismissed becomes records of the receipts'
//! topic. Never changes the view; it waits until the view has applied them.

use std::{sync::Arc, time::Duration};

use event_log::{AppendError, Log, LogUnreachable, NewRecord, Writer};
use jiff::Timestamp;
use model::{
    Action, Headers, NotificationId, Receipt, TopicNames, UserId,
    headers::to_millisecond,
    receipt::MAX_IDS,
    record::{self, EncodedRecord},
};

use service::server::rate::{RateExceeded, RateLimits};

use crate::view::{NotLive, Selector, View, WouldChange};

/// Time for the log to acknowledge, and again for the view to apply.
const RECEIPT_DEADLINE: Duration = Duration::from_secs(10);
/// Time for the log to tell where a partition ends.
const END_OFFSET_TIMEOUT: Duration = Duration::from_secs(2);

pub(crate) struct ReceiptWriter {
    view: Arc<View>,
    log: Log,
    writer: Writer,
    notifications: String,
    topic: String,
    read_timeout: Duration,
    /// A token for each request, and for each of its records after the first.
    limits: RateLimits<UserId>,
}

/// Why a receipt was not written, or is not applied yet. It is safe to retry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReceiptError {
    /// Either no receipt was written, or all were, and the view applies them soon.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// The user writes too many receipts; none was written.
    #[error("rate limit exceeded")]
    RateExceeded(RateExceeded),
    #[error(transparent)]
    Append(#[from] AppendError),
    /// The view has nothing to change, and the log does not confirm that the view is up to date.
    #[error(transparent)]
    Unreachable(#[from] LogUnreachable),
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
}

impl ReceiptWriter {
    /// `read_timeout`: how long to wait for the user's partition.
    pub(crate) fn new(
        view: Arc<View>,
        log: Log,
        names: &TopicNames,
        read_timeout: Duration,
        limits: RateLimits<UserId>,
    ) -> Self {
        let (notifications, topic) = (names.notifications.clone(), names.receipts.clone());
        Self { view, writer: log.writer(), log, notifications, topic, read_timeout, limits }
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
        self.take_tokens(user, 1)?;
        let select = || self.view.would_change(user, action, selector, self.read_timeout);
        let mut targets = select().await?;
        let is_complete = match selector {
            Selector::Ids(selected) => targets.changed.len() == selected.len(),
            Selector::Through(_) | Selector::All => !targets.changed.is_empty(),
        };
        if !is_complete {
            // Nothing may be left to change, or the view may lack what the caller has seen.
            self.catch_up(user).await?;
            targets = select().await?;
        }
        let records = targets.changed.chunks(MAX_IDS);
        self.take_tokens(user, records.len().saturating_sub(1))?;
        let mut acks = Vec::with_capacity(records.len());
        for ids in records {
            let receipt = Receipt { user_id: user, action, ids: ids.to_vec() };
            acks.push(self.append_receipt(&receipt)?);
        }
        let deadline = tokio::time::Instant::now() + RECEIPT_DEADLINE;
        let mut last = None;
        for ack in acks {
            let late = |_| Err(AppendError::TimedOut("the deadline of the request".into()));
            last = Some(tokio::time::timeout_at(deadline, ack).await.unwrap_or_else(late)?);
        }
        if let Some(at) = last {
            self.view.wait_for_receipt(user, at, RECEIPT_DEADLINE).await?;
        }
        Ok(targets)
    }

    /// Waits until the view has every notification that the log has now of this user's partition.
    async fn catch_up(&self, user: UserId) -> Result<(), ReceiptError> {
        let home = self.view.home_partition(user);
        let (topic, homes) = (&self.notifications, [home]);
        let ends = self.log.fetch_end_offsets(topic, &homes, END_OFFSET_TIMEOUT).await?;
        let end = ends.first().copied().unwrap_or(0);
        // The last offsets may be the markers of a transaction, at which the view never arrives. It
        // has all that comes before them by the end of the wait.
        let _ = self.view.wait_for_offset(home, end - 1, self.read_timeout).await;
        Ok(())
    }

    fn take_tokens(&self, user: UserId, count: usize) -> Result<(), ReceiptError> {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.limits.take_tokens(&user, count).map_err(ReceiptError::RateExceeded)?;
        Ok(())
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
