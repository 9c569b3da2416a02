use std::sync::Arc;

use parking_lot::Mutex;
use smallvec::SmallVec;

use super::*;
use crate::StartAt;

/// A handler that records its calls.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn add(&self, call: String) {
        self.0.lock().push(call);
    }

    fn take(&self) -> Vec<String> {
        std::mem::take(&mut self.0.lock())
    }
}

impl PartitionHandler for Recorder {
    fn on_topic_epoch(&mut self, epoch: Option<u32>) {
        self.add(format!("epoch {epoch:?}"));
    }

    fn on_assigned(&mut self, partition: i32) -> StartAt {
        self.add(format!("assigned {partition}"));
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, _: &Record<'_>) -> RecordOutcome {
        RecordOutcome::Applied
    }

    fn on_live(&mut self, partition: i32) {
        self.add(format!("live {partition}"));
    }

    fn on_revoked(&mut self, partition: i32) {
        self.add(format!("revoked {partition}"));
    }
}

fn assigned(numbers: &[i32]) -> (AssignedPartitions<Recorder>, Recorder) {
    let recorder = Recorder::default();
    let mut partitions = AssignedPartitions::new("topic", recorder.clone(), None);
    for number in numbers {
        partitions.assign(*number, None);
    }
    recorder.take();
    (partitions, recorder)
}

fn reach_end(partitions: &mut AssignedPartitions<Recorder>, number: i32) {
    partitions.transition(number, None, |state| state.on_end(Some(0)));
}

#[test]
fn a_partition_is_live_once_the_topic_s_epoch_was_confirmed_after_its_assignment() {
    let (mut partitions, recorder) = assigned(&[0]);
    reach_end(&mut partitions, 0);
    assert_eq!(recorder.take(), [""; 0]);
    assert_eq!(partitions.confirm_topic_epoch(1, Some(7)), [0_i32; 0]);
    assert_eq!(recorder.take(), ["epoch Some(7)", "live 0"]);
    // The answer to a question that was asked before this assignment confirms nothing.
    partitions.assign(1, None);
    reach_end(&mut partitions, 1);
    assert_eq!(partitions.confirm_topic_epoch(1, Some(7)), [0_i32; 0]);
    assert_eq!(recorder.take(), ["assigned 1"]);
    assert_eq!(partitions.confirm_topic_epoch(2, Some(7)), [0_i32; 0]);
    assert_eq!(recorder.take(), ["live 1"]);
    // Confirmed before the end is reached.
    partitions.assign(2, None);
    partitions.confirm_topic_epoch(3, Some(7));
    reach_end(&mut partitions, 2);
    assert_eq!(recorder.take(), ["assigned 2", "live 2"]);
}

#[test]
fn a_partition_that_was_revoked_meanwhile_does_not_become_live() {
    let (mut partitions, recorder) = assigned(&[0]);
    reach_end(&mut partitions, 0);
    partitions.revoke(&[0]);
    partitions.confirm_topic_epoch(1, Some(7));
    assert_eq!(recorder.take(), ["revoked 0", "epoch Some(7)"]);
}

#[test]
fn another_epoch_resets_every_partition_and_asks_again_before_one_is_live() {
    let (mut partitions, recorder) = assigned(&[0, 1]);
    partitions.confirm_topic_epoch(2, Some(7));
    reach_end(&mut partitions, 0);
    assert_eq!(recorder.take(), ["epoch Some(7)", "live 0"]);
    assert_eq!(partitions.confirm_topic_epoch(2, Some(8)), [0_i32, 1]);
    for number in [0, 1] {
        partitions.transition(number, None, |state| state.reset(ResetReason::TopicRecreated));
        partitions.transition(number, None, |state| state.on_seek(None));
        reach_end(&mut partitions, number);
    }
    partitions.report_topic_epoch();
    let reset = ["revoked 0", "assigned 0", "revoked 1", "assigned 1", "epoch Some(8)"];
    assert_eq!(recorder.take(), reset);
    assert_eq!(partitions.confirm_topic_epoch(4, Some(8)), [0_i32; 0]);
    assert_eq!(recorder.take(), ["live 0", "live 1"]);
}

#[test]
fn an_epoch_that_is_known_is_not_forgotten_and_the_first_one_is_no_change() {
    let (mut partitions, recorder) = assigned(&[0]);
    assert_eq!(partitions.confirm_topic_epoch(1, None), [0_i32; 0]);
    assert_eq!(partitions.confirm_topic_epoch(1, None), [0_i32; 0]);
    assert_eq!(partitions.confirm_topic_epoch(1, Some(7)), [0_i32; 0]);
    assert_eq!(partitions.confirm_topic_epoch(1, None), [0_i32; 0]);
    assert_eq!(recorder.take(), ["epoch None", "epoch Some(7)"]);
}

#[test]
fn a_group_s_committed_offset_of_an_earlier_topic_hides_no_poison_record_of_the_new_one() {
    let tracker = OffsetTracker::new("topic", "group", true, Arc::default());
    let tracker = Arc::new(tracker);
    let mut partitions =
        AssignedPartitions::new("topic", Recorder::default(), Some(Arc::clone(&tracker)));
    partitions.assign(0, None);
    partitions.confirm_topic_epoch(1, Some(7));
    tracker.set_committed(partitions.epoch(0).expect("assigned"), 5);
    partitions.confirm_topic_epoch(1, Some(8));
    partitions.transition(0, None, |state| state.reset(ResetReason::TopicRecreated));
    let headers = SmallVec::new();
    let record =
        Record { partition: 0, offset: 2, timestamp_ms: 0, key: None, value: None, headers };
    tracker.add_poison(&record, "it is poison");
    assert_eq!(tracker.next_copies().map(|copies| copies.len()), Some(1));
}
