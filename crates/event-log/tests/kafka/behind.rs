//! Partitions that cannot follow their log, on the in-memory broker.

use std::time::Duration;

use event_log::{Log, mock::Cluster};

use crate::harness::{Call, Memory, TOPIC, World, append, eventually};

fn cluster(world: &World) -> &Cluster {
    world.mock.as_ref().expect("an in-memory broker")
}

#[tokio::test]
async fn a_member_whose_brokers_fall_silent_is_behind_until_they_answer() {
    let world = World::mock(2);
    world.append(0, "before").await;
    let memory = Memory::default();
    // With the session of 10 s that a service has, so that the member is not fenced at once.
    let log = Log::Kafka(cluster(&world).connect("test").expect("the clients"));
    let reader = world.join_with(&log, &memory);
    eventually("live", || memory.live().len() == 2).await;

    cluster(&world).set_round_trip(Duration::from_secs(9));
    let silent = Some("the brokers do not answer".to_owned());
    eventually("behind", || (0..2).all(|number| memory.has(&Call::Behind(number, silent.clone()))))
        .await;
    cluster(&world).set_round_trip(Duration::ZERO);
    let follows = || memory.live().len() == 2 && (0..2).all(|n| memory.behind(n).is_none());
    eventually("both follow again", follows).await;
    world.append(0, "after").await;
    eventually("read", || memory.since_assigned(0) == ["before", "after"]).await;
    reader.stop().await;
}

#[tokio::test]
async fn a_follower_whose_broker_is_gone_is_behind_until_it_returns() {
    let world = World::mock(1);
    world.append(0, "before").await;
    let memory = Memory::default();
    let follower = world.log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || memory.live() == [0]).await;
    cluster(&world).set_up(false);
    eventually("behind", || memory.behind(0).is_some()).await;
    assert_eq!(memory.behind(0).as_deref(), Some("the brokers do not answer"));
    cluster(&world).set_up(true);
    eventually("it follows again", || memory.behind(0).is_none()).await;
    assert_eq!(memory.count_behind(0), 1);
    follower.stop().await;
}

#[tokio::test]
async fn a_batch_that_cannot_be_read_makes_its_partition_behind_and_says_from_where() {
    let world = World::mock(1);
    world.append(0, "good").await;
    let memory = Memory::default();
    let follower = world.log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || memory.live() == [0] && memory.count() == 1).await;

    cluster(&world).set_unreadable(true);
    world.append(0, "unreadable").await;
    eventually("behind", || memory.behind(0).is_some()).await;
    let cause = memory.behind(0).unwrap_or_default();
    assert!(cause.contains("from offset 1 up to 2 cannot be read"), "{cause}");
    assert!(cause.contains("does not match its checksum"), "{cause}");
    cluster(&world).set_unreadable(false);
    eventually("it follows again", || memory.behind(0).is_none()).await;
    assert_eq!(memory.since_assigned(0), ["good", "unreadable"]);
    follower.stop().await;
}

#[tokio::test]
async fn a_rebuild_that_makes_no_progress_is_behind_too() {
    let world = World::mock(1);
    world.append(0, "unreadable").await;
    cluster(&world).set_unreadable(true);
    let memory = Memory::default();
    let follower = world.log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("behind", || memory.behind(0).is_some()).await;
    assert!(memory.live().is_empty());
    cluster(&world).set_unreadable(false);
    eventually("live", || memory.live() == [0] && memory.behind(0).is_none()).await;
    follower.stop().await;
}

#[tokio::test]
async fn a_partition_that_is_written_to_all_the_time_follows_its_log() {
    let world = World::mock(1);
    let memory = Memory::default();
    let follower = world.log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || memory.live() == [0]).await;
    let until = std::time::Instant::now() + Duration::from_secs(8);
    while std::time::Instant::now() < until {
        world.append(0, "busy").await;
    }
    let undelivered = |call: &Call| match call {
        Call::Behind(_, Some(cause)) => cause.contains("do not deliver"),
        _ => false,
    };
    assert!(!memory.calls().iter().any(undelivered));
    follower.stop().await;
}

#[tokio::test]
async fn of_two_brokers_a_dead_one_makes_no_partition_behind_that_the_other_leads() {
    let cluster = Cluster::with_brokers(2).expect("the brokers start");
    cluster.create_topic(TOPIC, 2).expect("the topic is made");
    for (partition, broker) in [(0, 1), (1, 2)] {
        cluster.set_leader(TOPIC, partition, broker).expect("a leader");
    }
    let log = Log::Kafka(cluster.connect("test").expect("the clients"));
    let memory = Memory::default();
    let follower = log.follow_topic(TOPIC, memory.clone()).expect("a follower");
    for partition in [0, 1] {
        follower.assign(partition);
    }
    eventually("live", || memory.live().len() == 2).await;
    cluster.set_up(false);
    eventually("behind", || memory.behind(0).is_some()).await;
    // Longer than the timeout of the question to the dead broker.
    for count in 1..=5 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        append(&log, TOPIC, 1, "elsewhere").await;
        let follows = || memory.since_assigned(1).len() == count && memory.behind(1).is_none();
        eventually("read", follows).await;
        assert!(memory.behind(0).is_some());
    }
    follower.stop().await;
}
