//! The checker can fail: each promise, broken on purpose, is found; and what only looks odd is not.

use std::time::Duration;

use model::Cursor;

use super::{EMPTY_GRACE, History, Reading, Shown, Value, Wrong};

const USER: i64 = 1;

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn value(from: i64, n: u32) -> Value {
    Value { from, to: USER, n }
}

fn cursor(offset: i64) -> Cursor {
    Cursor::new(3, offset)
}

fn shown(value: Value, offset: i64) -> Shown {
    Shown { message: value.to_string(), cursor: cursor(offset) }
}

/// Sender 2's first three, acknowledged at 1, 2 and 3 s as offsets 0, 1 and 2.
fn three() -> History {
    let mut history = History::default();
    for n in 0..3 {
        history.sending(value(2, n));
        history.acknowledged(at(u64::from(n) + 1), value(2, n), cursor(i64::from(n)));
    }
    history
}

fn all_three() -> Vec<Shown> {
    (0..3).map(|n| shown(value(2, n), i64::from(n))).collect()
}

fn reading(seconds: u64, shown: Vec<Shown>) -> Reading {
    let (began, ended) = (at(seconds), at(seconds) + Duration::from_millis(5));
    Reading { user: USER, instance: 0, began, ended, at_least: None, shown }
}

/// Exactly this is wrong, this often, and there is an example of it.
fn only(history: &History, wrong: Wrong, count: u64) {
    let found: Vec<_> =
        history.findings().iter().map(|(wrong, found)| (*wrong, found.count)).collect();
    assert_eq!(found, [(wrong, count)], "{:?}", history.findings());
    assert!(!history.findings()[&wrong].examples.is_empty());
}

fn nothing(history: &History) {
    assert!(history.findings().is_empty(), "{:?}", history.findings());
}

#[test]
fn a_history_without_fault_is_found_to_be_so() {
    let mut history = three();
    history.read(&reading(4, all_three()));
    history.read(&Reading { at_least: Some(value(2, 2)), ..reading(5, all_three()) });
    history.settled(&reading(6, all_three()));
    history.settled(&Reading { instance: 1, ..reading(6, all_three()) });
    nothing(&history);
    let totals = history.totals();
    assert_eq!(
        (totals.sends, totals.acknowledged, totals.reads, totals.at_least_reads),
        (3, 3, 2, 1)
    );
}

#[test]
fn a_loss_is_found() {
    let mut history = three();
    history.settled(&reading(9, vec![shown(value(2, 0), 0), shown(value(2, 2), 2)]));
    // The same loss on another instance is the same notification.
    history.settled(&Reading {
        instance: 1,
        ..reading(9, vec![shown(value(2, 0), 0), shown(value(2, 2), 2)])
    });
    only(&history, Wrong::Lost, 1);
}

#[test]
fn a_duplicate_in_one_answer_is_found() {
    let mut history = three();
    let mut twice = all_three();
    twice.push(shown(value(2, 2), 2));
    history.read(&reading(4, twice));
    only(&history, Wrong::Twice, 1);
}

#[test]
fn a_notification_at_two_places_of_the_log_is_found() {
    let mut history = three();
    let mut moved = all_three();
    moved[2].cursor = cursor(7);
    history.read(&reading(4, moved));
    only(&history, Wrong::Twice, 1);

    let mut history = three();
    history.read(&reading(4, all_three()));
    let mut moved = all_three();
    moved[2].cursor = cursor(1);
    history.read(&reading(5, moved));
    only(&history, Wrong::Twice, 1);
}

#[test]
fn a_record_that_was_written_again_is_shown_at_its_first_place_and_acknowledged_at_its_second() {
    let mut history = three();
    history.sending(value(2, 3));
    history.acknowledged(at(4), value(2, 3), cursor(9));
    let mut first = all_three();
    first.push(shown(value(2, 3), 5));
    history.read(&reading(5, first));
    nothing(&history);
    assert_eq!(history.totals().written_again, 1);
}

#[test]
fn an_unacknowledged_send_may_be_shown_once_but_not_at_two_places() {
    let mut history = three();
    history.sending(value(2, 3));
    history.unknown(value(2, 3));
    history.read(&reading(4, all_three()));
    let mut once = all_three();
    once.push(shown(value(2, 3), 3));
    history.read(&reading(5, once.clone()));
    nothing(&history);
    assert_eq!((history.totals().indeterminate, history.totals().indeterminate_shown), (1, 1));
    once[3].cursor = cursor(4);
    history.read(&reading(6, once));
    only(&history, Wrong::Twice, 1);
}

