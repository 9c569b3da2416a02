//! Followers: readers of assigned partitions, outside any group.

use event_log::{NewRecord, Watermarks};

use crate::harness::{Call, DLQ, Memory, TOPIC, World, connect, eventually, topic};

#[tokio::test]
async fn a_follower_reads_an_assigned_partition_from_its_beginning_each_time() {
    let world = World::mock(3);
    for partition in 0..3 {
        world.append(partition, "first").await;
    }
    let memory = Memory::default();
    let follower = world.log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    follower.assign(1);
    eventually("live", || memory.live() == [1]).await;
    world.append(0, "not for it").await;
    world.append(1, "second").await;
    eventually("both", || memory.since_assigned(1) == ["first", "second"]).await;
    let watermarks = memory.calls().into_iter().filter(|call| matches!(call, Call::Watermarks(..)));
    assert_eq!(
        watermarks.collect::<Vec<_>>(),
        [Call::Watermarks(1, Watermarks { low: 0, high: 1 })]
    );

    follower.revoke(1);
    eventually("revoked", || memory.calls().last() == Some(&Call::Revoked(1))).await;
    world.append(1, "third").await;
    let assigner = follower.assigner();
    assigner.assign(1);
    assigner.assign(1);
    eventually("read again", || memory.since_assigned(1) == ["first", "second", "third"]).await;
    eventually("live again", || memory.live() == [1]).await;

    // At once, so that what was fetched for the former assignment may still be on its way.
    assigner.revoke(1);
    assigner.assign(1);
    assigner.assign(2);
    eventually("both are live", || memory.live().len() == 2).await;
    assert_eq!(memory.since_assigned(1), ["first", "second", "third"]);
    assert_eq!(memory.since_assigned(2), ["first"]);
    assert!(memory.records().iter().all(|seen| seen.partition != 0));

    assert!(follower.is_running());
    follower.stop().await;
    assert!(memory.live().is_empty());
}

#[tokio::test]
async fn an_empty_partition_is_live_at_once() {
    let world = World::mock(2);
    let memory = Memory::default();
    let follower = world.log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || memory.live() == [0]).await;
    follower.stop().await;
}

#[tokio::test]
async fn a_partition_is_live_with_the_topic_s_epoch_which_is_the_same_for_every_client() {
    let world = World::mock(2);
    let ensured = [topic(TOPIC, 2), topic(DLQ, 2)];
    let mut epochs = Vec::new();
    for log in [&world.log, &connect(&world.brokers)] {
        log.ensure_topics(&ensured).await.expect("the topics are there");
        for name in [TOPIC, DLQ] {
            let record = NewRecord {
                partition: 0,
                key: b"7".to_vec(),
                value: b"v".to_vec(),
                headers: Vec::new(),
            };
            let position = log.writer().append(name, record).expect("queued").await;
            epochs.push(position.expect("acknowledged").epoch.expect("an epoch"));
        }
        let memory = Memory::default();
        let follower = log.follow_topic(TOPIC, memory.clone()).expect("a follower");
        follower.assign(0);
        follower.assign(1);
        eventually("live", || memory.live().len() == 2).await;
        assert_eq!(memory.topic_epochs(), [Some(epochs[0])]);
        follower.stop().await;
    }
    assert_eq!(epochs[..2], epochs[2..]);
    assert_ne!(epochs[0], epochs[1], "each topic has its own");
}
