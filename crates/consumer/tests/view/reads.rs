//! Reads of a view: assignments, filters, gaps, counts and the lease.

use super::*;

#[tokio::test]
async fn a_partition_that_is_not_live_never_says_that_there_is_nothing() {
    let mut bench = Bench::new(Limits::default());
    let all = PageQuery::default();
    assert!(matches!(bench.read(1, &all).await, Err(NotLive::Unowned(0))));

    bench.notifications.on_assigned(0);
    bench.notifications.on_watermarks(0, Watermarks { low: 10, high: 14 });
    bench.receipts.on_assigned(0);
    bench.notify(10, 1, id(0), 0);
    let progress = match bench.read(1, &all).await {
        Err(NotLive::Rebuilding(_, progress)) => Some((progress.records, progress.total)),
        _ => None,
    };
    assert_eq!(progress, Some((1, None)));
    bench.receipts.on_watermarks(0, Watermarks { low: 0, high: 0 });

    // Both topics must be read to their end before a read is answered.
    bench.notifications.on_live(0);
    assert!(matches!(bench.read(1, &all).await, Err(NotLive::Rebuilding(..))));
    bench.receipts.on_live(0);
    assert_eq!(bench.offsets(1, &all).await, [10]);

    bench.notifications.on_revoked(0);
    assert!(matches!(bench.read(1, &all).await, Err(NotLive::Unowned(0))));
}

#[tokio::test]
async fn a_report_about_an_earlier_assignment_does_not_make_a_partition_live() {
    let mut bench = Bench::live(Limits::default());
    bench.notifications.on_revoked(0);
    bench.notifications.on_assigned(0);
    // The receipts' thread reports this for the previous assignment.
    bench.receipts.on_live(0);
    bench.notifications.on_live(0);
    assert!(bench.read(1, &PageQuery::default()).await.is_err());
    bench.receipts.on_assigned(0);
    bench.receipts.on_live(0);
    assert!(bench.read(1, &PageQuery::default()).await.is_ok());
}

#[tokio::test]
async fn a_record_that_is_no_notification_is_poison_and_moves_the_view_on() {
    let mut bench = Bench::live(Limits::default());
    let outcome = bench.notifications.on_record(&Record {
        partition: 0,
        offset: 5,
        timestamp_ms: 0,
        key: None,
        value: Some(b"rubbish"),
        headers: smallvec::SmallVec::new(),
    });
    assert!(matches!(outcome, RecordOutcome::Poison(_)));
    assert_eq!(bench.read(1, &PageQuery::default()).await.expect("live").cursor, Cursor::new(0, 5));
}

#[tokio::test]
async fn a_read_with_at_least_shows_the_notification_that_was_sent() {
    let mut bench = Bench::live(Limits::default());
    let query = PageQuery { at_least: Some(Cursor::new(0, 3)), ..PageQuery::default() };
    bench.notify(2, 1, id(2), 0);
    assert!(matches!(bench.read(1, &query).await, Err(NotLive::NotCaughtUp(_, 2))));
    bench.notify(3, 1, id(3), 0);
    assert_eq!(bench.offsets(1, &query).await, [2, 3]);
}

#[tokio::test]
async fn a_waiting_reader_is_answered_when_something_comes() {
    let mut bench = Bench::live(Limits::default());
    bench.notify(0, 1, id(0), 0);
    let view = Arc::clone(&bench.view);
    let waiting = tokio::spawn(async move {
        let query = PageQuery { wait: Duration::from_secs(60), ..since(0) };
        view.read_page(user(1), &query, NOW).await.map(|page| page.items.len())
    });
    tokio::task::yield_now().await;
    // Another user's notification does not wake the reader.
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
    let even = PageQuery { category: Some("even".into()), ..PageQuery::default() };
    assert_eq!(bench.offsets(1, &even).await, [0, 2, 4]);
    let unread = PageQuery { unread: true, ..PageQuery::default() };
    assert_eq!(bench.offsets(1, &unread).await, [2, 3, 4]);
    let newest = PageQuery { limit: Some(2), ..PageQuery::default() };
    let page = bench.read(1, &newest).await.expect("live");
    assert_eq!((page.items.len(), page.unread, page.more), (2, 3, false));
    assert_eq!(page.items[0].at.offset, 3);
    let from = Timestamp::now().as_millisecond() - 97_500;
    let recent = PageQuery { since: Since::Time(from), ..PageQuery::default() };
    assert_eq!(bench.offsets(1, &recent).await, [3, 4]);
}

