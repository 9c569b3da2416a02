//! The view without any broker: folds driven by hand, and what readers then see.

mod fuzz;
mod snapshots;

use std::{collections::VecDeque, sync::Arc, time::Duration};

use consumer::view::{
    Held, Limits, NotLive, Page, Query, Since, View,
    fold::{Notifications, Ownership, Receipts, SayLive},
    page::GapReason,
};
use event_log::{PartitionHandler, Record, RecordOutcome, Watermarks};
use jiff::Timestamp;
use model::{
    Action, Cursor, Fingerprint, Headers, Notification, NotificationId, Partitioner, Receipt, User,
    UserId,
    record::{encode_notification, encode_receipt},
};
use proptest::prelude::*;

const NOW: Duration = Duration::ZERO;

/// Nobody else needs to know who owns what here.
struct Nobody;

impl Ownership for Nobody {
    fn assigned(&mut self, _: i32) {}
    fn revoked(&mut self, _: i32) {}
}

/// A view of one partition and its two folds, driven by hand.
struct Bench {
    view: Arc<View>,
    notifications: Notifications<Nobody>,
    receipts: Receipts,
}

fn user(id: i64) -> UserId {
    UserId::new(id).expect("positive")
}

fn id(n: usize) -> NotificationId {
    NotificationId::from_text(&format!("id-{n}")).expect("short")
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let view = Arc::new(View::new(1, Partitioner::default(), limits));
        let say: SayLive = Arc::new(|_| ());
        let mut notifications = Notifications::into(
            Arc::clone(&view),
            "notifications".into(),
            Nobody,
            Arc::clone(&say),
        );
        notifications.renew_lease();
        let receipts = Receipts::into(Arc::clone(&view), "receipts".into(), say);
        Self { view, notifications, receipts }
    }

    /// Live, with nothing in it.
    fn live(limits: Limits) -> Self {
        let mut bench = Self::new(limits);
        bench.assign(0);
        bench.go_live();
        bench
    }

    fn assign(&mut self, low: i64) {
        self.notifications.on_assigned(0);
        self.notifications.on_watermarks(0, Watermarks { low, high: low });
        self.receipts.on_assigned(0);
        self.receipts.on_watermarks(0, Watermarks { low: 0, high: 0 });
    }

    fn go_live(&mut self) {
        self.notifications.on_live(0);
        self.receipts.on_live(0);
    }

    /// A notification with this id for user `to`, sent so many seconds ago.
    fn notify(&mut self, offset: i64, to: i64, id: NotificationId, ago: i64) -> RecordOutcome {
        self.notify_keyed(offset, to, id, ago, None)
    }

    /// The same with a fingerprint, as if its sender had given an Idempotency-Key.
    fn notify_keyed(
        &mut self,
        offset: i64,
        to: i64,
        id: NotificationId,
        ago: i64,
        fingerprint: Option<Fingerprint>,
    ) -> RecordOutcome {
        let notification = Notification {
            from: User { id: user(9), name: "Nine".into() },
            to: User { id: user(to), name: "To".into() },
            message: format!("at {offset}").into(),
            category: Some(if offset % 2 == 0 { "even" } else { "odd" }.into()),
            link: None,
            data: None,
        };
        let sent_at = Timestamp::now() - jiff::SignedDuration::from_secs(ago);
        let record = encode_notification(
            &notification,
            &Headers { id, sent_at, traceparent: None, fingerprint },
        )
        .expect("JSON");
        let headers = record.headers.iter().map(|(name, value)| (*name, &**value)).collect();
        self.notifications.on_record(&Record {
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some(&record.key),
            value: Some(&record.value),
            headers,
        })
    }

    fn receipt(&mut self, offset: i64, to: i64, action: Action, ids: Vec<NotificationId>) {
        let headers = Headers {
            id: NotificationId::generate(),
            sent_at: Timestamp::now(),
            traceparent: None,
            fingerprint: None,
        };
        let receipt = Receipt { user_id: user(to), action, ids };
        let record = encode_receipt(&receipt, &headers).expect("JSON");
        self.receipts.on_record(&Record {
            partition: 0,
            offset,
            timestamp_ms: 0,
            key: Some(&record.key),
            value: Some(&record.value),
            headers: smallvec::SmallVec::new(),
        });
    }

    async fn read(&self, to: i64, query: &Query) -> Result<Page, NotLive> {
        self.view.read(user(to), query, NOW).await
    }

    async fn offsets(&self, to: i64, query: &Query) -> Vec<i64> {
        let page = self.read(to, query).await.expect("live");
        page.items.iter().map(|item| item.at.offset).collect()
    }
}

