//! A partition that cannot follow its log, and one whose log lost records.

use std::time::SystemTime;

use consumer::view::{
    Feed, PartitionStatus,
    feed::FeedEvent,
    page::{FeedStart, Gap},
};
use event_log::Behind;

use super::*;

fn behind(cause: &str) -> Behind {
    Behind { since: SystemTime::now(), cause: cause.into() }
}

fn all() -> PageQuery {
    PageQuery::default()
}

/// The cause for which a read is refused.
async fn refusal(bench: &Bench) -> Option<String> {
    match bench.read(1, &all()).await {
        Err(NotLive::Behind(0, behind)) => Some(behind.cause.to_string()),
        _ => None,
    }
}

async fn open_feed(bench: &Bench, since: Since) -> (Feed, Vec<FeedEvent>) {
    let start = FeedStart { since, limit: None, category: None };
    let opened = Feed::open(Arc::clone(&bench.view), user(1), start, 9, NOW).await;
    opened.expect("a live partition")
}

#[tokio::test]
async fn a_partition_that_cannot_follow_one_of_its_topics_does_not_answer() {
    let mut bench = Bench::live(Limits::default());
    bench.notify(0, 1, id(0), 0);
    bench.receipts.on_behind(0, Some(&behind("the receipts are late")));
    assert_eq!(refusal(&bench).await.as_deref(), Some("the receipts are late"));
    bench.notifications.on_behind(0, Some(&behind("no notifications")));
    bench.receipts.on_behind(0, None);
    assert_eq!(refusal(&bench).await.as_deref(), Some("no notifications"));
    bench.notifications.on_behind(0, None);
    assert_eq!(bench.offsets(1, &all()).await, [0]);
}

#[tokio::test]
async fn a_read_waits_for_a_partition_that_is_behind_and_is_answered_once_it_follows() {
    let mut bench = Bench::live(Limits::default());
    bench.notifications.on_behind(0, Some(&behind("a batch")));
    let view = Arc::clone(&bench.view);
    let waiting = tokio::spawn(async move {
        view.read_page(user(1), &PageQuery::default(), Duration::from_secs(60)).await
    });
    tokio::task::yield_now().await;
    assert!(!waiting.is_finished());
    bench.notify(0, 1, id(0), 0);
    bench.notifications.on_behind(0, None);
    let page = waiting.await.expect("no panic").expect("an answer");
    assert_eq!(page.items.len(), 1);
}

#[tokio::test]
async fn a_long_poll_does_not_end_as_empty_while_its_partition_is_behind() {
    let mut bench = Bench::live(Limits::default());
    let view = Arc::clone(&bench.view);
    let query = PageQuery { wait: Duration::from_millis(200), ..PageQuery::default() };
    let waiting = tokio::spawn(async move { view.read_page(user(1), &query, NOW).await });
    tokio::task::yield_now().await;
    bench.notifications.on_behind(0, Some(&behind("a batch")));
    assert!(matches!(waiting.await.expect("no panic"), Err(NotLive::Behind(..))));
}

#[tokio::test]
async fn a_rebuild_that_is_stuck_says_why_and_goes_on() {
    let mut bench = Bench::new(Limits::default());
    bench.assign(0);
    bench.notifications.on_behind(0, Some(&behind("a batch")));
    assert_eq!(refusal(&bench).await.as_deref(), Some("a batch"));
    let status = || bench.view.partition(0).expect("the only partition").status();
    let json = serde_json::to_value(status()).expect("JSON");
    assert_eq!((&json["state"], &json["cause"]), (&"behind".into(), &"a batch".into()));
    assert!(json["since"].as_str().is_some_and(|since| since.ends_with('Z')), "{json}");
    assert_eq!(json["position"], -1);
    bench.notifications.on_behind(0, None);
    assert!(matches!(bench.read(1, &all()).await, Err(NotLive::Rebuilding(..))));
    bench.go_live();
    assert_eq!(bench.offsets(1, &all()).await, [0; 0]);
}

#[tokio::test]
async fn what_an_earlier_assignment_was_behind_does_not_count() {
    let mut bench = Bench::live(Limits::default());
    bench.notifications.on_behind(0, Some(&behind("a batch")));
    bench.notifications.on_revoked(0);
    bench.notifications.on_assigned(0);
    // The receipts' reader has not started on this assignment yet.
    bench.receipts.on_behind(0, Some(&behind("late")));
    bench.receipts.on_assigned(0);
    bench.go_live();
    let status = bench.view.partition(0).expect("the only partition").status();
    assert!(matches!(status, PartitionStatus::Live { .. }), "{status:?}");
}

#[tokio::test]
async fn an_open_stream_stays_open_while_its_partition_is_behind_and_a_new_one_waits() {
    let mut bench = Bench::live(Limits::default());
    let (mut feed, _) = open_feed(&bench, Since::Newest).await;
    bench.notifications.on_behind(0, Some(&behind("a batch")));
    assert!(matches!(feed.heartbeat()[..], [FeedEvent::Heartbeat(_)]));
    bench.notify(0, 1, id(0), 0);
    assert!(matches!(feed.heartbeat()[..], [FeedEvent::Notification { .. }]));
    let start = FeedStart { since: Since::Newest, limit: None, category: None };
    let new = Feed::open(Arc::clone(&bench.view), user(1), start, 9, NOW).await;
    assert!(new.is_err());
}

#[tokio::test]
async fn records_that_the_log_lost_before_they_were_read_are_a_gap_at_once() {
    let mut bench = Bench::live(Limits::default());
    for offset in 0..3 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    let (mut feed, _) = open_feed(&bench, Since::Cursor(Cursor::new(0, 2))).await;
    bench.notify(8, 1, id(8), 0);
    assert!(matches!(feed.heartbeat()[..], [FeedEvent::Notification { .. }]));
    // The log tells a moment later that 3 to 7 are gone.
    bench.notifications.on_lost_records(0, 8);
    let through = Cursor::new(0, 7);
    let (reason, after) = (GapReason::Retention, None);
    let told = feed.next_events().await;
    assert!(
        matches!(told[..], [FeedEvent::Gap(gap)] if gap == Gap { reason, after, through }),
        "{told:?}"
    );
    assert!(matches!(feed.heartbeat()[..], [FeedEvent::Heartbeat(_)]));

    let gap = |page: Page| page.gap.map(|gap| (gap.reason, gap.through));
    for cursor in [0, 2, 5] {
        let page = bench.read(1, &since(cursor)).await.expect("live");
        assert_eq!(gap(page), Some((GapReason::Retention, through)), "{cursor}");
    }
    for cursor in [7, 8] {
        assert_eq!(gap(bench.read(1, &since(cursor)).await.expect("live")), None, "{cursor}");
    }
    // A stream that begins afterwards is told by its cursor alone.
    let (mut feed, events) = open_feed(&bench, Since::Cursor(Cursor::new(0, 7))).await;
    assert!(matches!(events[..], [FeedEvent::State(_)]), "{events:?}");
    assert!(matches!(feed.heartbeat()[..], [FeedEvent::Notification { .. }]));
}

#[tokio::test]
async fn a_rebuild_that_retention_overtakes_gives_a_gap() {
    let mut bench = Bench::new(Limits::default());
    bench.assign(0);
    bench.notify(5, 1, id(5), 0);
    bench.notifications.on_lost_records(0, 5);
    bench.go_live();
    let page = bench.read(1, &since(2)).await.expect("live");
    assert_eq!(page.gap.map(|gap| gap.reason), Some(GapReason::Retention));
}
