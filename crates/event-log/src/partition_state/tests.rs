//! The transitions as tables: state, event, new state, actions.

use smallvec::SmallVec;

use super::{
    Action::{self, Apply, AskAboutGap, BecomeLive, ConfirmEndOffset, Reset},
    OffsetGap,
    PartitionState::{self, Live, Reading, Rewinding, Verifying},
    ResetReason::{
        AnchorGone, AnchorMismatch, EndMovedBack, EndsBeforeAnchor, GroupBehind, Invalidated,
        OffsetsRestarted,
    },
};
use crate::{Record, RecordAnchor, StartAt, Watermarks};

type Row<'a, E> = (PartitionState, E, PartitionState, &'a [Action]);

fn check<E: Copy + std::fmt::Debug>(
    rows: &[Row<'_, E>],
    event: impl Fn(&mut PartitionState, E) -> super::Actions,
) {
    for (before, input, after, actions) in rows {
        let mut state = *before;
        let done = event(&mut state, *input);
        assert_eq!((state, &done[..]), (*after, *actions), "{before:?} on {input:?}");
    }
}

fn record(offset: i64) -> Record<'static> {
    Record {
        partition: 0,
        offset,
        timestamp_ms: 7,
        key: Some(b"1"),
        value: Some(b"hello"),
        headers: SmallVec::new(),
    }
}

fn anchor(offset: i64) -> RecordAnchor {
    record(offset).anchor()
}

fn verifying(offset: i64, high: Option<i64>) -> PartitionState {
    Verifying { anchor: anchor(offset), high }
}

fn other(offset: i64) -> PartitionState {
    let checksum = record(offset).checksum() ^ 1;
    Verifying { anchor: RecordAnchor { offset, checksum }, high: Some(9) }
}

fn rewinding(highest_seen: i64, has_sought: bool, high: Option<i64>) -> PartitionState {
    Rewinding { highest_seen, has_sought, high }
}

fn reading(next: Option<i64>, high: Option<i64>) -> PartitionState {
    Reading { next, high }
}

fn live(next: Option<i64>) -> PartitionState {
    Live { next }
}

const fn gap(from: i64, to: i64) -> Action {
    AskAboutGap(OffsetGap { from, to })
}

#[test]
fn a_partition_begins_where_the_handler_says() {
    assert_eq!(PartitionState::new(StartAt::Beginning, None), reading(None, None));
    assert_eq!(PartitionState::new(StartAt::Beginning, Some(7)), reading(Some(7), None));
    assert_eq!(PartitionState::new(StartAt::After(anchor(4)), Some(0)), verifying(4, None));
}

#[test]
fn the_first_record_verifies_the_anchor_or_resets_the_partition() {
    let rows: &[Row<'_, i64>] = &[
        // The handler holds the anchor already, so it is not applied again.
        (verifying(4, None), 4, reading(Some(5), None), &[]),
        (verifying(4, Some(6)), 4, reading(Some(5), Some(6)), &[]),
        (verifying(4, Some(5)), 4, live(Some(5)), &[BecomeLive]),
        (other(4), 4, rewinding(4, false, None), &[Reset(AnchorMismatch)]),
        (verifying(4, Some(9)), 5, rewinding(5, false, None), &[Reset(AnchorGone)]),
        (verifying(4, Some(9)), 3, rewinding(3, false, None), &[Reset(AnchorGone)]),
    ];
    check(rows, |state, offset| state.on_record(&record(offset)));
}

#[test]
fn records_are_applied_in_order_until_the_partition_is_live_and_beyond() {
    let rows: &[Row<'_, i64>] = &[
        (reading(None, None), 0, reading(Some(1), None), &[Apply]),
        // Retention may have removed what was before the first: that is no gap.
        (reading(None, Some(9)), 7, reading(Some(8), Some(9)), &[Apply]),
        (reading(Some(8), Some(9)), 8, live(Some(9)), &[Apply, BecomeLive]),
        (reading(Some(3), Some(9)), 5, reading(Some(6), Some(9)), &[gap(3, 5), Apply]),
        // The last record below the high watermark is not there, but one above it is.
        (reading(Some(8), Some(9)), 11, live(Some(12)), &[gap(8, 11), Apply, BecomeLive]),
        (reading(Some(3), None), 3, reading(Some(4), None), &[Apply]),
        (live(Some(9)), 9, live(Some(10)), &[Apply]),
        (live(Some(9)), 12, live(Some(13)), &[gap(9, 12), Apply]),
        (live(None), 4, live(Some(5)), &[Apply]),
    ];
    check(rows, |state, offset| state.on_record(&record(offset)));
}