#[tokio::test]
async fn entries_that_are_missing_after_a_cursor_are_a_gap_with_its_reason() {
    let limits = Limits { entries: 2, bytes: 1 << 20, age: Duration::from_secs(3600) };
    let gap = |page: Page| page.gap.map(|gap| (gap.reason, gap.through.offset));

    let mut bench = Bench::live(limits);
    for offset in 0..5 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    assert_eq!(gap(bench.read(1, &since(0)).await.expect("live")), Some((GapReason::Evicted, 2)));
    assert_eq!(gap(bench.read(1, &since(2)).await.expect("live")), None);
    assert_eq!(gap(bench.read(1, &since(9)).await.expect("live")), Some((GapReason::Unknown, 4)));
    let other = PageQuery { since: Since::Cursor(Cursor::new(7, 0)), ..PageQuery::default() };
    let page = bench.read(1, &other).await.expect("live");
    assert_eq!(page.items.len(), 2, "everything, since nothing is known of that place");
    assert_eq!(page.gap.map(|gap| gap.reason), Some(GapReason::Unknown));

    bench.notify(5, 2, id(50), 7200);
    assert_eq!(gap(bench.read(2, &since(4)).await.expect("live")), Some((GapReason::Expired, 5)));

    let mut bench = Bench::new(limits);
    bench.assign(100);
    bench.go_live();
    assert_eq!(
        gap(bench.read(1, &since(50)).await.expect("live")),
        Some((GapReason::Retention, 99))
    );
    assert_eq!(gap(bench.read(1, &since(99)).await.expect("live")), None);
}

#[tokio::test]
async fn a_cursor_of_another_log_is_a_gap_and_proves_nothing_however_far_the_log_has_grown() {
    let mut bench = Bench::new(Limits::default());
    bench.notifications.on_topic_epoch(Some(8));
    bench.assign(0);
    bench.go_live();
    for offset in 0..5 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    let at = |offset, epoch| Cursor::new(0, offset).with_epoch(epoch);
    let page_since = async |cursor| {
        let query = PageQuery { since: Since::Cursor(cursor), ..PageQuery::default() };
        let page = bench.read(1, &query).await.expect("live");
        assert!(page.items.iter().all(|item| item.at.epoch == Some(8)));
        (page.items.len(), page.gap.map(|gap| gap.reason), page.cursor)
    };
    let here = at(4, Some(8));
    assert_eq!(page_since(at(1, Some(8))).await, (3, None, here));
    // Of an earlier topic, and of before cursors had epochs.
    for epoch in [Some(7), None] {
        let other = at(1, epoch);
        assert_eq!(page_since(other).await, (5, Some(GapReason::Unknown), here));
        let query = PageQuery { at_least: Some(other), ..PageQuery::default() };
        assert_eq!(bench.read(1, &query).await.err(), Some(NotLive::OtherLog(other)));
        let through = Selector::Through(other);
        let changed = bench.view.would_change(user(1), Action::Read, &through, NOW).await;
        assert_eq!(changed.err(), Some(NotLive::OtherLog(other)));
    }
    // The position before the first record is the same in every log.
    assert_eq!(page_since(at(-1, None)).await, (5, None, here));
    let through = Selector::Through(at(1, Some(8)));
    let changed = bench.view.would_change(user(1), Action::Read, &through, NOW).await;
    assert_eq!(changed.map(|targets| targets.changed.len()), Ok(2));
    let query = PageQuery { at_least: Some(at(4, Some(8))), ..PageQuery::default() };
    assert!(bench.read(1, &query).await.is_ok());
}

