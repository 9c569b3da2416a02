//! The thread that commits the offsets of an [`OffsetTracker`], beneath both drivers.

use std::sync::Arc;

use crate::{
    dlq::{AppendCopy, DlqWriter},
    offset_tracker::{CommitTask, OffsetTracker, Worker},
};

/// The committed offsets of the group, as a driver keeps them. Both calls block.
pub(crate) trait GroupOffsets: Send + 'static {
    /// Reports the committed offset of each of these partitions; 0 without one. It reports those
    /// that it can before it fails.
    fn fetch_committed(
        &self,
        partitions: &[i32],
        report: &mut dyn FnMut(i32, i64),
    ) -> Result<(), String>;

    /// Commits an offset for each of these partitions.
    fn commit_offsets(&self, offsets: &[(i32, i64)]) -> Result<(), String>;
}

/// Starts the tracker's threads. They end some time after [`OffsetTracker::close`].
pub(crate) fn start_workers(
    tracker: &Arc<OffsetTracker>,
    offsets: impl GroupOffsets,
    dlq: Option<DlqWriter<impl AppendCopy>>,
) -> std::io::Result<()> {
    if let Some(dlq) = dlq {
        dlq.start_copying(tracker)?;
    }
    let worker = Arc::clone(tracker);
    tracker.spawn_worker(Worker::Committer, "the group's progress cannot be committed", move || {
        worker.next_commit().map(|task| run_task(&worker, &offsets, &task))
    })
}

fn run_task(
    tracker: &OffsetTracker,
    offsets: &impl GroupOffsets,
    task: &CommitTask,
) -> Result<(), String> {
    match task {
        CommitTask::FetchCommitted(assignments) => {
            let partitions: Vec<_> = assignments.iter().map(|a| a.partition).collect();
            offsets.fetch_committed(&partitions, &mut |partition, committed| {
                let mut asked = assignments.iter();
                if let Some(assignment) = asked.find(|asked| asked.partition == partition) {
                    tracker.set_committed(*assignment, committed);
                }
            })
        }
        CommitTask::Commit(batch) => {
            let positions: Vec<_> =
                batch.iter().map(|(a, offset)| (a.partition, *offset)).collect();
            let outcome = offsets.commit_offsets(&positions);
            tracker.finish_commit(batch, outcome.is_ok());
            outcome
        }
    }
}
