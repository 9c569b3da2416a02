//! Poison, set aside exactly once.

use std::time::Instant;

use event_log::{Reader, Topic, embedded::Embedded};

use crate::harness::{
    DEADLINE, FOREVER, GROUP, Memory, Seen, TOPIC, Told, World, append, eventually, record, topic,
};

const DLQ: &str = "notifications.dlq";

async fn open(world: &World) -> Embedded {
    let log = world.open(2, FOREVER).await;
    let dlq = Topic { name: DLQ.to_owned(), ..topic(2, FOREVER) };
    log.ensure_topics(&[dlq]).await.expect("the dead-letter topic is there");
    log
}

fn member(log: &Embedded, memory: &Memory) -> Reader {
    log.join_group(TOPIC, GROUP, Some(DLQ), memory.clone())
}

/// Everything in the dead-letter topic.
async fn letters(log: &Embedded) -> Vec<Seen> {
    let memory = Memory::default();
    let follower = log.follow_topic(DLQ, memory.clone());
    for partition in 0..2 {
        follower.assign(partition);
    }
    eventually("live", || memory.has(&Told::Live(0)) && memory.has(&Told::Live(1))).await;
    follower.stop().await;
    memory.records()
}

/// What a group's progress is, by partition.
async fn progress(world: &World, group: &'static str) -> Vec<i64> {
    let mut file = world.raw().await;
    sqlx::query_scalar(
        "SELECT next_offset FROM progress WHERE group_name = ? ORDER BY partition_id",
    )
    .bind(group)
    .fetch_all(&mut file)
    .await
    .expect("the progress")
}

#[tokio::test]
async fn poison_is_set_aside_once_over_restarts_and_replays() {
    let world = World::new();
    for start in 0..3 {
        let log = open(&world).await;
        if start == 0 {
            for value in ["good", "poison 1", "good", "poison 2"] {
                append(&log.writer(), record(1, "7", value)).await;
            }
        }
        let memory = Memory::default();
        let reader = member(&log, &memory);
        eventually("replayed", || memory.count() == 4 && memory.has(&Told::Live(1))).await;
        if start == 0 {
            eventually("set aside", || reader.dlq_copied() == 2).await;
        }
        reader.stop().await;
        let letters = letters(&log).await;
        let values: Vec<_> = letters.iter().map(|seen| seen.value.as_str()).collect();
        assert_eq!(values, ["poison 1", "poison 2"], "after start {start}");
        assert_eq!(progress(&world, GROUP).await, [4]);
        log.close().await;
    }
}

#[tokio::test]
async fn a_letter_says_where_it_comes_from_and_why() {
    let world = World::new();
    let log = open(&world).await;
    let mut poison = record(1, "7", "poison");
    poison.headers.push(("ce_id", b"abc".into()));
    append(&log.writer(), record(1, "7", "good")).await;
    append(&log.writer(), poison).await;
    let reader = member(&log, &Memory::default());
    eventually("set aside", || reader.dlq_copied() == 1).await;
    let letters = letters(&log).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.partition, letter.key.as_str()), (1, "7"));
    let said: Vec<_> = letter
        .headers
        .iter()
        .map(|(name, value)| (name.as_str(), String::from_utf8_lossy(value).into_owned()))
        .collect();
    let expected = [
        ("ce_id", "abc"),
        ("dlq.topic", TOPIC),
        ("dlq.partition", "1"),
        ("dlq.offset", "1"),
        ("dlq.reason", "it is poison"),
        ("dlq.group", GROUP),
    ];
    for (said, expected) in said.iter().zip(expected) {
        assert_eq!((said.0, said.1.as_str()), expected);
    }
    assert!(said[6].0 == "dlq.time" && said[6].1.parse::<u64>().is_ok(), "{said:?}");
    reader.stop().await;
}

#[tokio::test]
async fn poison_that_cannot_be_set_aside_delays_no_record_and_progress_stays_before_it() {
    let world = World::new();
    // There is no dead-letter topic yet.
    let log = world.open(1, FOREVER).await;
    for value in ["good", "poison", "good", "good"] {
        append(&log.writer(), record(0, "7", value)).await;
    }
    let memory = Memory::default();
    let reader = member(&log, &memory);
    eventually("all is read", || memory.count() == 4 && memory.has(&Told::Live(0))).await;
    reader.stop().await;
    assert!(progress(&world, GROUP).await.iter().all(|next| *next <= 1));

    let dlq = Topic { name: DLQ.to_owned(), ..topic(2, FOREVER) };
    log.ensure_topics(&[dlq]).await.expect("the dead-letter topic is there");
    let reader = member(&log, &Memory::default());
    eventually("set aside", || reader.dlq_copied() == 1).await;
    reader.stop().await;
    assert_eq!(letters(&log).await.len(), 1);
    assert_eq!(progress(&world, GROUP).await, [4]);
}

#[tokio::test]
async fn each_group_sets_poison_aside_for_itself() {
    let world = World::new();
    let log = open(&world).await;
    append(&log.writer(), record(0, "7", "poison")).await;
    for group in ["one", "another", "one"] {
        let memory = Memory::default();
        let reader = log.join_group(TOPIC, group, Some(DLQ), memory.clone());
        eventually("live", || memory.has(&Told::Live(0))).await;
        reader.stop().await;
    }
    let letters = letters(&log).await;
    let group = |seen: &Seen| {
        seen.headers.iter().find(|(name, _)| name == "dlq.group").map(|(_, value)| value.clone())
    };
    let groups: Vec<_> = letters.iter().filter_map(group).collect();
    assert_eq!(groups, [b"one".to_vec(), b"another".to_vec()]);
}

#[tokio::test]
async fn a_burst_of_poison_is_set_aside_whole_and_in_order() {
    let world = World::new();
    let log = open(&world).await;
    for number in 0..3000 {
        let record = record(number % 2, "7", &format!("poison {number}"));
        log.writer().append(TOPIC, record).expect("queued");
    }
    let reader = member(&log, &Memory::default());
    // Stopped in the middle, and started again.
    eventually("some", || reader.dlq_copied() > 0).await;
    reader.stop().await;
    let memory = Memory::default();
    let reader = member(&log, &memory);
    eventually("read", || memory.count() == 3000).await;
    // Stopping waits for the rest, but not for as long as a busy machine may need.
    let until = Instant::now() + DEADLINE;
    while letters(&log).await.len() < 3000 {
        assert!(Instant::now() < until, "not all are set aside in time");
    }
    reader.stop().await;
    let letters = letters(&log).await;
    assert_eq!(letters.len(), 3000);
    for partition in 0..2 {
        let of = letters.iter().filter(|seen| seen.partition == partition);
        let numbers: Vec<_> = of.map(|seen| seen.value[7..].parse::<i32>().ok()).collect();
        let all: Vec<_> = (0..1500).map(|number| Some(number * 2 + partition)).collect();
        assert_eq!(numbers, all);
    }
}