#[tokio::test]
async fn a_feed_ends_when_its_partition_starts_over_though_the_reader_was_slow() {
    let mut bench = Bench::live(Limits::default());
    for offset in 0..40 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    let (view, start) = (Arc::clone(&bench.view), FeedStart::default());
    let (mut feed, _) = Feed::open(view, user(1), start, 1, NOW).await.expect("open");
    // More entries follow than one batch has, so the feed does not wait for a change.
    assert_eq!(feed.next_events().await.len(), 32);
    bench.notifications.on_reset(0, "for this test");
    bench.notifications.on_revoked(0);
    bench.assign(0);
    bench.go_live();
    for offset in 0..60 {
        bench.notify(offset, 1, id(100 + usize::try_from(offset).expect("small")), 0);
    }
    let events = feed.next_events().await;
    assert!(matches!(events[..], [FeedEvent::End(EndReason::Moved)]), "{events:?}");
}

#[tokio::test]
async fn an_inbox_is_bounded_in_bytes_and_what_had_no_room_is_a_gap() {
    let length = |bench: &Bench| totals(bench).inboxes.bytes;
    let mut bench = Bench::live(Limits::default());
    bench.notify(0, 1, id(0), 0);
    let one = length(&bench);

    let limits = Limits { bytes: one * 3, ..Limits::default() };
    let mut bench = Bench::live(limits);
    // A dismissed entry keeps its room until its turn has come, whenever it was dismissed.
    bench.receipt(0, 1, Action::Dismissed, vec![id(1)]);
    for offset in 0..4 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [2, 3]);
    let gap = bench.read(1, &since(-1)).await.expect("live").gap;
    assert_eq!(gap.map(|gap| (gap.reason, gap.through.offset)), Some((GapReason::Evicted, 0)));
    assert!(length(&bench) <= one * 2);
    // The newest entry stays, however large it is.
    let mut bench = Bench::live(Limits { bytes: 1, ..limits });
    bench.notify(0, 1, id(0), 0);
    bench.notify(1, 1, id(1), 0);
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [1]);
}

#[tokio::test]
async fn a_record_that_is_larger_than_any_uncompressed_one_is_poison() {
    let mut bench = Bench::live(Limits::default());
    let notification = |message: &str| {
        let from = User { id: user(9), name: "Nine".into() };
        let to = User { id: user(1), name: "To".into() };
        serde_json::to_vec(&Notification::new(from, to, message)).expect("JSON")
    };
    let length = notification("").len();
    for (offset, bytes) in [(0, MAX_VALUE_BYTES), (1, MAX_VALUE_BYTES + 1)] {
        let value = notification(&"x".repeat(bytes - length));
        let outcome = bench.notifications.on_record(&Record {
            partition: 0,
            offset,
            timestamp_ms: Timestamp::now().as_millisecond(),
            key: None,
            value: Some(&value),
            headers: smallvec::SmallVec::new(),
        });
        let is_poison = matches!(outcome, RecordOutcome::Poison(_));
        assert_eq!(is_poison, bytes > MAX_VALUE_BYTES, "{bytes}");
    }
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [0]);
}

#[tokio::test]
async fn an_inbox_of_which_everything_is_too_old_takes_no_memory_and_its_gap_is_still_said() {
    let limits = Limits { entries: 10, bytes: 1 << 20, age: Duration::from_secs(3600) };
    let mut bench = Bench::live(limits);
    bench.notify(0, 1, id(0), 3599);
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [0]);
    bench.notify(1, 2, id(1), 7200);
    bench.view.expire_entries();
    let page = bench.read(2, &since(0)).await.expect("live");
    assert_eq!(page.gap.map(|gap| gap.reason), Some(GapReason::Retention));
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [0]);
}

#[tokio::test]
async fn evictions_are_counted_by_their_reason_over_all_assignments() {
    let limits = Limits { entries: 2, bytes: 1 << 20, age: Duration::from_secs(3600) };
    let mut bench = Bench::live(limits);
    let replay = |bench: &mut Bench| {
        for offset in 0..5 {
            bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
        }
        bench.notify(5, 2, id(5), 7200);
        // A dismissed entry is not counted when it leaves.
        bench.notify(6, 3, id(6), 0);
        bench.receipt(0, 3, Action::Dismissed, vec![id(6)]);
    };
    replay(&mut bench);
    let gone = |totals: PartitionTotals| {
        (totals.inboxes.entries, totals.inboxes.evicted, totals.inboxes.expired)
    };
    assert_eq!((totals(&bench).users, gone(totals(&bench))), (3, (2, 3, 1)));
    bench.notifications.on_revoked(0);
    assert_eq!((totals(&bench).users, gone(totals(&bench))), (0, (0, 3, 1)));
    bench.assign(0);
    replay(&mut bench);
    assert_eq!(gone(totals(&bench)), (2, 6, 2), "rebuilding counts too");
    bench.go_live();
    assert_eq!(gone(totals(&bench)), (2, 6, 2));
}

