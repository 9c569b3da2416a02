//! Copies come before commits, against the embedded log.

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
    fn fetch_committed(
        &self,
        partitions: &[i32],
        report: &mut dyn FnMut(i32, i64),
    ) -> Result<(), String> {
        partitions.iter().for_each(|partition| report(*partition, 0));
        Ok(())
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

    let tracker = Arc::new(OffsetTracker::new("t", "g", true, Arc::new(ReaderStatus::default())));
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
