//! The age of an entry, if clocks are wrong; and ids that an inbox does not have.

use consumer::view::{Feed, Selector, feed::FeedEvent, page::FeedStart};

use super::*;

const DAY_MS: i64 = 24 * 60 * 60 * 1000;

fn limits() -> Limits {
    let age = Duration::from_secs(30 * 24 * 60 * 60);
    Limits { entries: 10, age, ..Limits::default() }
}

/// Headers whose time is so many days from now.
fn sent(n: usize, days: i64) -> Headers {
    let sent_at = Timestamp::from_millisecond(Timestamp::now().as_millisecond() + days * DAY_MS);
    let sent_at = sent_at.expect("a time");
    Headers { id: id(n), sent_at, traceparent: None, fingerprint: None }
}

fn days(days: i64) -> i64 {
    Timestamp::now().as_millisecond() + days * DAY_MS
}

#[tokio::test]
async fn an_entry_from_a_clock_that_is_ahead_expires_by_its_record_and_shields_none_behind_it() {
    let mut bench = Bench::live(limits());
    bench.notify_stamped(0, 1, &sent(0, 365), days(-40));
    // Its record is from the future too.
    bench.notify_stamped(1, 1, &sent(1, 365), days(365));
    bench.notify_stamped(2, 1, &sent(2, -40), days(-40));
    bench.notify_stamped(3, 1, &sent(3, 0), days(0));
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [1, 3]);
    let page = bench.read(1, &PageQuery::default()).await.expect("live");
    assert_eq!(page.unread, 2);
}

#[tokio::test]
async fn an_entry_of_1969_is_not_shown_and_a_cursor_before_it_gets_a_gap() {
    let mut bench = Bench::live(limits());
    bench.notify_stamped(0, 1, &sent(0, 0), days(0));
    bench.notify_stamped(1, 1, &sent(1, 0), days(0));
    let old = Headers { sent_at: Timestamp::from_second(-86_400).expect("1969"), ..sent(2, 0) };
    bench.notify_stamped(2, 1, &old, days(0));
    // A record without a timestamp has the time that its producer says.
    bench.notify_stamped(3, 1, &sent(3, 0), -1);
    assert_eq!(bench.offsets(1, &PageQuery::default()).await, [0, 1, 3]);
    let page = bench.read(1, &since(0)).await.expect("live");
    let gap = page.gap.map(|gap| (gap.reason, gap.through.offset));
    assert_eq!(gap, Some((GapReason::Expired, 2)));
    assert_eq!(page.items.len(), 2);
    assert_eq!(bench.read(1, &since(2)).await.expect("live").gap, None);
}

#[tokio::test]
async fn a_stream_tells_of_an_expired_entry_once_and_still_brings_those_before_it() {
    let mut bench = Bench::live(limits());
    for offset in 0..3 {
        bench.notify(offset, 1, id(usize::try_from(offset).expect("small")), 0);
    }
    bench.notify_stamped(3, 1, &sent(3, -40), days(-40));
    let start = FeedStart { since: Since::Cursor(Cursor::new(0, 0)), limit: None, category: None };
    let view = Arc::clone(&bench.view);
    let (mut feed, mut events) = Feed::open(view, user(1), start, 1, NOW).await.expect("a feed");
    while !matches!(events.last(), Some(FeedEvent::Heartbeat(_))) {
        events.extend(feed.heartbeat());
    }
    let seen: Vec<_> = events
        .iter()
        .map(|event| (event.name(), event.cursor().map(|cursor| cursor.offset)))
        .collect();
    let expected = [
        ("state", Some(0)),
        // No cursor: a client that is cut off here must still get the two entries.
        ("gap", None),
        ("notification", Some(1)),
        ("notification", Some(2)),
        ("heartbeat", Some(3)),
    ];
    assert_eq!(seen, expected);
}

#[tokio::test]
async fn ids_that_the_inbox_does_not_have_are_named() {
    let mut bench = Bench::live(limits());
    bench.notify(0, 1, id(0), 0);
    bench.notify(1, 1, id(1), 0);
    bench.receipt(0, 1, Action::Dismissed, vec![id(1)]);
    let selector = Selector::Ids([id(0), id(1), id(2)].into());
    let would = bench.view.would_change(user(1), Action::Read, &selector, NOW).await;
    let would = would.expect("live");
    assert_eq!(would.changed, [id(0)]);
    let mut unknown: Vec<_> = would.unknown.iter().map(ToString::to_string).collect();
    unknown.sort();
    assert_eq!(unknown, ["id-1", "id-2"]);
    // A user without an inbox has none of them.
    let would = bench.view.would_change(user(2), Action::Read, &selector, NOW).await;
    assert_eq!(would.expect("live").unknown.len(), 3);
}