fn held(bench: &Bench) -> Held {
    bench.view.partition(0).expect("the only partition").held()
}

fn since(offset: i64) -> Query {
    Query { since: Since::Cursor(Cursor::new(0, offset)), ..Query::default() }
}

#[tokio::test]
async fn a_partition_that_is_not_live_never_says_that_there_is_nothing() {
    let mut bench = Bench::new(Limits::default());
    let all = Query::default();
    assert!(matches!(bench.read(1, &all).await, Err(NotLive::Unowned { partition: 0 })));

    bench.notifications.on_assigned(0);
    bench.notifications.on_watermarks(0, Watermarks { low: 10, high: 14 });
    bench.receipts.on_assigned(0);
    bench.notify(10, 1, id(0), 0);
    let progress = match bench.read(1, &all).await {
        Err(NotLive::Rebuilding { progress, .. }) => Some((progress.records, progress.total)),
        _ => None,
    };
    assert_eq!(progress, Some((1, None)));
    bench.receipts.on_watermarks(0, Watermarks { low: 0, high: 0 });

    // Both topics must be read before anybody is answered.
    bench.notifications.on_live(0);
    assert!(matches!(bench.read(1, &all).await, Err(NotLive::Rebuilding { .. })));
    bench.receipts.on_live(0);
    assert_eq!(bench.offsets(1, &all).await, [10]);

    bench.notifications.on_revoked(0);
    assert!(matches!(bench.read(1, &all).await, Err(NotLive::Unowned { partition: 0 })));
}

#[tokio::test]
async fn a_word_of_an_earlier_assignment_does_not_make_a_partition_live() {
    let mut bench = Bench::live(Limits::default());
    bench.notifications.on_revoked(0);
    bench.notifications.on_assigned(0);
    // The receipts' thread is still at the old assignment when it says this.
    bench.receipts.on_live(0);
    bench.notifications.on_live(0);
    assert!(bench.read(1, &Query::default()).await.is_err());
    bench.receipts.on_assigned(0);
    bench.receipts.on_live(0);
    assert!(bench.read(1, &Query::default()).await.is_ok());
}

#[tokio::test]
async fn a_record_that_is_no_notification_is_poison_and_moves_the_view_on() {
    let mut bench = Bench::live(Limits::default());
    let verdict = bench.notifications.on_record(&Record {
        partition: 0,
        offset: 5,
        timestamp_ms: 0,
        key: None,
        value: Some(b"rubbish"),
        headers: smallvec::SmallVec::new(),
    });
    assert!(matches!(verdict, RecordOutcome::Poison(_)));
    assert_eq!(bench.read(1, &Query::default()).await.expect("live").cursor, Cursor::new(0, 5));
}

#[tokio::test]
async fn what_is_sent_is_what_is_seen_with_at_least() {
    let mut bench = Bench::live(Limits::default());
    let query = Query { at_least: Some(Cursor::new(0, 3)), ..Query::default() };
    bench.notify(2, 1, id(2), 0);
    assert!(matches!(bench.read(1, &query).await, Err(NotLive::Behind { position: 2, .. })));
    bench.notify(3, 1, id(3), 0);
    assert_eq!(bench.offsets(1, &query).await, [2, 3]);
}

#[tokio::test]
async fn a_waiting_reader_is_answered_when_something_comes() {
    let mut bench = Bench::live(Limits::default());
    bench.notify(0, 1, id(0), 0);
    let view = Arc::clone(&bench.view);
    let waiting = tokio::spawn(async move {
        let query = Query { wait: Duration::from_secs(60), ..since(0) };
        view.read(user(1), &query, NOW).await.map(|page| page.items.len())
    });
    tokio::task::yield_now().await;
    // Somebody else's does not count.
    bench.notify(1, 2, id(1), 0);
    bench.notify(2, 1, id(2), 0);
    assert_eq!(waiting.await.expect("no panic"), Ok(1));
}