#[test]
fn a_reorder_is_found() {
    let mut history = three();
    history.read(&reading(
        4,
        vec![shown(value(2, 1), 1), shown(value(2, 0), 0), shown(value(2, 2), 2)],
    ));
    only(&history, Wrong::Disorder, 1);
}

#[test]
fn an_unacknowledged_send_may_come_late_and_senders_do_not_wait_for_each_other() {
    let mut history = History::default();
    history.sending(value(2, 0));
    history.unknown(value(2, 0));
    for (sender, offset) in [(2, 0), (9, 1)] {
        history.sending(value(sender, 1));
        history.acknowledged(at(1), value(sender, 1), cursor(offset));
    }
    history.read(&reading(
        4,
        vec![shown(value(2, 1), 0), shown(value(9, 1), 1), shown(value(2, 0), 2)],
    ));
    nothing(&history);
}

#[test]
fn less_than_was_shown_before_is_found_on_whichever_instance() {
    let mut history = three();
    history.read(&reading(4, all_three()));
    history.read(&Reading { instance: 2, ..reading(5, all_three()[..2].to_vec()) });
    only(&history, Wrong::Empty, 1);
    history.read(&Reading { instance: 1, ..reading(6, Vec::new()) });
    only(&history, Wrong::Empty, 2);
}

#[test]
fn an_answer_that_was_asked_for_before_the_other_was_given_may_show_less() {
    let mut history = three();
    history.read(&reading(4, all_three()));
    history.read(&Reading { ended: at(9), ..reading(4, all_three()[..2].to_vec()) });
    nothing(&history);
}

#[test]
fn nothing_at_all_for_long_is_found_even_when_nobody_was_shown_anything() {
    let mut history = three();
    history.read(&reading(4, Vec::new()));
    nothing(&history);
    assert_eq!(history.totals().longest_unseen, at(3));
    history.read(&reading(2 + EMPTY_GRACE.as_secs(), Vec::new()));
    only(&history, Wrong::Empty, 1);
}

#[test]
fn an_answer_to_at_least_without_it_is_found() {
    let mut history = three();
    history.read(&Reading { at_least: Some(value(2, 2)), ..reading(3, all_three()[..2].to_vec()) });
    only(&history, Wrong::AtLeast, 1);
}

#[test]
fn what_nobody_sent_or_somebody_else_was_sent_is_found() {
    let mut history = three();
    let elsewhere = Value { from: 2, to: 5, n: 0 };
    history.sending(elsewhere);
    history.acknowledged(at(1), elsewhere, Cursor::new(0, 0));
    for strange in ["hello".to_owned(), value(2, 9).to_string(), elsewhere.to_string()] {
        let mut shown = all_three();
        shown.push(Shown { message: strange, cursor: cursor(5) });
        history.read(&reading(4, shown));
    }
    only(&history, Wrong::Foreign, 3);
}

#[test]
fn instances_that_differ_when_all_is_quiet_are_found() {
    let mut history = three();
    history.sending(value(9, 0));
    history.unknown(value(9, 0));
    let mut more = all_three();
    more.push(shown(value(9, 0), 3));
    history.settled(&reading(9, more));
    history.settled(&Reading { instance: 1, ..reading(9, all_three()) });
    only(&history, Wrong::Differs, 1);
}

#[test]
fn what_is_missing_counts_from_its_acknowledgement() {
    let history = three();
    assert_eq!(history.missing(USER, at(3), &[]), [value(2, 0), value(2, 1)]);
    assert_eq!(history.missing(USER, at(9), &all_three()), []);
}

#[test]
fn a_time_without_an_answer_ends_with_the_next_answer() {
    let mut history = three();
    history.unavailable(at(4), USER, "503");
    history.unavailable(at(6), USER, "late");
    history.read(&reading(9, all_three()));
    history.read(&reading(20, all_three()));
    nothing(&history);
    assert_eq!(history.totals().longest_unanswered, at(5) + Duration::from_millis(5));
    assert_eq!(history.totals().unavailable.values().sum::<u64>(), 2);
}

#[test]
fn only_the_first_examples_are_kept_but_all_are_counted() {
    let mut history = three();
    history.read(&reading(4, all_three()));
    for second in 5..30 {
        history.read(&reading(second, Vec::new()));
    }
    only(&history, Wrong::Empty, 25);
    assert_eq!(history.findings()[&Wrong::Empty].examples.len(), super::EXAMPLES);
}
