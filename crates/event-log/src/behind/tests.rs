//! The rule as histories: what happens at which second, and what the partition is then.

use std::time::{Duration, Instant};

use super::{
    BehindCause::{self, *},
    BehindDetector, EndError, ReadProblem,
};

#[derive(Clone, Copy)]
enum Step {
    /// The question of this second was answered, at once.
    End(i64),
    /// The question that was sent so many seconds ago is answered now.
    LateEnd(u64, i64),
    Failed(EndError),
    Position(i64),
    StableEnd(i64),
    Problem(ReadProblem),
    /// Another partition of the client moves.
    OtherMoves,
    Follows,
    /// Behind since this second.
    Behind(u64, BehindCause),
}
use Step::{Behind, End, Failed, Follows, LateEnd, OtherMoves, Position, Problem, StableEnd};

fn check(is_live: bool, history: &[(u64, Step)]) {
    let start = Instant::now();
    let at = |second| start + Duration::from_secs(second);
    let mut detector = BehindDetector::new(start);
    let (mut other, mut problem) = (start, None);
    for (second, step) in history {
        let now = at(*second);
        let moved_at = other.max(detector.moved_at());
        match *step {
            End(end) => detector.on_end(now, Ok(end)),
            LateEnd(ago, end) => detector.on_end(at(second - ago), Ok(end)),
            Failed(error) => detector.on_end(now, Err(error)),
            Position(position) => detector.on_position(now, position),
            StableEnd(end) => detector.on_stable_end(end),
            Problem(found) => problem = Some(found),
            OtherMoves => other = now,
            Follows => {
                let found = detector.check(now, is_live, moved_at, problem);
                assert_eq!(found, None, "at {second} s");
            }
            Behind(since, cause) => {
                let found = detector.check(now, is_live, moved_at, problem);
                assert_eq!(found, Some((at(since), cause)), "at {second} s");
            }
        }
    }
}

#[test]
fn a_partition_that_reaches_each_end_that_is_told_follows_its_log() {
    check(
        true,
        &[
            (0, Position(5)),
            (0, End(5)),
            (3, Follows),
            (3, End(8)),
            (3, Follows),
            (4, Position(8)),
            (6, Follows),
            (6, End(8)),
            (9, Follows),
        ],
    );
}

#[test]
fn a_busy_partition_that_is_some_records_behind_and_progresses_follows_its_log() {
    let step = |second: u64| {
        let end = i64::try_from(second).expect("small") * 100;
        [(second, End(end)), (second, Position(end - 50)), (second, Follows)]
    };
    let history: Vec<_> = (1..30).flat_map(step).collect();
    check(true, &history);
}

#[test]
fn an_end_that_is_not_reached_without_any_progress_makes_it_behind_until_it_is() {
    let unread = NotDelivered { next: 5, end: 8 };
    check(
        true,
        &[
            (0, Position(5)),
            (1, End(8)),
            (4, Follows),
            (4, End(9)),
            (5, Behind(1, unread)),
            (6, End(9)),
            // Progress alone does not end it.
            (7, Position(6)),
            (7, Behind(1, NotDelivered { next: 6, end: 8 })),
            (8, Position(8)),
            (8, Follows),
        ],
    );
}

#[test]
fn the_cause_is_the_unfinished_transaction_or_the_problem_of_the_client() {
    let (next, end) = (5, 8);
    let begin = [(0, Position(5)), (1, End(8)), (5, End(8))];
    let with = |steps: &[(u64, Step)]| check(true, &[&begin[..], steps].concat());
    with(&[(5, StableEnd(5)), (5, Behind(1, OpenTransaction { next, end }))]);
    // Even if the client has had a problem elsewhere.
    with(&[
        (5, Problem(ReadProblem::Other)),
        (5, StableEnd(5)),
        (5, Behind(1, OpenTransaction { next, end })),
    ]);
    let problem = ReadProblem::Compression;
    with(&[(5, Problem(problem)), (5, Behind(1, Unreadable { next, end, problem }))]);
    with(&[(5, StableEnd(8)), (5, Behind(1, NotDelivered { next, end }))]);
}

#[test]
fn silence_counts_from_the_sending_of_the_last_question_that_was_answered() {
    check(
        true,
        &[
            (0, Position(5)),
            (1, End(5)),
            (4, Follows),
            (5, Behind(1, Silent)),
            // The answer to a question of second 2 says nothing of what was written since.
            (6, LateEnd(4, 5)),
            (6, Behind(2, Silent)),
            (7, End(5)),
            (7, Follows),
            // After silence there may be more to read.
            (11, Behind(7, Silent)),
            (12, End(9)),
            (12, Behind(12, NotDelivered { next: 5, end: 9 })),
            (12, Position(9)),
            (12, Follows),
        ],
    );
}

#[test]
fn a_question_that_fails_again_and_again_gives_the_cause() {
    for (error, cause) in [
        (EndError::Silent, Silent),
        (EndError::TopicMissing, TopicMissing),
        (EndError::Forbidden, Forbidden),
        (EndError::Other, EndUnknown),
    ] {
        check(
            true,
            &[
                (0, Position(5)),
                (1, End(5)),
                (2, Failed(error)),
                (3, Follows),
                (5, Behind(1, cause)),
                (6, End(5)),
                (6, Follows),
            ],
        );
    }
}

#[test]
fn a_rebuild_is_behind_only_if_no_partition_of_its_client_progresses() {
    check(
        false,
        &[
            (1, End(100)),
            (2, Position(10)),
            (9, End(100)),
            (12, Follows),
            (12, OtherMoves),
            (18, End(100)),
            (22, Follows),
            (23, Behind(1, NotDelivered { next: 10, end: 100 })),
            (24, Position(100)),
            (24, Follows),
        ],
    );
}

#[test]
fn an_answer_to_a_question_before_the_assignment_has_no_effect() {
    let now = Instant::now();
    let later = now + Duration::from_secs(2);
    let mut detector = BehindDetector::new(later);
    detector.on_end(now, Ok(9));
    assert_eq!(detector.target_age(later), None);
}