#[test]
fn records_that_begin_again_are_those_of_another_log() {
    let rows: &[Row<'_, i64>] = &[
        (live(Some(9)), 0, reading(Some(1), None), &[Reset(OffsetsRestarted), Apply]),
        (live(Some(9)), 8, reading(Some(9), None), &[Reset(OffsetsRestarted), Apply]),
        (reading(Some(3), Some(9)), 2, reading(Some(3), None), &[Reset(OffsetsRestarted), Apply]),
        // The old high watermark says nothing of the new log.
        (reading(Some(9), Some(1)), 0, reading(Some(1), None), &[Reset(OffsetsRestarted), Apply]),
    ];
    check(rows, |state, offset| state.on_record(&record(offset)));
}

#[test]
fn records_that_were_prefetched_before_the_seek_are_skipped() {
    let rows: &[Row<'_, i64>] = &[
        // Before the seek all of them were.
        (rewinding(4, false, Some(9)), 5, rewinding(5, false, Some(9)), &[]),
        (rewinding(4, false, None), 2, rewinding(4, false, None), &[]),
        // After it those above the highest were; the client has to seek again.
        (rewinding(4, true, Some(9)), 5, rewinding(5, false, Some(9)), &[]),
        (rewinding(-1, true, None), 0, rewinding(0, false, None), &[]),
        // The beginning, wherever retention has moved it.
        (rewinding(4, true, Some(9)), 0, reading(Some(1), Some(9)), &[Apply]),
        (rewinding(4, true, Some(9)), 4, reading(Some(5), Some(9)), &[Apply]),
        (rewinding(4, true, Some(1)), 0, live(Some(1)), &[Apply, BecomeLive]),
        (rewinding(0, true, None), 0, reading(Some(1), None), &[Apply]),
    ];
    check(rows, |state, offset| state.on_record(&record(offset)));
}

#[test]
fn the_end_makes_a_partition_live_unless_the_anchor_was_to_come() {
    let rows: &[Row<'_, Option<i64>>] = &[
        (verifying(4, None), None, rewinding(3, false, None), &[Reset(EndsBeforeAnchor)]),
        (verifying(4, Some(9)), Some(9), rewinding(3, false, None), &[Reset(EndsBeforeAnchor)]),
        // An end that was reached before the seek says nothing of the beginning.
        (rewinding(4, false, Some(9)), None, rewinding(4, false, Some(9)), &[]),
        (rewinding(4, false, None), Some(9), rewinding(4, false, None), &[]),
        (rewinding(4, true, None), None, live(None), &[BecomeLive]),
        (reading(None, None), None, live(None), &[BecomeLive]),
        (reading(Some(3), Some(9)), None, live(Some(3)), &[BecomeLive]),
        // The records at the last offsets are gone.
        (reading(Some(3), Some(9)), Some(9), live(Some(9)), &[gap(3, 9), BecomeLive]),
        (live(None), None, live(None), &[]),
        (live(Some(3)), None, live(Some(3)), &[]),
        (live(Some(9)), Some(9), live(Some(9)), &[]),
        (live(Some(3)), Some(9), live(Some(9)), &[gap(3, 9)]),
    ];
    check(rows, PartitionState::on_end);
}

#[test]
fn watermarks_make_a_partition_live_that_was_read_up_to_them_or_is_empty() {
    let rows: &[Row<'_, (i64, i64)>] = &[
        (reading(None, None), (0, 0), live(None), &[BecomeLive]),
        (reading(None, None), (7, 7), live(None), &[BecomeLive]),
        (reading(None, None), (0, 3), reading(None, Some(3)), &[]),
        (reading(Some(2), None), (0, 3), reading(Some(2), Some(3)), &[]),
        (reading(Some(3), None), (0, 3), live(Some(3)), &[BecomeLive]),
        (reading(Some(5), None), (0, 3), live(Some(5)), &[BecomeLive]),
        // The anchor must be seen first, and the seek be done.
        (verifying(4, None), (0, 5), verifying(4, Some(5)), &[]),
        (verifying(4, None), (7, 7), verifying(4, Some(7)), &[]),
        (rewinding(4, false, None), (0, 0), rewinding(4, false, Some(0)), &[]),
        (rewinding(4, true, None), (0, 5), rewinding(4, true, Some(5)), &[]),
        (live(Some(5)), (0, 9), live(Some(5)), &[]),
    ];
    check(rows, |state, (low, high)| state.on_watermarks(Watermarks { low, high }));
}

