//! Followers: readers of assigned partitions, outside any group.

use event_log::{Watermarks, reader::Follower};

use crate::harness::{Call, FOREVER, Memory, TOPIC, World, append, eventually, record};

async fn revoked(memory: &Memory, follower: &Follower, partition: i32) {
    follower.revoke(partition);
    eventually("revoked", || memory.calls().last() == Some(&Call::Revoked(partition))).await;
}

#[tokio::test]
async fn a_follower_reads_the_assigned_partitions_only() {
    let world = World::new();
    let log = world.open(3, FOREVER).await;
    let writer = log.writer();
    for partition in 0..3 {
        append(&writer, record(partition, "1", "hello")).await;
    }
    let memory = Memory::default();
    let follower = log.follow_topic(TOPIC, memory.clone());
    follower.assign(1);
    eventually("live", || memory.has(&Call::Live(1))).await;
    append(&writer, record(0, "1", "not for it")).await;
    append(&writer, record(1, "1", "for it")).await;
    eventually("both", || memory.count() == 2).await;
    assert_eq!(memory.of(1), [(0, "hello".into()), (1, "for it".into())]);
    let watermarks = Watermarks { low: 0, high: 1 };
    assert_eq!(memory.calls()[..2], [Call::Assigned(1), Call::Watermarks(1, watermarks)]);
    assert!(follower.is_running());
    follower.stop().await;
    assert_eq!(memory.calls().last(), Some(&Call::Revoked(1)));
}

#[tokio::test]
async fn a_partition_that_is_assigned_again_starts_from_its_beginning() {
    let world = World::new();
    let log = world.open(2, FOREVER).await;
    append(&log.writer(), record(0, "1", "first")).await;
    let memory = Memory::default();
    let follower = log.follow_topic(TOPIC, memory.clone());
    follower.assigner().assign(0);
    follower.assigner().assign(0);
    eventually("read", || memory.count() == 1).await;
    revoked(&memory, &follower, 0).await;
    append(&log.writer(), record(0, "1", "second")).await;
    follower.assign(0);
    eventually("read again", || memory.count() == 3).await;
    let offsets: Vec<_> = memory.records().iter().map(|seen| seen.offset).collect();
    assert_eq!(offsets, [0, 0, 1]);
    let assigned = memory.calls().into_iter().filter(|call| *call == Call::Assigned(0)).count();
    assert_eq!(assigned, 2, "requested twice, assigned once; and once more after the revocation");
    follower.stop().await;
}

#[tokio::test]
async fn an_empty_partition_is_live_at_once_and_a_missing_one_is_passed_over() {
    let world = World::new();
    let log = world.open(1, FOREVER).await;
    let memory = Memory::default();
    let follower = log.follow_topic(TOPIC, memory.clone());
    follower.assign(7);
    follower.revoke(7);
    follower.assign(0);
    eventually("live", || memory.has(&Call::Live(0))).await;
    assert!(!memory.has(&Call::Assigned(7)));
    follower.stop().await;
}
