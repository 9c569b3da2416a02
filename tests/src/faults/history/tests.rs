//! The checker finds each broken promise, and accepts histories that only look odd.

use std::time::Duration;

use model::Cursor;

use super::{History, MAX_STALE_AGE, Reading, Shown, TestMessage, Violation};

const USER: i64 = 1;

fn at_seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn message_from(from: i64, n: u32) -> TestMessage {
    TestMessage { from, to: USER, n }
}

fn cursor_at(offset: i64) -> Cursor {
    Cursor::new(3, offset)
}

fn shown_at(value: TestMessage, offset: i64) -> Shown {
    Shown { message: value.to_string(), cursor: cursor_at(offset), read: false }
}

/// Sender 2's first three messages, acknowledged at 1, 2 and 3 s with offsets 0, 1 and 2.
fn three_acknowledged() -> History {
    let mut history = History::default();
    for n in 0..3 {
        history.record_sending(message_from(2, n));
        history.record_acknowledged(
            at_seconds(u64::from(n) + 1),
            message_from(2, n),
            cursor_at(i64::from(n)),
        );
    }
    history
}

fn three_shown() -> Vec<Shown> {
    (0..3).map(|n| shown_at(message_from(2, n), i64::from(n))).collect()
}

fn reading_at(seconds: u64, shown: Vec<Shown>) -> Reading {
    let (began, ended) = (at_seconds(seconds), at_seconds(seconds) + Duration::from_millis(5));
    Reading { user: USER, instance: 0, began, ended, at_least: None, shown }
}

/// Asserts that this is the only kind of violation, with this count and an example.
fn expect_only(history: &History, wrong: Violation, count: u64) {
    let found: Vec<_> =
        history.findings().iter().map(|(wrong, found)| (*wrong, found.count)).collect();
    assert_eq!(found, [(wrong, count)], "{:?}", history.findings());
    assert!(!history.findings()[&wrong].examples.is_empty());
}

fn expect_no_violation(history: &History) {
    assert!(history.findings().is_empty(), "{:?}", history.findings());
}

#[test]
fn a_history_without_fault_is_found_to_be_so() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, three_shown()));
    history.check_reading(&Reading {
        at_least: Some(message_from(2, 2)),
        ..reading_at(5, three_shown())
    });
    history.check_final_reading(&reading_at(6, three_shown()));
    history.check_final_reading(&Reading { instance: 1, ..reading_at(6, three_shown()) });
    expect_no_violation(&history);
    let totals = history.totals();
    assert_eq!(
        (totals.sends, totals.acknowledged, totals.reads, totals.at_least_reads),
        (3, 3, 2, 1)
    );
}

#[test]
fn a_loss_is_found() {
    let mut history = three_acknowledged();
    history.check_final_reading(&reading_at(
        9,
        vec![shown_at(message_from(2, 0), 0), shown_at(message_from(2, 2), 2)],
    ));
    // The same loss on another instance counts once.
    history.check_final_reading(&Reading {
        instance: 1,
        ..reading_at(9, vec![shown_at(message_from(2, 0), 0), shown_at(message_from(2, 2), 2)])
    });
    expect_only(&history, Violation::Lost, 1);
}

#[test]
fn a_duplicate_in_one_answer_is_found() {
    let mut history = three_acknowledged();
    let mut twice = three_shown();
    twice.push(shown_at(message_from(2, 2), 2));
    history.check_reading(&reading_at(4, twice));
    expect_only(&history, Violation::Twice, 1);
}

#[test]
fn a_notification_at_two_places_of_the_log_is_found() {
    let mut history = three_acknowledged();
    let mut moved = three_shown();
    moved[2].cursor = cursor_at(7);
    history.check_reading(&reading_at(4, moved));
    expect_only(&history, Violation::Twice, 1);

    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, three_shown()));
    let mut moved = three_shown();
    moved[2].cursor = cursor_at(1);
    history.check_reading(&reading_at(5, moved));
    expect_only(&history, Violation::Twice, 1);
}

#[test]
fn a_record_that_was_written_again_is_shown_at_its_first_place_and_acknowledged_at_its_second() {
    let mut history = three_acknowledged();
    history.record_sending(message_from(2, 3));
    history.record_acknowledged(at_seconds(4), message_from(2, 3), cursor_at(9));
    let mut first = three_shown();
    first.push(shown_at(message_from(2, 3), 5));
    history.check_reading(&reading_at(5, first));
    expect_no_violation(&history);
    assert_eq!(history.totals().written_again, 1);
}

#[test]
fn an_unacknowledged_send_may_be_shown_once_but_not_at_two_places() {
    let mut history = three_acknowledged();
    history.record_sending(message_from(2, 3));
    history.record_unknown(message_from(2, 3));
    history.check_reading(&reading_at(4, three_shown()));
    let mut once = three_shown();
    once.push(shown_at(message_from(2, 3), 3));
    history.check_reading(&reading_at(5, once.clone()));
    expect_no_violation(&history);
    assert_eq!((history.totals().indeterminate, history.totals().indeterminate_shown), (1, 1));
    once[3].cursor = cursor_at(4);
    history.check_reading(&reading_at(6, once));
    expect_only(&history, Violation::Twice, 1);
}