#[test]
fn a_seek_counts_only_while_the_partition_is_rewinding() {
    let rows: &[Row<'_, Option<i64>>] = &[
        (rewinding(4, false, Some(9)), None, rewinding(4, true, Some(9)), &[]),
        (rewinding(4, false, Some(9)), Some(0), reading(Some(0), Some(9)), &[]),
        (rewinding(4, false, Some(0)), Some(0), live(Some(0)), &[BecomeLive]),
        (rewinding(4, false, Some(7)), Some(7), live(Some(7)), &[BecomeLive]),
        (reading(None, None), None, reading(None, None), &[]),
        (reading(Some(3), None), Some(0), reading(Some(3), None), &[]),
        (verifying(4, None), None, verifying(4, None), &[]),
        (live(Some(3)), Some(0), live(Some(3)), &[]),
    ];
    check(rows, PartitionState::on_seek);
    assert!(rewinding(4, false, None).needs_seek() && !rewinding(4, true, None).needs_seek());
    assert!(!reading(None, None).needs_seek() && !verifying(4, None).needs_seek());
}

#[test]
fn an_end_below_what_was_read_counts_once_it_is_confirmed() {
    let confirm = &[ConfirmEndOffset { next: 9 }];
    let rows: &[Row<'_, (i64, i64, bool)>] = &[
        (live(Some(9)), (9, 9, false), live(Some(9)), &[]),
        (live(Some(9)), (9, 12, false), live(Some(9)), &[]),
        (live(Some(9)), (9, 12, true), live(Some(9)), &[]),
        (live(Some(9)), (9, 8, false), live(Some(9)), confirm),
        (live(Some(9)), (9, 8, true), rewinding(8, false, None), &[Reset(EndMovedBack)]),
        (reading(Some(9), Some(20)), (9, 0, false), reading(Some(9), Some(20)), confirm),
        (reading(Some(9), None), (9, 0, true), rewinding(8, false, None), &[Reset(EndMovedBack)]),
        // Records were read between the question and its answer.
        (live(Some(11)), (9, 0, true), rewinding(10, false, None), &[Reset(EndMovedBack)]),
    ];
    check(rows, |state, (next, high, confirmed)| state.on_end_offset(next, high, confirmed));
}

#[test]
fn a_reset_remembers_the_highest_offset_that_the_client_has_reached() {
    let reasons = [GroupBehind, Invalidated];
    for reason in reasons {
        let rows: &[(PartitionState, i64)] = &[
            (verifying(4, Some(9)), 3),
            (rewinding(4, true, Some(9)), 4),
            (rewinding(4, false, None), 4),
            (reading(None, Some(9)), -1),
            (reading(Some(3), Some(9)), 2),
            (live(None), -1),
            (live(Some(3)), 2),
        ];
        for (before, highest_seen) in rows {
            let mut state = *before;
            assert_eq!(state.reset(reason)[..], [Reset(reason)], "{before:?}");
            assert_eq!(state, rewinding(*highest_seen, false, None), "{before:?}");
            assert!(state.needs_seek() && state.next_offset().is_none());
        }
    }
}

#[test]
fn only_offsets_below_the_low_watermark_are_lost() {
    let gap = OffsetGap { from: 10, to: 20 };
    for (low, lost) in [(0, 0), (10, 0), (11, 1), (20, 10), (30, 10)] {
        assert_eq!(gap.count_lost(low), lost, "{low}");
    }
    assert_eq!(gap.len(), 10);
}

#[test]
fn a_log_that_lost_its_anchor_is_read_whole_and_each_record_once() {
    let mut state = PartitionState::new(StartAt::After(anchor(4)), None);
    let mut applied = Vec::new();
    let mut lives = 0;
    let mut resets = 0;
    let mut run = |state: &mut PartitionState, offset: Option<i64>| {
        let actions = match offset {
            Some(offset) => state.on_record(&record(offset)),
            None => state.on_end(None),
        };
        for action in actions {
            match action {
                Apply => applied.extend(offset),
                BecomeLive => lives += 1,
                Reset(_) => resets += 1,
                AskAboutGap(_) | ConfirmEndOffset { .. } => unreachable!("{action:?}"),
            }
        }
    };
    // The anchor is gone; 6 and 7 were fetched already, and the first seek is overtaken by 8.
    for offset in [5, 6, 7] {
        run(&mut state, Some(offset));
    }
    run(&mut state, None);
    state.on_seek(None);
    run(&mut state, Some(8));
    assert!(state.needs_seek());
    state.on_seek(None);
    assert!(state.on_watermarks(Watermarks { low: 5, high: 9 }).is_empty());
    for offset in 5..=9 {
        run(&mut state, Some(offset));
    }
    run(&mut state, None);
    assert_eq!((applied, lives, resets), (vec![5, 6, 7, 8, 9], 1, 1));
    assert_eq!(state, live(Some(10)));
}
