//! Retention and compaction: what goes, what stays, and that offsets go on.

use std::time::{Duration, Instant};

use event_log::{Watermarks, topic::Cleanup};

use crate::harness::{
    Call, DEADLINE, FOREVER, Memory, World, append, eventually, join, push, record, topic,
};

/// Every record is older than this a moment later.
const AT_ONCE: Cleanup = Cleanup::After(Duration::from_millis(1));

async fn rows(world: &World) -> i64 {
    let mut file = world.raw().await;
    let count = sqlx::query_scalar("SELECT count(*) FROM records").fetch_one(&mut file).await;
    count.expect("a count")
}

async fn eventually_rows(world: &World, wanted: i64) {
    let until = Instant::now() + DEADLINE;
    while rows(world).await != wanted {
        assert!(Instant::now() < until, "{} records are there", rows(world).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn old_records_go_and_offsets_go_on() {
    let world = World::new();
    let log = world.open(2, FOREVER).await;
    for number in 0..1200 {
        push(&log.writer(), record(0, "1", &number.to_string()));
    }
    append(&log.writer(), record(1, "1", "old")).await;
    log.close().await;

    let log = world.open(2, AT_ONCE).await;
    eventually_rows(&world, 0).await;
    log.close().await;

    // Nothing is left to count from, and still the offsets go on.
    let log = world.open(2, FOREVER).await;
    assert_eq!(append(&log.writer(), record(0, "1", "new")).await.offset, 1200);
    assert_eq!(append(&log.writer(), record(1, "1", "new")).await.offset, 1);
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("both are read", || memory.count() == 2).await;
    assert_eq!(memory.of(0), [(1200, "new".to_owned())]);
    assert!(memory.has(&Call::Watermarks(0, Watermarks { low: 1200, high: 1201 })));
    assert!(memory.has(&Call::Watermarks(1, Watermarks { low: 1, high: 2 })));
    reader.stop().await;
}

#[tokio::test]
async fn records_that_are_young_enough_stay() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    for number in 0..10 {
        append(&log.writer(), record(0, "1", &number.to_string())).await;
    }
    log.close().await;
    world.shell("UPDATE records SET timestamp = timestamp - 3600000 WHERE place & 0xff < 4").await;
    let log = world.open(1, Cleanup::After(Duration::from_secs(1800))).await;
    eventually_rows(&world, 6).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("six are read", || memory.count() == 6).await;
    assert_eq!(memory.of(0)[0], (4, "4".to_owned()));
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_not_disturbed_by_records_that_go() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    let mut sent = 0;
    for _ in 0..20 {
        // Everything is forgotten while more is appended.
        log.ensure_topics(&[topic(1, AT_ONCE)]).await.expect("as it was");
        for _ in 0..200 {
            push(&writer, record(0, "1", &sent.to_string()));
            sent += 1;
        }
        append(&writer, record(0, "1", &sent.to_string())).await;
        sent += 1;
    }
    log.ensure_topics(&[topic(1, FOREVER)]).await.expect("as it was");
    append(&writer, record(0, "1", &sent.to_string())).await;
    let last = (sent, sent.to_string());
    eventually("the last one is read", || memory.of(0).last() == Some(&last)).await;
    let read = memory.of(0);
    assert!(read.is_sorted_by(|(a, _), (b, _)| a < b), "in order, none twice");
    assert!(
        read.iter().all(|(offset, value)| offset.to_string() == *value),
        "each where it belongs"
    );
    assert_eq!(memory.calls().iter().filter(|call| matches!(call, Call::Live(_))).count(), 1);
    reader.stop().await;
}

#[tokio::test]
async fn a_compacted_topic_keeps_the_newest_record_of_each_key() {
    let world = World::new();
    let log = world.open(2, FOREVER).await;
    let writer = log.writer();
    // More than one step of the sweep looks at.
    for number in 0..1700 {
        let key = (number % 3).to_string();
        push(&writer, record(0, &key, &number.to_string()));
    }
    append(&writer, record(1, "0", "of another partition")).await;
    log.close().await;

    let log = world.open(2, Cleanup::Compact).await;
    eventually_rows(&world, 4).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("all are live", || memory.has(&Call::Live(0)) && memory.has(&Call::Live(1))).await;
    let newest = [1697, 1698, 1699].map(|number| (number, number.to_string()));
    assert_eq!(memory.of(0), newest);
    assert_eq!(memory.of(1), [(0, "of another partition".to_owned())]);
    assert_eq!(append(&log.writer(), record(0, "0", "next")).await.offset, 1700);
    reader.stop().await;
}

#[tokio::test]
async fn the_file_shrinks_when_much_was_forgotten() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let value = "x".repeat(1_000_000);
    for _ in 0..40 {
        append(&log.writer(), record(0, "1", &value)).await;
    }
    log.close().await;
    let size = || std::fs::metadata(world.path()).expect("the file").len();
    assert!(size() > 40_000_000);
    let log = world.open(1, AT_ONCE).await;
    eventually_rows(&world, 0).await;
    let until = Instant::now() + DEADLINE;
    // The pages are given back in the write-ahead log first, and in the file when that is emptied.
    loop {
        let mut file = world.raw().await;
        let pages: i64 =
            sqlx::query_scalar("PRAGMA page_count").fetch_one(&mut file).await.expect("a count");
        if pages * 4096 < 20_000_000 {
            break;
        }
        assert!(Instant::now() < until, "{pages} pages are left");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    log.close().await;
    assert!(size() < 20_000_000);
}