#[test]
fn a_reorder_is_found() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(
        4,
        vec![
            shown_at(message_from(2, 1), 1),
            shown_at(message_from(2, 0), 0),
            shown_at(message_from(2, 2), 2),
        ],
    ));
    expect_only(&history, Violation::Disorder, 1);
}

#[test]
fn an_unacknowledged_send_may_come_late_and_senders_do_not_wait_for_each_other() {
    let mut history = History::default();
    history.record_sending(message_from(2, 0));
    history.record_unknown(message_from(2, 0));
    for (sender, offset) in [(2, 0), (9, 1)] {
        history.record_sending(message_from(sender, 1));
        history.record_acknowledged(at_seconds(1), message_from(sender, 1), cursor_at(offset));
    }
    history.check_reading(&reading_at(
        4,
        vec![
            shown_at(message_from(2, 1), 0),
            shown_at(message_from(9, 1), 1),
            shown_at(message_from(2, 0), 2),
        ],
    ));
    expect_no_violation(&history);
}

#[test]
fn less_than_was_shown_before_is_found_on_whichever_instance() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, three_shown()));
    history.check_reading(&Reading { instance: 2, ..reading_at(5, three_shown()[..2].to_vec()) });
    expect_only(&history, Violation::Back, 1);
    history.check_reading(&Reading { instance: 1, ..reading_at(6, Vec::new()) });
    expect_only(&history, Violation::Back, 2);
}

#[test]
fn an_answer_that_was_asked_for_before_the_other_was_given_may_show_less() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, three_shown()));
    history.check_reading(&Reading {
        ended: at_seconds(9),
        ..reading_at(4, three_shown()[..2].to_vec())
    });
    expect_no_violation(&history);
}

#[test]
fn nothing_at_all_for_long_is_found_even_when_nobody_was_shown_anything() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, Vec::new()));
    expect_no_violation(&history);
    assert_eq!(history.totals().longest_unseen, at_seconds(3));
    history.check_reading(&reading_at(2 + MAX_STALE_AGE.as_secs(), Vec::new()));
    expect_only(&history, Violation::Empty, 1);
}

#[test]
fn an_answer_to_at_least_without_it_is_found() {
    let mut history = three_acknowledged();
    history.check_reading(&Reading {
        at_least: Some(message_from(2, 2)),
        ..reading_at(3, three_shown()[..2].to_vec())
    });
    expect_only(&history, Violation::AtLeast, 1);
}

#[test]
fn what_nobody_sent_or_somebody_else_was_sent_is_found() {
    let mut history = three_acknowledged();
    let elsewhere = TestMessage { from: 2, to: 5, n: 0 };
    history.record_sending(elsewhere);
    history.record_acknowledged(at_seconds(1), elsewhere, Cursor::new(0, 0));
    for strange in ["hello".to_owned(), message_from(2, 9).to_string(), elsewhere.to_string()] {
        let mut shown = three_shown();
        shown.push(Shown { message: strange, cursor: cursor_at(5), read: false });
        history.check_reading(&reading_at(4, shown));
    }
    expect_only(&history, Violation::Foreign, 3);
}

#[test]
fn instances_that_differ_when_all_is_quiet_are_found() {
    let mut history = three_acknowledged();
    history.record_sending(message_from(9, 0));
    history.record_unknown(message_from(9, 0));
    let mut more = three_shown();
    more.push(shown_at(message_from(9, 0), 3));
    history.check_final_reading(&reading_at(9, more));
    history.check_final_reading(&Reading { instance: 1, ..reading_at(9, three_shown()) });
    expect_only(&history, Violation::Differs, 1);
}

#[test]
fn what_is_missing_counts_from_its_acknowledgement() {
    let history = three_acknowledged();
    assert_eq!(
        history.missing_messages(USER, at_seconds(3), &[]),
        [message_from(2, 0), message_from(2, 1)]
    );
    assert_eq!(history.missing_messages(USER, at_seconds(9), &three_shown()), []);
}

#[test]
fn a_time_without_an_answer_ends_with_the_next_answer() {
    let mut history = three_acknowledged();
    history.record_unavailable(at_seconds(4), USER, "503");
    history.record_unavailable(at_seconds(6), USER, "late");
    history.check_reading(&reading_at(9, three_shown()));
    history.check_reading(&reading_at(20, three_shown()));
    expect_no_violation(&history);
    assert_eq!(history.totals().longest_unanswered, at_seconds(5) + Duration::from_millis(5));
    assert_eq!(history.totals().unavailable.values().sum::<u64>(), 2);
}

