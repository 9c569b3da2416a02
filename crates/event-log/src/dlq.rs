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
mod tests {
    use std::time::Duration;

    use parking_lot::Mutex;

    use super::*;
    use crate::{
        Record, Topic,
        commits::{GroupOffsets, start_workers},
        embedded::Embedded,
        partition_offsets::AssignmentEpoch,
        reader::ReaderStatus,
        topic::Cleanup,
    };

    const DLQ: &str = "t.dlq";

    /// Remembers what is committed, and how many copies the dead-letter queue has by then.
    #[derive(Clone)]
    struct Commits {
        log: Embedded,
        seen: Arc<Mutex<Vec<(i64, i64)>>>,
    }

    impl GroupOffsets for Commits {
        fn fetch_committed(&self, partitions: &[i32]) -> Result<Vec<i64>, String> {
            Ok(vec![0; partitions.len()])
        }

        fn commit_offsets(&self, offsets: &[(i32, i64)]) -> Result<(), String> {
            let copies = self.log.fetch_end_offsets(DLQ, &[0]).expect("the topic is there")[0];
            self.seen.lock().push((offsets[0].1, copies));
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_copy_is_durable_before_an_offset_above_its_record_is_committed() {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(&folder.path().join("log.db")).await.expect("the log opens");
        let cleanup = Cleanup::After(Duration::from_secs(3600));
        let topic = Topic { name: DLQ.into(), partitions: 1, replication: 1, cleanup };
        log.ensure_topics(&[topic]).await.expect("the topic is there");

        let tracker =
            Arc::new(OffsetTracker::new("t", "g", true, Arc::new(ReaderStatus::default())));
        let commits = Commits { log: log.clone(), seen: Arc::default() };
        let dlq = DlqWriter::new(log.writer(), DLQ);
        tracker.begin_assignment(AssignmentEpoch::default(), None);
        start_workers(&tracker, commits.clone(), Some(dlq)).expect("the threads start");
        // Each second record is poison.
        for offset in 0..200 {
            if offset % 2 == 1 {
                let (key, value, headers) = (None, None, smallvec::SmallVec::new());
                let record = Record { partition: 0, offset, timestamp_ms: 0, key, value, headers };
                tracker.add_poison(&record, "it is poison");
            }
            tracker.record_progress([(0, offset + 1)].into_iter());
            if offset % 20 == 0 {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        }
        tokio::task::spawn_blocking(move || tracker.close(Duration::from_secs(60)))
            .await
            .expect("closed");
        let seen = commits.seen.lock().clone();
        assert_eq!(seen.last(), Some(&(200, 100)));
        for (committed, copies) in seen {
            assert!(copies >= committed / 2, "{committed} is committed after {copies} copies");
        }
        log.close().await;
    }
}
