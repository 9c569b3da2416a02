//! Appending: order, bounds and refusals.

use std::time::Duration;

use event_log::AppendError;
use sqlx::Connection as _;

use crate::harness::{DEADLINE, FOREVER, Memory, TOPIC, World, append, eventually, join, record};

#[tokio::test]
async fn offsets_are_counted_by_partition_from_zero() {
    let world = World::new();
    let log = world.open(2, FOREVER).await;
    let writer = log.writer();
    for offset in 0..3 {
        for partition in [1, 0] {
            let position = append(&writer, record(partition, "1", "v")).await;
            assert_eq!((position.partition, position.offset), (partition, offset));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_records_of_each_of_many_appenders_keep_their_order() {
    const APPENDERS: usize = 8;
    const RECORDS: usize = 500;
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    let tasks: Vec<_> = (0..APPENDERS)
        .map(|appender| {
            let writer = log.writer();
            tokio::spawn(async move {
                let mut acks = Vec::new();
                for number in 0..RECORDS {
                    let value = format!("{appender}-{number}");
                    acks.push((
                        value.clone(),
                        writer.append(TOPIC, record(0, "1", &value)).expect("queued"),
                    ));
                    if number % 7 == 0 {
                        tokio::task::yield_now().await;
                    }
                }
                let mut positions = Vec::new();
                for (value, ack) in acks {
                    positions.push((ack.await.expect("acknowledged").offset, value));
                }
                positions
            })
        })
        .collect();
    let mut acknowledged = Vec::new();
    for task in tasks {
        let positions = task.await.expect("an appender");
        assert!(
            positions.is_sorted_by(|(a, _), (b, _)| a < b),
            "an appender's records are in order"
        );
        acknowledged.extend(positions);
    }
    acknowledged.sort_unstable();
    eventually("all are read", || memory.count() == APPENDERS * RECORDS).await;
    assert_eq!(memory.of(0), acknowledged, "each is read where it was acknowledged");
    assert!(acknowledged.iter().zip(0..).all(|((offset, _), index)| *offset == index), "no gaps");
    reader.stop().await;
}

#[tokio::test]
async fn a_record_is_refused_where_there_is_no_such_topic_or_partition() {
    let world = World::new();
    let writer = world.open(2, FOREVER).await.writer();
    for (topic, partition) in [("elsewhere", 0), (TOPIC, 2), (TOPIC, -1), (TOPIC, i32::MAX)] {
        let refused = writer.append(topic, record(partition, "1", "v"));
        assert!(
            matches!(refused, Err(AppendError::Refused(_))),
            "{topic} {partition}: {refused:?}"
        );
    }
}

#[tokio::test]
async fn a_record_above_a_mebibyte_is_too_large_and_one_of_a_mebibyte_is_not() {
    const MEBIBYTE: usize = 1_048_576;
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    let sized = |value: usize| {
        let mut record = record(0, "1234", &"x".repeat(value - 4 - 10));
        record.headers = vec![("name", b"header".into())];
        record
    };
    assert_eq!(writer.append(TOPIC, sized(MEBIBYTE + 1)).err(), Some(AppendError::TooLarge));
    assert_eq!(append(&writer, sized(MEBIBYTE)).await.offset, 0);
    let memory = Memory::default();
    let reader = join(&log, memory.clone());
    eventually("it is read", || memory.count() == 1).await;
    assert_eq!(memory.records()[0].value.len(), MEBIBYTE - 14);
    reader.stop().await;
}

#[tokio::test]
async fn a_full_queue_refuses_at_once_and_takes_records_again_when_it_has_emptied() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    for (size, most) in [(1_000_000, 67), (10, 100_000)] {
        // Nothing can be written as long as someone else writes.
        let mut blocker = world.raw().await;
        sqlx::query("BEGIN IMMEDIATE").execute(&mut blocker).await.expect("begun");
        let value = "x".repeat(size);
        let mut acks = Vec::new();
        let refused = loop {
            match writer.append(TOPIC, record(0, "", &value)) {
                Ok(ack) => acks.push(ack),
                Err(error) => break error,
            }
        };
        assert_eq!((refused, acks.len()), (AppendError::Full, most));
        assert!(!writer.flush(Duration::from_millis(50)).await, "nothing is settled yet");
        blocker.close().await.expect("closed");
        assert!(writer.flush(DEADLINE).await);
        for ack in acks {
            ack.await.expect("acknowledged");
        }
        append(&writer, record(0, "", &value)).await;
    }
}

#[tokio::test]
async fn a_closed_log_has_written_what_was_queued_and_refuses_more() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let writer = log.writer();
    let acks: Vec<_> =
        (0..1000).map(|_| writer.append(TOPIC, record(0, "1", "v")).expect("queued")).collect();
    log.close().await;
    for (ack, offset) in acks.into_iter().zip(0..) {
        assert_eq!(ack.await.map(|position| position.offset), Ok(offset));
    }
    let refused = writer.append(TOPIC, record(0, "1", "v"));
    assert!(matches!(refused, Err(AppendError::Unreachable(_))), "{refused:?}");
    assert!(log.ping(DEADLINE).await.is_err());
    assert!(writer.flush(DEADLINE).await, "nothing is left");
    assert!(!world.path().with_file_name("log.db-wal").exists(), "everything is in the one file");
}