#[tokio::test]
async fn filters_choose_and_the_unread_count_is_of_the_whole_inbox() {
    let mut bench = Bench::live(Limits::default());
    for offset in 0..6 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 100 - offset);
    }
    bench.receipt(0, 1, Action::Read, vec![id(0), id(1)]);
    bench.receipt(1, 1, Action::Dismissed, vec![id(5)]);
    let even = Query { category: Some("even".into()), ..Query::default() };
    assert_eq!(bench.offsets(1, &even).await, [0, 2, 4]);
    let unread = Query { unread: true, ..Query::default() };
    assert_eq!(bench.offsets(1, &unread).await, [2, 3, 4]);
    let newest = Query { limit: Some(2), ..Query::default() };
    let page = bench.read(1, &newest).await.expect("live");
    assert_eq!((page.items.len(), page.unread, page.more), (2, 3, false));
    assert_eq!(page.items[0].at.offset, 3);
    let from = Timestamp::now().as_millisecond() - 97_500;
    let recent = Query { since: Since::Time(from), ..Query::default() };
    assert_eq!(bench.offsets(1, &recent).await, [3, 4]);
}

#[tokio::test]
async fn what_a_cursor_can_no_longer_be_given_is_a_gap_with_its_reason() {
    let limits = Limits { entries: 2, age: Duration::from_secs(3600) };
    let gap = |page: Page| page.gap.map(|gap| (gap.reason.as_str(), gap.through.offset));

    let mut bench = Bench::live(limits);
    for offset in 0..5 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    assert_eq!(gap(bench.read(1, &since(0)).await.expect("live")), Some(("evicted", 2)));
    assert_eq!(gap(bench.read(1, &since(2)).await.expect("live")), None);
    assert_eq!(gap(bench.read(1, &since(9)).await.expect("live")), Some(("unknown", 4)));
    let other = Query { since: Since::Cursor(Cursor::new(7, 0)), ..Query::default() };
    let page = bench.read(1, &other).await.expect("live");
    assert_eq!(page.items.len(), 2, "everything, since nothing is known of that place");
    assert_eq!(page.gap.map(|gap| gap.reason), Some(GapReason::Unknown));

    bench.notify(5, 2, id(50), 7200);
    assert_eq!(gap(bench.read(2, &since(4)).await.expect("live")), Some(("expired", 5)));

    let mut bench = Bench::new(limits);
    bench.assign(100);
    bench.go_live();
    assert_eq!(gap(bench.read(1, &since(50)).await.expect("live")), Some(("retention", 99)));
    assert_eq!(gap(bench.read(1, &since(99)).await.expect("live")), None);
}

#[tokio::test]
async fn an_inbox_of_which_everything_is_too_old_takes_no_memory_and_its_gap_is_still_said() {
    let limits = Limits { entries: 10, age: Duration::from_secs(3600) };
    let mut bench = Bench::live(limits);
    bench.notify(0, 1, id(0), 3599);
    assert_eq!(bench.offsets(1, &Query::default()).await, [0]);
    bench.notify(1, 2, id(1), 7200);
    bench.view.expire();
    let page = bench.read(2, &since(0)).await.expect("live");
    assert_eq!(page.gap.map(|gap| gap.reason), Some(GapReason::Retention));
    assert_eq!(bench.offsets(1, &Query::default()).await, [0]);
}

#[tokio::test]
async fn what_left_the_inboxes_is_counted_by_its_reason_over_all_assignments() {
    let limits = Limits { entries: 2, age: Duration::from_secs(3600) };
    let mut bench = Bench::live(limits);
    let replay = |bench: &mut Bench| {
        for offset in 0..5 {
            bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
        }
        bench.notify(5, 2, id(5), 7200);
        // Who is dismissed leaves no inbox any more.
        bench.notify(6, 3, id(6), 0);
        bench.receipt(0, 3, Action::Dismissed, vec![id(6)]);
    };
    replay(&mut bench);
    let gone = |held: Held| (held.tally.entries, held.tally.evicted, held.tally.expired);
    assert_eq!((held(&bench).users, gone(held(&bench))), (3, (2, 3, 1)));
    bench.notifications.on_revoked(0);
    assert_eq!((held(&bench).users, gone(held(&bench))), (0, (0, 3, 1)));
    bench.assign(0);
    replay(&mut bench);
    assert_eq!(gone(held(&bench)), (2, 6, 2), "rebuilding counts too");
    bench.go_live();
    assert_eq!(gone(held(&bench)), (2, 6, 2));
}

