//! Copies poison records to the dead-letter queue, at least once.
//!
//! A copy is acknowledged by the log before the group commits an offset above the record. If the
//! process dies between the two, the next owner of the partition copies the record again, under the
//! same key. There is one implementation for both drivers: a copy is an ordinary append.

use std::sync::Arc;

use crate::{
    AppendError, Position,
    offset_tracker::{CopyBatch, OffsetTracker, Worker},
    poison::PoisonRecord,
};

/// A driver's writer.
pub(crate) trait AppendCopy: Send + 'static {
    /// Resolves once the copy is durable.
    type Ack: Future<Output = Result<Position, AppendError>> + Send;

    /// Appends the copy of a poison record to the partition of the same number.
    fn append_copy(&self, topic: &str, poison: &PoisonRecord) -> Result<Self::Ack, AppendError>;
}

/// Appends to the dead-letter queue.
#[derive(Clone)]
pub(crate) struct DlqWriter<W> {
    writer: W,
    topic: String,
}

impl<W: AppendCopy> DlqWriter<W> {
    pub(crate) fn new(writer: W, topic: &str) -> Self {
        Self { writer, topic: topic.to_owned() }
    }

    /// Starts the thread that copies the tracker's poison records.
    pub(crate) fn start_copying(self, tracker: &Arc<OffsetTracker>) -> std::io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread().build()?;
        let worker = Arc::clone(tracker);
        tracker.spawn_worker(Worker::Dlq, "poison records cannot be copied", move || {
            let batch = worker.next_copies()?;
            let (copied, outcome) = runtime.block_on(self.copy_batch(batch));
            if !copied.is_empty() {
                worker.finish_copies(&copied);
                let records = copied.len();
                tracing::info!(kafka.topic = self.topic, records, "copied poison records");
            }
            Some(outcome.map_err(|error| error.to_string()))
        })
    }

    /// Returns the copies that are acknowledged, and the last error. A record that is too large for
    /// the dead-letter queue is copied again without its value.
    async fn copy_batch(&self, batch: CopyBatch) -> (CopyBatch, Result<(), AppendError>) {
        let append = |poison: &PoisonRecord| self.writer.append_copy(&self.topic, poison);
        let resolve = async |ack: Result<W::Ack, AppendError>| ack?.await.map(drop);
        let acks: Vec<_> = batch.iter().map(|(_, poison)| append(poison)).collect();
        let (mut copied, mut outcome) = (CopyBatch::new(), Ok(()));
        for (copy, ack) in batch.into_iter().zip(acks) {
            let mut appended = resolve(ack).await;
            if appended == Err(AppendError::TooLarge) {
                appended = resolve(append(&copy.1.without_value())).await;
            }
            match appended {
                Ok(()) => copied.push(copy),
                Err(error) => outcome = Err(error),
            }
        }
        (copied, outcome)
    }
}

#[cfg(all(test, feature = "embedded"))]
mod tests;
