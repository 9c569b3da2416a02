//! The tracker between its threads, without a log.

use std::thread;

use smallvec::SmallVec;

use super::*;

/// Longer than anything here takes, on a busy machine too.
const LONG: Duration = Duration::from_secs(60);

fn tracker() -> (Arc<OffsetTracker>, Arc<ReaderStatus>) {
    let status = Arc::new(ReaderStatus::default());
    (Arc::new(OffsetTracker::new("t", "g", true, Arc::clone(&status))), status)
}

fn add_poison(tracker: &OffsetTracker, offset: i64) {
    let (key, value, headers) = (None, None, SmallVec::new());
    let record = Record { partition: 0, offset, timestamp_ms: 0, key, value, headers };
    tracker.add_poison(&record, "it is poison");
}

/// Answers the tracker's question for the committed offset of its one partition.
fn answer_committed(tracker: &OffsetTracker, committed: i64) -> TrackedAssignment {
    let Some(CommitTask::FetchCommitted(assignments)) = tracker.next_commit() else {
        unreachable!("the committed offset is asked for first")
    };
    tracker.set_committed(assignments[0], committed);
    assignments[0]
}

fn next_commit(tracker: &OffsetTracker) -> CommitBatch {
    match tracker.next_commit() {
        Some(CommitTask::Commit(batch)) => batch,
        _ => unreachable!("there is an offset to commit"),
    }
}

#[test]
fn a_revocation_waits_for_the_commit_that_is_under_way() {
    let (tracker, _) = tracker();
    tracker.begin_assignment(0, None);
    let assignment = answer_committed(&tracker, 0);
    tracker.record_progress([(0, 5)].into_iter());
    let batch = next_commit(&tracker);
    assert_eq!(batch, [(assignment, 5)]);
    let revocation = {
        let tracker = Arc::clone(&tracker);
        thread::spawn(move || tracker.end_assignment(0, Some(7)))
    };
    thread::sleep(Duration::from_millis(100));
    assert!(!revocation.is_finished());
    tracker.finish_commit(&batch, true);
    assert_eq!(revocation.join().expect("it ends"), Some(7));
}

#[test]
fn a_revocation_returns_no_offset_above_a_record_that_is_not_copied() {
    let (tracker, _) = tracker();
    tracker.begin_assignment(0, None);
    answer_committed(&tracker, 0);
    add_poison(&tracker, 3);
    let copies = tracker.next_copies().expect("a copy");
    assert_eq!(tracker.end_assignment(0, Some(7)), Some(3));
    // Its copy is acknowledged too late: the next assignment copies the record again.
    tracker.begin_assignment(0, None);
    answer_committed(&tracker, 3);
    add_poison(&tracker, 3);
    tracker.finish_copies(&copies);
    assert_eq!(tracker.end_assignment(0, Some(7)), None);
}

#[test]
fn a_failed_commit_is_repeated() {
    let (tracker, status) = tracker();
    tracker.begin_assignment(0, None);
    let assignment = answer_committed(&tracker, 0);
    tracker.record_progress([(0, 5)].into_iter());
    let batch = next_commit(&tracker);
    tracker.finish_commit(&batch, false);
    assert_eq!(status.committed.lock().get(&0), Some(&0));
    let batch = next_commit(&tracker);
    assert_eq!(batch, [(assignment, 5)]);
    tracker.finish_commit(&batch, true);
    assert_eq!(status.committed.lock().get(&0), Some(&5));
}

#[test]
fn a_full_backlog_holds_the_offset_and_delays_reading_once() {
    let (tracker, status) = tracker();
    tracker.begin_assignment(0, None);
    answer_committed(&tracker, 0);
    let full = MAX_BACKLOG_RECORDS as i64;
    (0..full).for_each(|offset| add_poison(&tracker, offset));
    let start = Instant::now();
    add_poison(&tracker, full);
    assert!(start.elapsed() >= BACKLOG_TIMEOUT);
    // Those that follow do not wait again.
    let start = Instant::now();
    (full + 1..full + 100).for_each(|offset| add_poison(&tracker, offset));
    assert!(start.elapsed() < BACKLOG_TIMEOUT);
    assert_eq!(status.dlq_skipped.load(Ordering::Relaxed), 100);

    tracker.record_progress([(0, full + 100)].into_iter());
    let mut copied = 0;
    while copied < MAX_BACKLOG_RECORDS {
        let copies = tracker.next_copies().expect("copies");
        copied += copies.len();
        tracker.finish_copies(&copies);
    }
    assert_eq!(next_commit(&tracker)[0].1, full);
}

#[test]
fn the_threads_end_when_all_is_copied_and_committed() {
    let (tracker, _) = tracker();
    tracker.begin_assignment(0, None);
    let worker = Arc::clone(&tracker);
    let copy = move || {
        let copies = worker.next_copies()?;
        worker.finish_copies(&copies);
        Some(Ok(()))
    };
    tracker.spawn_worker(Worker::Dlq, "no copies", copy).expect("a thread");
    let worker = Arc::clone(&tracker);
    let committed = Arc::new(Mutex::new(0));
    let seen = Arc::clone(&committed);
    let mut failures = 3;
    let commit = move || match worker.next_commit()? {
        CommitTask::FetchCommitted(assignments) => {
            worker.set_committed(assignments[0], 0);
            Some(Ok(()))
        }
        CommitTask::Commit(batch) if failures > 0 => {
            failures -= 1;
            worker.finish_commit(&batch, false);
            Some(Err("not now".to_owned()))
        }
        CommitTask::Commit(batch) => {
            *seen.lock() = batch[0].1;
            worker.finish_commit(&batch, true);
            Some(Ok(()))
        }
    };
    tracker.spawn_worker(Worker::Committer, "no commits", commit).expect("a thread");
    (0..500).for_each(|offset| add_poison(&tracker, offset));
    let deadline = Instant::now() + LONG;
    while *committed.lock() < 500 {
        assert!(Instant::now() < deadline, "the failures are repeated");
        thread::sleep(Duration::from_millis(10));
    }
    add_poison(&tracker, 500);
    tracker.close(LONG);
    assert_eq!(*committed.lock(), 501);
    let state = tracker.state.lock();
    assert!(!state.dlq_running && !state.committer_running && state.backlog_bytes == 0);
}
