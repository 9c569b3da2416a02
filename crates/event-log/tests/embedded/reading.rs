//! Reading: which calls a handler gets, and in which order.

use std::time::{SystemTime, UNIX_EPOCH};

use event_log::{NewRecord, Watermarks, embedded::Embedded};

use crate::harness::{
    Call, FOREVER, Memory, TOPIC, World, append, eventually, join, push, record, topic,
};

#[tokio::test]
async fn a_record_is_read_back_with_its_key_value_headers_and_time() {
    let world = World::new();
    let log = world.open(3, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    let headers = vec![
        ("ce_id", b"0193".to_vec()),
        ("empty", Vec::new()),
        ("ce_id", vec![0xff, 0x00, 0x80]),
        ("long", vec![7; 70_000]),
    ];
    let now =
        || SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as i64;
    let before = now();
    let written = NewRecord {
        partition: 2,
        key: b"42".to_vec(),
        value: "größer".into(),
        headers: headers.iter().map(|(name, value)| (*name, value.clone().into())).collect(),
    };
    append(&log.writer(), written).await;
    eventually("it is read", || memory.count() == 1).await;
    let seen = memory.records().remove(0);
    assert_eq!((seen.partition, seen.offset), (2, 0));
    assert_eq!((seen.key.as_str(), seen.value.as_str()), ("42", "größer"));
    let read: Vec<_> = headers.into_iter().map(|(name, value)| (name.to_owned(), value)).collect();
    assert_eq!(seen.headers, read);
    assert!((before..=now()).contains(&seen.timestamp_ms), "{seen:?}");
    reader.stop().await;
}

#[tokio::test]
async fn empty_keys_and_values_are_empty_and_not_missing() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    append(&log.writer(), record(0, "", "")).await;
    eventually("it is read", || memory.count() == 1).await;
    let seen = memory.records().remove(0);
    assert_eq!((seen.key, seen.value, seen.headers), (String::new(), String::new(), Vec::new()));
    reader.stop().await;
}

#[tokio::test]
async fn a_handler_is_called_for_each_partition_in_the_promised_order() {
    let world = World::new();
    let log = world.open(2, FOREVER).await;
    let writer = log.writer();
    for number in 0..3000 {
        push(&writer, record(0, "1", &number.to_string()));
    }
    append(&writer, record(0, "1", "3000")).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    let live = |partition| memory.has(&Call::Live(partition));
    eventually("both are live", || live(0) && live(1)).await;
    append(&writer, record(1, "1", "later")).await;
    eventually("the later one is read", || memory.count() == 3002).await;
    reader.stop().await;

    let calls = memory.calls();
    let at = |wanted: &Call| {
        let found: Vec<_> = calls
            .iter()
            .enumerate()
            .filter(|(_, call)| *call == wanted)
            .map(|(at, _)| at)
            .collect();
        assert_eq!(found.len(), 1, "{wanted:?} is called once");
        found[0]
    };
    for (partition, high) in [(0, 3001), (1, 0)] {
        let assigned = at(&Call::Assigned(partition));
        let watermarks = at(&Call::Watermarks(partition, Watermarks { low: 0, high }));
        let live = at(&Call::Live(partition));
        let revoked = at(&Call::Revoked(partition));
        assert!(assigned < watermarks && watermarks < live && live < revoked);
        for (index, call) in calls.iter().enumerate() {
            if let Call::Record(seen) = call
                && seen.partition == partition
            {
                assert!(assigned < index && index < revoked);
                assert_eq!(seen.offset < high, index < live, "live comes after what was there");
            }
        }
    }
    let values: Vec<_> = memory.of(0).into_iter().map(|(_, value)| value).collect();
    assert_eq!(values, (0..=3000).map(|number| number.to_string()).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread")]
async fn readers_that_start_early_in_between_and_late_see_the_same() {
    const RECORDS: usize = 5000;
    let world = World::new();
    let log = world.open(4, FOREVER).await;
    let writer = log.writer();
    let memories = [Memory::default(), Memory::default(), Memory::default()];
    let [early, between, late] = &memories;
    let mut readers = vec![join(&log, early.clone())];
    for number in 0..RECORDS {
        let partition = (number * number % 4) as i32;
        push(&writer, record(partition, "1", &number.to_string()));
        if number == RECORDS / 2 {
            readers.push(join(&log, between.clone()));
        }
        if number % 100 == 0 {
            tokio::task::yield_now().await;
        }
    }
    append(&writer, record(0, "1", "last")).await;
    readers.push(join(&log, late.clone()));
    for memory in &memories {
        eventually("all are read", || memory.count() == RECORDS + 1).await;
        for partition in 0..4 {
            assert_eq!(memory.of(partition), early.of(partition));
        }
    }
    for reader in readers {
        reader.stop().await;
    }
}

#[tokio::test]
async fn a_reader_waits_for_a_topic_that_is_made_later() {
    let world = World::new();
    let log = Embedded::open(&world.path()).await.expect("opens");
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    log.ensure_topics(&[topic(1, FOREVER)]).await.expect("made");
    append(&log.writer(), record(0, "1", "v")).await;
    eventually("it is read", || memory.count() == 1).await;
    assert!(reader.is_running());
    reader.stop().await;
}

#[tokio::test]
async fn the_lease_of_an_idle_handler_is_renewed_again_and_again() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("it is idle", || memory.renewals() > 3).await;
    reader.stop().await;
}

#[tokio::test]
async fn a_dropped_reader_ends_and_revokes() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("it is live", || memory.has(&Call::Live(0))).await;
    drop(reader);
    eventually("it is revoked", || memory.has(&Call::Revoked(0))).await;
}