#[test]
fn only_the_first_examples_are_kept_but_all_are_counted() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, three_shown()));
    for second in 5..30 {
        history.check_reading(&reading_at(second, Vec::new()));
    }
    expect_only(&history, Violation::Back, 25);
    assert_eq!(history.findings()[&Violation::Back].examples.len(), super::MAX_EXAMPLES);
}

#[test]
fn an_old_answer_that_is_not_empty_is_stale_and_its_age_is_known() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(5, three_shown()[..2].to_vec()));
    expect_no_violation(&history);
    assert_eq!((history.totals().stale, history.totals().longest_unseen), (1, at_seconds(2)));
    history.check_reading(&reading_at(4 + MAX_STALE_AGE.as_secs(), three_shown()[..2].to_vec()));
    expect_only(&history, Violation::Stale, 1);
}

#[test]
fn a_receipt_without_effect_is_found_once_for_each_notification() {
    let mut history = three_acknowledged();
    history.record_id(message_from(2, 1), "id");
    let picked = history.pick_unmarked(USER, 7);
    assert_eq!(picked, Some((message_from(2, 1), "id".to_owned())));
    history.record_marked(at_seconds(5), message_from(2, 1));
    assert_eq!(history.pick_unmarked(USER, 0), None);
    history.check_reading(&reading_at(5, three_shown()));
    let mut marked = three_shown();
    marked[1].read = true;
    history.check_reading(&reading_at(6, marked));
    expect_no_violation(&history);
    history.check_reading(&reading_at(7, three_shown()));
    history.check_reading(&reading_at(8, three_shown()));
    expect_only(&history, Violation::Receipt, 1);
}

#[test]
fn a_stream_that_loses_is_found() {
    let mut history = three_acknowledged();
    history.open_stream(1, USER);
    for shown in [&three_shown()[0], &three_shown()[2]] {
        history.record_streamed(1, 0, at_seconds(4), shown);
    }
    assert_eq!(history.missing_on_streams(at_seconds(9)), [(1, message_from(2, 1))]);
    history.close_streams(at_seconds(9));
    expect_only(&history, Violation::StreamLost, 1);
}

#[test]
fn a_stream_that_doubles_or_goes_back_is_found() {
    let mut history = three_acknowledged();
    for stream in [1, 2] {
        history.open_stream(stream, USER);
        history.record_streamed(stream, 0, at_seconds(4), &three_shown()[1]);
    }
    expect_no_violation(&history);
    history.record_streamed(1, 1, at_seconds(5), &three_shown()[1]);
    history.record_streamed(2, 1, at_seconds(5), &three_shown()[0]);
    expect_only(&history, Violation::StreamTwice, 2);
}

#[test]
fn an_answer_that_lacks_what_a_stream_told_is_found() {
    let mut history = three_acknowledged();
    history.open_stream(1, USER);
    history.record_streamed(1, 0, at_seconds(4), &three_shown()[2]);
    history.check_reading(&reading_at(5, three_shown()[..2].to_vec()));
    expect_only(&history, Violation::Back, 1);
}

#[test]
fn a_log_that_was_made_again_excuses_what_was_sent_before_and_a_gap() {
    let mut history = three_acknowledged();
    history.open_stream(1, USER);
    history.record_streamed(1, 0, at_seconds(4), &three_shown()[2]);
    history.forget_all();
    history.record_gap(1, "a gap");
    history.record_sending(message_from(2, 3));
    history.record_acknowledged(at_seconds(6), message_from(2, 3), cursor_at(0));
    history.record_streamed(1, 0, at_seconds(7), &shown_at(message_from(2, 3), 0));
    history.check_reading(&reading_at(8, vec![shown_at(message_from(2, 3), 0)]));
    history.close_streams(at_seconds(9));
    expect_no_violation(&history);
    history.check_reading(&reading_at(9, Vec::new()));
    expect_only(&history, Violation::Back, 1);
}

#[test]
fn what_retention_removed_may_be_missing_and_nothing_else() {
    let mut history = three_acknowledged();
    history.check_reading(&reading_at(4, three_shown()));
    history.forget_below(&[(3, 2)].into());
    history.check_reading(&reading_at(5, three_shown()[2..].to_vec()));
    expect_no_violation(&history);
    history.check_reading(&reading_at(6, Vec::new()));
    expect_only(&history, Violation::Back, 1);
}

#[test]
fn a_gap_without_a_reason_is_found() {
    let mut history = three_acknowledged();
    history.open_stream(1, USER);
    history.record_gap(1, "a gap");
    expect_only(&history, Violation::StreamGap, 1);
}

#[test]
fn a_status_that_no_fault_explains_is_found() {
    let mut history = three_acknowledged();
    for why in ["503", "504", "late", "broken"] {
        history.record_refused(message_from(2, 0), why);
    }
    expect_no_violation(&history);
    history.record_refused(message_from(2, 0), "404");
    history.record_unavailable(at_seconds(1), USER, "500");
    expect_only(&history, Violation::Status, 2);
}
