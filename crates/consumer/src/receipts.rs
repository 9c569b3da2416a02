//! From what a recipient does to a record of the receipts' topic, and back into the view.

use std::{sync::Arc, time::Duration};

use event_log::{AppendError, NewRecord, Position, Writer};
use jiff::Timestamp;
use model::{
    Action, Headers, NotificationId, Receipt, UserId, headers::to_millisecond, receipt::MAX_IDS,
    record,
};

use crate::view::{NotLive, Selector, View};

/// How long the log may take to acknowledge, and the view to show.
const DEADLINE: Duration = Duration::from_secs(10);

/// Records what recipients do. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Recorder {
    view: Arc<View>,
    writer: Writer,
    topic: Arc<str>,
    patience: Duration,
}

/// Why something that a recipient did was not recorded, or is not shown yet.
#[derive(Debug, thiserror::Error)]
pub enum RecordError {
    /// The inbox cannot be looked at now. Nothing was recorded, or all was, and is shown soon.
    #[error(transparent)]
    NotLive(#[from] NotLive),
    /// The log did not take it. Doing it again is safe.
    #[error(transparent)]
    Append(#[from] AppendError),
    /// Serde's.
    #[error(transparent)]
    Encode(#[from] serde_json::Error),
}

impl Recorder {
    /// Writes to this topic.
    #[must_use]
    pub fn new(view: Arc<View>, writer: Writer, topic: &str, patience: Duration) -> Self {
        Self { view, writer, topic: topic.into(), patience }
    }

    /// Does this with those of the user's entries for which it changes something. How many those
    /// are. Returns when the view shows it.
    ///
    /// # Errors
    /// [`RecordError`].
    pub async fn record(
        &self,
        user: UserId,
        action: Action,
        which: &Selector,
    ) -> Result<usize, RecordError> {
        // What is meant is settled here, as ids: a receipt then says the same whenever it is
        // folded, before or after whatever arrives meanwhile.
        let ids = self.view.would_change(user, action, which, self.patience).await?;
        let mut acks = Vec::with_capacity(ids.len() / MAX_IDS + 1);
        for ids in ids.chunks(MAX_IDS) {
            acks.push(self.append(&Receipt { user_id: user, action, ids: ids.to_vec() })?);
        }
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut last = None;
        for ack in acks {
            let late = |_| Err(AppendError::TimedOut("the deadline of the request".into()));
            let Position { offset, .. } =
                tokio::time::timeout_at(deadline, ack).await.unwrap_or_else(late)?;
            last = Some(offset);
        }
        if let Some(offset) = last {
            self.view.wait_for_receipt(user, offset, DEADLINE).await?;
        }
        Ok(ids.len())
    }

    fn append(&self, receipt: &Receipt) -> Result<event_log::Ack, RecordError> {
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
