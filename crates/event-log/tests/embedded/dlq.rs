//! Poison records are copied at least once, and a second copy has the same key.

use std::{collections::HashSet, time::Instant};

use event_log::{Reader, Topic, embedded::Embedded};

use crate::harness::{
    Call, DEADLINE, FOREVER, GROUP, Memory, Seen, TOPIC, World, append, eventually, record, topic,
};

const DLQ: &str = "notifications.dlq";

async fn open(world: &World) -> Embedded {
    let log = world.open(2, FOREVER).await;
    let dlq = Topic { name: DLQ.to_owned(), ..topic(2, FOREVER) };
    log.ensure_topics(&[dlq]).await.expect("the dead-letter queue is there");
    log
}

fn member(log: &Embedded, memory: &Memory) -> Reader {
    log.join_group(TOPIC, GROUP, Some(DLQ), memory.clone())
}

/// Everything in the dead-letter queue.
async fn letters(log: &Embedded) -> Vec<Seen> {
    let memory = Memory::default();
    let follower = log.follow_topic(DLQ, memory.clone());
    for partition in 0..2 {
        follower.assign(partition);
    }
    eventually("live", || memory.has(&Call::Live(0)) && memory.has(&Call::Live(1))).await;
    follower.stop().await;
    memory.records()
}

/// The first copy of each key.
fn each_once(mut copies: Vec<Seen>) -> Vec<Seen> {
    let mut keys = HashSet::new();
    copies.retain(|seen| keys.insert(seen.key.clone()));
    copies
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
async fn poison_is_copied_once_over_restarts_and_replays() {
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
        eventually("replayed", || memory.count() == 4 && memory.has(&Call::Live(1))).await;
        if start == 0 {
            eventually("copied", || reader.dlq_copied() == 2).await;
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
    eventually("copied", || reader.dlq_copied() == 1).await;
    let letters = letters(&log).await;
    assert_eq!(letters.len(), 1);
    let letter = &letters[0];
    assert_eq!((letter.partition, letter.key.as_str()), (1, "notifications/1/1"));
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
    assert_eq!((said[7].0, said[7].1.as_str()), ("dlq.key", "7"));
    reader.stop().await;
}

#[tokio::test]
async fn poison_that_cannot_be_copied_delays_no_record_and_progress_stays_before_it() {
    let world = World::new();
    // There is no dead-letter queue yet.
    let log = world.open(1, FOREVER).await;
    for value in ["good", "poison", "good", "good"] {
        append(&log.writer(), record(0, "7", value)).await;
    }
    let memory = Memory::default();
    let reader = member(&log, &memory);
    eventually("all is read", || memory.count() == 4 && memory.has(&Call::Live(0))).await;
    reader.stop().await;
    assert!(progress(&world, GROUP).await.iter().all(|next| *next <= 1));

    let dlq = Topic { name: DLQ.to_owned(), ..topic(2, FOREVER) };
    log.ensure_topics(&[dlq]).await.expect("the dead-letter queue is there");
    let reader = member(&log, &Memory::default());
    eventually("copied", || reader.dlq_copied() == 1).await;
    reader.stop().await;
    assert_eq!(letters(&log).await.len(), 1);
    assert_eq!(progress(&world, GROUP).await, [4]);
}

#[tokio::test]
async fn each_group_copies_poison_for_itself() {
    let world = World::new();
    let log = open(&world).await;
    append(&log.writer(), record(0, "7", "poison")).await;
    for group in ["one", "another", "one"] {
        let memory = Memory::default();
        let reader = log.join_group(TOPIC, group, Some(DLQ), memory.clone());
        eventually("live", || memory.has(&Call::Live(0))).await;
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
async fn a_burst_of_poison_is_copied_whole_and_in_order() {
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
    while each_once(letters(&log).await).len() < 3000 {
        assert!(Instant::now() < until, "not all are copied in time");
    }
    reader.stop().await;
    let letters = each_once(letters(&log).await);
    assert_eq!(letters.len(), 3000);
    for partition in 0..2 {
        let of = letters.iter().filter(|seen| seen.partition == partition);
        let numbers: Vec<_> = of.map(|seen| seen.value[7..].parse::<i32>().ok()).collect();
        let all: Vec<_> = (0..1500).map(|number| Some(number * 2 + partition)).collect();
        assert_eq!(numbers, all);
    }
}

#[tokio::test]
async fn a_crash_between_a_copy_and_its_commit_copies_again_under_the_same_key() {
    let world = World::new();
    let log = open(&world).await;
    for value in ["poison 1", "good", "poison 2"] {
        append(&log.writer(), record(0, "7", value)).await;
    }
    for _ in 0..2 {
        let reader = member(&log, &Memory::default());
        eventually("copied", || reader.dlq_copied() == 2).await;
        reader.stop().await;
        assert_eq!(progress(&world, GROUP).await, [3]);
        // As if the process had died before this commit.
        world.shell("DELETE FROM progress").await;
    }
    let copies = letters(&log).await;
    assert_eq!(copies.len(), 4);
    let keys: Vec<_> = each_once(copies).into_iter().map(|seen| (seen.key, seen.value)).collect();
    let expected = [("notifications/0/0", "poison 1"), ("notifications/0/2", "poison 2")];
    assert_eq!(keys, expected.map(|(key, value)| (key.to_owned(), value.to_owned())));
}