#[tokio::test]
async fn a_read_that_fails_is_tried_again_and_loses_nothing() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    append(&writer, record(0, "1", "before")).await;
    eventually("the first is read", || memory.count() == 1).await;
    // Nothing can be read, nor written, until the table has its name again.
    world.shell("ALTER TABLE records RENAME TO hidden").await;
    let refused = writer.append(TOPIC, record(0, "1", "refused")).expect("queued").await;
    assert!(refused.is_err(), "{refused:?}");
    world.shell("ALTER TABLE hidden RENAME TO records").await;
    append(&writer, record(0, "1", "after")).await;
    eventually("the second is read", || memory.count() == 2).await;
    assert_eq!(memory.of(0), [(0, "before".to_owned()), (1, "after".to_owned())]);
    reader.stop().await;
}

#[tokio::test]
async fn a_reader_that_cannot_read_at_first_reads_everything_when_it_can() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    for number in 0..10 {
        append(&writer, record(0, "1", &number.to_string())).await;
    }
    world.shell("ALTER TABLE records RENAME TO hidden").await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    // While reads fail, the driver still renews the lease and obeys a stop.
    eventually("it goes on", || memory.renewals() > 2).await;
    assert!(!memory.has(&Call::Live(0)), "what cannot be read is not live");
    world.shell("ALTER TABLE hidden RENAME TO records").await;
    eventually("it is live", || memory.has(&Call::Live(0))).await;
    assert_eq!(memory.count(), 10);
    reader.stop().await;
}

#[tokio::test]
async fn a_file_that_cannot_be_read_makes_its_partitions_behind_until_it_can() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    append(&log.writer(), record(0, "1", "good")).await;
    world.shell("ALTER TABLE records RENAME COLUMN headers TO elsewhere").await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    let cause = "the log's file cannot be read; see this service's log".to_owned();
    eventually("behind", || memory.has(&Call::Behind(0, Some(cause.clone())))).await;
    world.shell("ALTER TABLE records RENAME COLUMN elsewhere TO headers").await;
    eventually("live", || memory.has(&Call::Live(0))).await;
    eventually("it follows", || memory.has(&Call::Behind(0, None))).await;
    assert_eq!(memory.of(0), [(0, "good".to_owned())]);
    reader.stop().await;
}
