//! Generated records: the view does not depend on how the two topics interleave, and pages by cursor
//! show each entry once.

use std::collections::VecDeque;

use proptest::prelude::*;

use super::*;

/// The most entries of an inbox in the test below.
const BOUND: usize = 4;

/// The most bytes of an inbox in the test below: of short entries, fewer than `BOUND` have room.
const MAX_BYTES: usize = 500;

/// A record of one of the two topics.
#[derive(Debug, Clone)]
enum Step {
    /// The next notification.
    Notify { old: bool },
    /// A receipt for some of the newest notifications: 0 is the last one sent before it.
    Act { action: Action, back: Vec<usize> },
}

fn step() -> impl Strategy<Value = Step> {
    let action = prop_oneof![
        3 => Just(Action::Read), 1 => Just(Action::Unread), 1 => Just(Action::Dismissed)
    ];
    prop_oneof![
        prop::bool::weighted(0.1).prop_map(|old| Step::Notify { old }),
        (action, prop::collection::vec(0..BOUND, 1..4))
            .prop_map(|(action, back)| Step::Act { action, back }),
    ]
}

/// Everything that a reader can see of an inbox.
async fn read_everything(bench: &Bench) -> (String, (i64, i64, i64)) {
    let page = bench.read(1, &PageQuery::default()).await.expect("live");
    let totals = totals(bench).inboxes;
    assert_eq!(totals.entries, page.items.len());
    assert_eq!(totals.bytes, page.items.iter().map(|item| item.json.len()).sum::<usize>());
    (page.to_json(), page.version)
}

/// Applies both topics, interleaved by `choices`.
async fn apply_all(events: &[Step], choices: &[bool]) -> (String, (i64, i64, i64)) {
    let mut bench =
        Bench::live(Limits { entries: BOUND, bytes: MAX_BYTES, age: Duration::from_secs(3600) });
    let (mut notifications, mut receipts, mut sent) = (VecDeque::new(), VecDeque::new(), 0_usize);
    for event in events {
        match event {
            Step::Notify { old } => {
                notifications.push_back((sent, if *old { 7200 } else { 0 }));
                sent += 1;
            }
            // A recipient can only act on notifications that were sent.
            Step::Act { action, back } => {
                let ids = back.iter().filter_map(|back| sent.checked_sub(back + 1)).map(id);
                receipts.push_back((*action, ids.collect::<Vec<_>>()));
            }
        }
    }
    let mut choices = choices.iter().copied().cycle();
    let (mut notified, mut acted) = (0, 0);
    while !notifications.is_empty() || !receipts.is_empty() {
        if receipts.is_empty() || (choices.next() == Some(true) && !notifications.is_empty()) {
            if let Some((n, ago)) = notifications.pop_front() {
                bench.notify(notified, 1, id(n), ago);
                notified += 1;
            }
        } else if let Some((action, ids)) = receipts.pop_front() {
            bench.receipt(acted, 1, action, ids);
            acted += 1;
        }
    }
    read_everything(&bench).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_makes_no_difference_when_a_receipt_is_applied(
        events in prop::collection::vec(step(), 0..120),
        one in prop::collection::vec(any::<bool>(), 1..20),
        other in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (one, other) = runtime.block_on(async {
            (apply_all(&events, &one).await, apply_all(&events, &other).await)
        });
        // Only the times differ, because the runs are made one after the other.
        let timeless = |json: &str| json.split("\"sent_at\"").map(|part| {
            part.split_once("Z\"").map_or(part, |(_, rest)| rest).to_owned()
        }).collect::<Vec<_>>();
        prop_assert_eq!(timeless(&one.0), timeless(&other.0));
        prop_assert_eq!(one.1, other.1);
    }

    #[test]
    fn pages_by_cursor_show_each_entry_exactly_once_whatever_comes_meanwhile(
        before in 0..30_usize, steps in prop::collection::vec((1..5_usize, 0..4_usize, any::<bool>()), 1..30),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let mut bench = Bench::live(Limits { entries: 1000, bytes: 1 << 20, age: Duration::from_secs(3600) });
            let (mut offset, mut mine) = (0, Vec::new());
            let mut append = |bench: &mut Bench, for_me: bool| {
                bench.notify(offset, if for_me { 1 } else { 2 }, NotificationId::generate(), 0);
                if for_me {
                    mine.push(offset);
                }
                offset += 1;
            };
            for n in 0..before {
                append(&mut bench, n % 3 != 0);
            }
            let (mut seen, mut from) = (Vec::new(), Since::Beginning);
            for (limit, arrivals, for_me) in steps {
                let query = PageQuery { since: from, limit: Some(limit), ..PageQuery::default() };
                let page = bench.read(1, &query).await.expect("live");
                prop_assert!(page.items.len() <= limit && page.gap.is_none());
                seen.extend(page.items.iter().map(|item| item.at.offset));
                from = Since::Cursor(page.cursor);
                for n in 0..arrivals {
                    append(&mut bench, for_me || n % 2 == 0);
                }
            }
            let rest = PageQuery { since: from, ..PageQuery::default() };
            seen.extend(bench.offsets(1, &rest).await);
            prop_assert_eq!(seen, mine);
            Ok(())
        })?;
    }
}