#[tokio::test]
async fn an_instance_whose_lease_has_ended_does_not_answer_from_memory() {
    let mut bench = Bench::live(Limits::default());
    bench.notify(0, 1, id(0), 0);
    assert!(bench.read(1, &PageQuery::default()).await.is_ok());
    let soon = Instant::now() + Duration::from_millis(50);
    bench.notifications.renew_lease(soon);
    while Instant::now() <= soon {
        std::thread::sleep(Duration::from_millis(10));
    }
    let unconfirmed = Err(NotLive::Unconfirmed(0));
    assert_eq!(bench.read(1, &PageQuery::default()).await.map(drop), unconfirmed);
    // A receipt must not say that it changed nothing: the next owner may know more.
    let all = (Action::Read, Selector::All);
    let changes = bench.view.would_change(user(1), all.0, &all.1, NOW).await;
    assert_eq!(changes.map(drop), unconfirmed);
    bench.notifications.renew_lease(Instant::now() + LONG_LEASE);
    assert!(bench.read(1, &PageQuery::default()).await.is_ok());
}

#[tokio::test]
async fn a_read_waits_for_the_lease_and_a_stream_outlives_a_lease_that_ended() {
    let mut bench = Bench::live(Limits::default());
    let mut feed = open_feed(&bench).await;
    bench.notifications.renew_lease(Instant::now());
    bench.notify(0, 1, id(0), 0);
    assert!(matches!(feed.heartbeat()[..], [FeedEvent::Heartbeat(_)]));
    let view = Arc::clone(&bench.view);
    let read = tokio::spawn(async move {
        let query = PageQuery::default();
        view.read_page(user(1), &query, Duration::from_secs(60)).await.map(|page| page.items.len())
    });
    let streamed = tokio::spawn(async move { feed.next_events().await.len() });
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(!read.is_finished() && !streamed.is_finished());
    bench.notifications.renew_lease(Instant::now() + LONG_LEASE);
    assert_eq!(read.await.expect("no panic"), Ok(1));
    assert_eq!(streamed.await.expect("no panic"), 1);
}

#[tokio::test]
async fn a_stream_without_a_lease_ends_when_its_partition_moves() {
    let mut bench = Bench::live(Limits::default());
    let mut feed = open_feed(&bench).await;
    bench.notifications.renew_lease(Instant::now());
    bench.notify(0, 1, id(0), 0);
    let streamed = tokio::spawn(async move { feed.next_events().await });
    tokio::time::sleep(Duration::from_millis(50)).await;
    bench.notifications.on_revoked(0);
    let ended = streamed.await.expect("no panic");
    assert!(matches!(ended[..], [FeedEvent::End(EndReason::Moved)]), "{ended:?}");
}

#[tokio::test]
async fn a_second_copy_is_dropped_and_a_reused_key_is_poison() {
    let mut bench = Bench::live(Limits::default());
    let (id, one, other) =
        (NotificationId::generate(), Fingerprint::from_bits(1), Fingerprint::from_bits(2));
    assert_eq!(bench.notify_keyed(0, 1, id.clone(), 0, Some(one)), RecordOutcome::Applied);
    assert_eq!(bench.notify_keyed(1, 1, id.clone(), 0, Some(one)), RecordOutcome::Applied);
    // A record without a fingerprint counts as a duplicate.
    assert_eq!(bench.notify_keyed(2, 1, id.clone(), 0, None), RecordOutcome::Applied);
    let outcome = bench.notify_keyed(3, 1, id, 0, Some(other));
    assert!(matches!(outcome, RecordOutcome::Poison(why) if why.contains("Idempotency-Key")));
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [0]);
}

async fn open_feed(bench: &Bench) -> Feed {
    let start = FeedStart { since: Since::Beginning, limit: None, category: None };
    let opened = Feed::open(Arc::clone(&bench.view), user(1), start, 1, NOW).await;
    opened.map(|(feed, _)| feed).expect("a feed")
}