#[tokio::test]
async fn an_instance_that_was_stopped_for_long_does_not_answer_from_memory() {
    // The lease is 5 s of real time.
    let mut bench = Bench::live(Limits::default());
    bench.notify(0, 1, id(0), 0);
    assert!(bench.read(1, &Query::default()).await.is_ok());
    let start = std::time::Instant::now();
    while bench.read(1, &Query::default()).await.is_ok() {
        assert!(start.elapsed() < Duration::from_secs(30), "the lease never ends");
        std::thread::sleep(Duration::from_millis(20));
    }
    bench.notifications.renew_lease();
    assert!(bench.read(1, &Query::default()).await.is_ok());
}

/// Entries of an inbox in the test below.
const BOUND: usize = 4;

/// Something that happens in one of the two topics.
#[derive(Debug, Clone)]
enum Event {
    /// The next notification.
    Notify { old: bool },
    /// A receipt for some of the newest: 0 is the last one sent before it.
    Act { action: Action, back: Vec<usize> },
}

fn event() -> impl Strategy<Value = Event> {
    let action = prop_oneof![
        3 => Just(Action::Read), 1 => Just(Action::Unread), 1 => Just(Action::Dismissed)
    ];
    prop_oneof![
        prop::bool::weighted(0.1).prop_map(|old| Event::Notify { old }),
        (action, prop::collection::vec(0..BOUND, 1..4))
            .prop_map(|(action, back)| Event::Act { action, back }),
    ]
}

/// Everything that a reader can see of an inbox.
async fn seen(bench: &Bench) -> (String, (i64, i64, i64)) {
    let page = bench.read(1, &Query::default()).await.expect("live");
    let tally = held(bench).tally;
    assert_eq!(tally.entries, page.items.len());
    assert_eq!(tally.bytes, page.items.iter().map(|item| item.json.len()).sum::<usize>());
    (page.to_json(), page.version)
}

/// Folds both topics, whichever comes next being decided by `choices`.
async fn fold_all(events: &[Event], choices: &[bool]) -> (String, (i64, i64, i64)) {
    let mut bench = Bench::live(Limits { entries: BOUND, age: Duration::from_secs(3600) });
    let (mut notifications, mut receipts, mut sent) = (VecDeque::new(), VecDeque::new(), 0_usize);
    for event in events {
        match event {
            Event::Notify { old } => {
                notifications.push_back((sent, if *old { 7200 } else { 0 }));
                sent += 1;
            }
            // A recipient can only mean what is there.
            Event::Act { action, back } => {
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
    seen(&bench).await
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn it_makes_no_difference_when_a_receipt_is_folded(
        events in prop::collection::vec(event(), 0..120),
        one in prop::collection::vec(any::<bool>(), 1..20),
        other in prop::collection::vec(any::<bool>(), 1..20),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        let (one, other) = runtime.block_on(async {
            (fold_all(&events, &one).await, fold_all(&events, &other).await)
        });
        // Times differ by when each run was made; nothing else may.
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
            let mut bench = Bench::live(Limits { entries: 1000, age: Duration::from_secs(3600) });
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
                let query = Query { since: from, limit: Some(limit), ..Query::default() };
                let page = bench.read(1, &query).await.expect("live");
                prop_assert!(page.items.len() <= limit && page.gap.is_none());
                seen.extend(page.items.iter().map(|item| item.at.offset));
                from = Since::Cursor(page.cursor);
                for n in 0..arrivals {
                    append(&mut bench, for_me || n % 2 == 0);
                }
            }
            let rest = Query { since: from, ..Query::default() };
            seen.extend(bench.offsets(1, &rest).await);
            prop_assert_eq!(seen, mine);
            Ok(())
        })?;
    }
}

#[tokio::test]
async fn a_second_copy_is_dropped_and_a_reused_key_is_set_aside() {
    let mut bench = Bench::live(Limits::default());
    let (id, one, other) =
        (NotificationId::generate(), Fingerprint::from_bits(1), Fingerprint::from_bits(2));
    assert_eq!(bench.notify_keyed(0, 1, id.clone(), 0, Some(one)), RecordOutcome::Applied);
    assert_eq!(bench.notify_keyed(1, 1, id.clone(), 0, Some(one)), RecordOutcome::Applied);
    // Of a record without a fingerprint nobody can say that it is another.
    assert_eq!(bench.notify_keyed(2, 1, id.clone(), 0, None), RecordOutcome::Applied);
    let verdict = bench.notify_keyed(3, 1, id, 0, Some(other));
    assert!(matches!(verdict, RecordOutcome::Poison(why) if why.contains("Idempotency-Key")));
    assert_eq!(bench.offsets(1, &Query::default()).await, [0]);
}
