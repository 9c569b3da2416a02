//! Reading what one is told, in no group.

use event_log::Watermarks;

use crate::harness::{Memory, TOPIC, Told, World, eventually};

#[tokio::test]
async fn a_follower_reads_what_it_is_told_from_its_beginning_again_and_again() {
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
    let extents = memory.told().into_iter().filter(|told| matches!(told, Told::Extent(..)));
    assert_eq!(extents.collect::<Vec<_>>(), [Told::Extent(1, Watermarks { low: 0, high: 1 })]);

    follower.revoke(1);
    eventually("revoked", || memory.told().last() == Some(&Told::Revoked(1))).await;
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
