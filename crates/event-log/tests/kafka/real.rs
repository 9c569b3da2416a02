//! What only a real broker can show. Run by `scripts/real run`.

use std::time::{Duration, Instant};

use event_log::{NewRecord, Topic, TopicError, topic::Cleanup};
use rdkafka::{
    ClientConfig,
    admin::{
        AdminClient, AdminOptions, NewPartitions, NewTopic, ResourceSpecifier, TopicReplication,
    },
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord},
};

use crate::harness::{Memory, World, append, connect, eventually, topic};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real broker"]
async fn poison_is_copied_at_least_once_though_members_come_and_go_in_the_middle() {
    const PARTITIONS: i32 = 4;
    const EACH: usize = 400;
    let world = World::real(4).await;
    let (log, name) = (world.log.clone(), world.topic.clone());
    let appending = tokio::spawn(async move {
        for number in 0..EACH {
            for partition in 0..PARTITIONS {
                append(&log, &name, partition, &format!("poison {number}")).await;
                append(&log, &name, partition, "good").await;
            }
        }
        // The last record of each partition is poison: its copy alone must move the offset.
        for partition in 0..PARTITIONS {
            append(&log, &name, partition, "poison at the end").await;
        }
    });
    let others = [connect(&world.brokers), connect(&world.brokers)];
    let stays = world.join(&Memory::default());
    let mut restarts = 0;
    let until = Instant::now() + Duration::from_secs(20);
    while !appending.is_finished() || Instant::now() < until {
        let memory = Memory::default();
        let comes_and_goes = world.join_with(&others[restarts % 2], &memory);
        eventually("its share", || !memory.live().is_empty()).await;
        comes_and_goes.stop().await;
        restarts += 1;
    }
    assert!(restarts >= 2, "{restarts}");
    appending.await.expect("all is appended");
    let end = (EACH * 2 + 1) as i64;
    eventually("all is committed", || (0..PARTITIONS).all(|p| world.committed(p) == end)).await;
    stays.stop().await;
    // And a replay of everything.
    let memory = Memory::default();
    let again = world.join(&memory);
    eventually("replayed", || memory.live().len() == 4 && memory.count() == 4 * (EACH * 2 + 1))
        .await;
    again.stop().await;
    for partition in 0..PARTITIONS {
        let mut expected: Vec<_> = (0..EACH).map(|number| format!("poison {number}")).collect();
        expected.push("poison at the end".into());
        assert_eq!(world.dead_letters_of(partition).await, expected, "partition {partition}");
    }
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_tombstone_and_a_record_as_large_as_allowed_are_copied_too() {
    let world = World::real(1).await;
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .set("message.max.bytes", "2000000")
        .create()
        .expect("a producer");
    let tombstone: FutureRecord<'_, str, str> =
        FutureRecord::to(&world.topic).partition(0).key("7");
    producer.send(tombstone, Duration::ZERO).await.expect("acknowledged");
    // Nothing that compression could make smaller.
    let mut noise = 0x2545_f491_4f6c_dd1d_u64;
    let noise = std::iter::repeat_with(|| {
        noise ^= noise << 13;
        noise ^= noise >> 7;
        noise ^= noise << 17;
        noise as u8
    });
    let large: Vec<u8> = b"poison".iter().copied().chain(noise).take(1_048_450).collect();
    let record: FutureRecord<'_, str, [u8]> =
        FutureRecord::to(&world.topic).partition(0).key("7").payload(&large);
    producer.send(record, Duration::ZERO).await.expect("acknowledged");
    let reader = world.join(&Memory::default());
    eventually("copied", || reader.dlq_copied() == 2).await;
    reader.stop().await;
    let copies = world.dead_letters().await;
    assert_eq!(copies.len(), 2);
    assert_eq!(copies[0].value, "null");
    assert_eq!(copies[0].key, format!("{}/0/0", world.topic));
    // With its new headers the large one is too large; without its value it is not.
    let expected = format!("{}/0/1", world.topic);
    assert_eq!((copies[1].value.as_str(), copies[1].key.as_str()), ("null", expected.as_str()));
    assert!(copies[1].headers.iter().any(|(name, _)| name == "dlq.value"));
    for copy in copies {
        assert!(copy.headers.contains(&("dlq.key".into(), "7".into())), "{:?}", copy.headers);
    }
    assert_eq!(world.committed(0), 2);
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_topic_that_is_made_again_is_read_anew() {
    let world = World::real(1).await;
    for value in ["old 1", "old 2", "old 3"] {
        world.append(0, value).await;
    }
    let memory = Memory::default();
    let follower = world.log.follow_topic(&world.topic, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("read", || memory.since_assigned(0).len() == 3).await;
    make_again(&world).await;
    append(&connect(&world.brokers), &world.topic, 0, "new 1").await;
    eventually("only the new is there", || memory.since_assigned(0) == ["new 1"]).await;
    eventually("live", || memory.live() == [0]).await;
    follower.stop().await;
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_topic_that_is_made_again_and_stays_empty_is_noticed_by_its_end() {
    let world = World::real(1).await;
    world.append(0, "old").await;
    let memory = Memory::default();
    let follower = world.log.follow_topic(&world.topic, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("read", || memory.live() == [0] && memory.count() == 1).await;
    make_again(&world).await;
    eventually("the old is gone", || memory.since_assigned(0).is_empty()).await;
    eventually("live", || memory.live() == [0]).await;
    append(&connect(&world.brokers), &world.topic, 0, "new").await;
    eventually("the new is there", || memory.since_assigned(0) == ["new"]).await;
    follower.stop().await;
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_topic_that_is_made_again_and_grows_past_what_was_read_is_read_anew() {
    let world = World::real(1).await;
    for value in ["old 1", "old 2", "old 3"] {
        world.append(0, value).await;
    }
    let (group, follower) = (Memory::default(), Memory::default());
    let reader = world.join(&group);
    let following = world.log.follow_topic(&world.topic, follower.clone()).expect("a follower");
    following.assign(0);
    for memory in [&group, &follower] {
        eventually("read", || memory.live() == [0] && memory.count() == 3).await;
    }
    let expected = recreate_and_append(&world, 20).await;
    for memory in [&group, &follower] {
        eventually("all of the new, and nothing else", || {
            memory.live() == [0] && memory.since_assigned(0) == expected
        })
        .await;
        let epochs = memory.topic_epochs();
        assert!(epochs.len() == 2 && epochs[0] != epochs[1], "{epochs:?}");
    }
    reader.stop().await;
    following.stop().await;
}

/// Deletes the topic, makes it again and appends these many records, all within the half second for
/// which a client waits after a fetch that failed. So its next fetch finds a longer log.
async fn recreate_and_append(world: &World, count: usize) -> Vec<String> {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .create()
        .expect("an admin client");
    let exists = || {
        let metadata = admin.inner().fetch_metadata(Some(&world.topic), Duration::from_secs(5));
        metadata.is_ok_and(|found| found.topics().iter().all(|topic| topic.error().is_none()))
    };
    assert!(exists(), "and the client is connected");
    let (options, new) =
        (AdminOptions::new(), NewTopic::new(&world.topic, 1, TopicReplication::Fixed(1)));
    admin.delete_topics(&[&world.topic], &options).await.expect("deleted");
    let until = Instant::now() + Duration::from_secs(30);
    // Until the broker has deleted it, it takes records of the new topic for those of the old one.
    while exists() {
        assert!(Instant::now() < until, "the topic is not deleted");
    }
    let made = admin.create_topics([&new], &options).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    while !exists() {
        assert!(Instant::now() < until, "the topic is not made again");
    }
    let (writer, mut values, mut acks) = (world.log.writer(), Vec::new(), Vec::new());
    for number in 0..count {
        let value = format!("new {number}");
        let (partition, key) = (0, b"7".to_vec());
        let record = NewRecord { partition, key, value: value.clone().into(), headers: Vec::new() };
        acks.push(writer.append(&world.topic, record).expect("queued"));
        values.push(value);
    }
    for ack in acks {
        ack.await.expect("acknowledged");
    }
    values
}

/// Deletes the topic and makes it again.
async fn make_again(world: &World) {
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .create()
        .expect("an admin client");
    admin.delete_topics(&[&world.topic], &AdminOptions::new()).await.expect("deleted");
    // The broker deletes in the background; until then it takes the new topic for the old one.
    eventually("the topic is gone", || {
        let metadata = admin.inner().fetch_metadata(Some(&world.topic), Duration::from_secs(5));
        metadata.is_ok_and(|found| found.topics().iter().all(|topic| topic.error().is_some()))
    })
    .await;
    let again = [topic(&world.topic, world.partitions.unsigned_abs())];
    let until = Instant::now() + Duration::from_secs(30);
    while connect(&world.brokers).ensure_topics(&again).await.is_err() {
        assert!(Instant::now() < until, "the topic is not made again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_topic_that_is_given_partitions_is_told() {
    let world = World::real(1).await;
    world.append(0, "good").await;
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("live", || memory.live() == [0]).await;
    assert_eq!(reader.trouble(), None);
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .create()
        .expect("an admin client");
    let more = [NewPartitions::new(&world.topic, 3)];
    let made = admin.create_partitions(&more, &AdminOptions::new()).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    let told = || reader.trouble().is_some_and(|trouble| trouble.contains("had 1 partitions"));
    eventually("told", told).await;
    reader.stop().await;
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_compacted_topic_of_notifications_is_refused() {
    let world = World::real(1).await;
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .create()
        .expect("an admin client");
    let name = format!("{}-compacted", world.topic);
    let new = NewTopic::new(&name, 1, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let made = admin.create_topics(&[new], &AdminOptions::new()).await.expect("an answer");
    assert!(made.iter().all(Result::is_ok), "{made:?}");
    // A broker may answer from its metadata before it has the topic.
    eventually("the topic is there", || {
        let metadata = admin.inner().fetch_metadata(Some(&name), Duration::from_secs(5));
        metadata.is_ok_and(|found| found.topics().iter().all(|topic| topic.error().is_none()))
    })
    .await;
    let refused = world.log.ensure_topics(&[topic(&name, 1)]).await;
    assert!(matches!(refused, Err(TopicError::Compacted { .. })), "{refused:?}");
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_created_topic_begins_a_segment_each_day() {
    let world = World::real(1).await;
    let day = Duration::from_secs(24 * 3600);
    let name = format!("{}-month", world.topic);
    let month = Topic { cleanup: Cleanup::After(30 * day), ..topic(&name, 1) };
    world.log.ensure_topics(std::slice::from_ref(&month)).await.expect("the topic is made");
    let admin: AdminClient<DefaultClientContext> = ClientConfig::new()
        .set("bootstrap.servers", &world.brokers)
        .create()
        .expect("an admin client");
    let resources = [ResourceSpecifier::Topic(&name)];
    let described = admin.describe_configs(&resources, &AdminOptions::new()).await;
    let config = described.expect("an answer").remove(0).expect("the settings");
    let value = |name: &str| config.get(name).and_then(|entry| entry.value.clone());
    assert_eq!(value("segment.ms"), Some(day.as_millis().to_string()));
    assert_eq!(value("retention.ms"), Some((30 * day).as_millis().to_string()));
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn an_acknowledgement_from_a_topic_that_was_made_again_has_its_epoch() {
    let world = World::real(2).await;
    let topics = [topic(&world.topic, 2)];
    world.log.ensure_topics(&topics).await.expect("the topic is there");
    let send = async |log: &event_log::Log, partition| {
        let (key, value) = (b"7".to_vec(), b"v".to_vec());
        let record = NewRecord { partition, key, value, headers: Vec::new() };
        log.writer().append(&world.topic, record).expect("queued").await
    };
    for _ in 0..3 {
        send(&world.log, 0).await.expect("acknowledged");
    }
    let old = send(&world.log, 0).await.expect("acknowledged").epoch.expect("an epoch");
    make_again(&world).await;
    let mut acknowledged = Vec::new();
    // A partition with earlier acknowledgements, and one without.
    for partition in [0, 0, 1, 0, 1] {
        acknowledged.extend(send(&world.log, partition).await);
    }
    let fresh = connect(&world.brokers);
    fresh.ensure_topics(&topics).await.expect("the topic is there");
    let new = send(&fresh, 0).await.expect("acknowledged").epoch.expect("an epoch");
    assert_ne!(new, old);
    assert!(!acknowledged.is_empty());
    for position in acknowledged {
        assert_eq!(position.epoch, Some(new), "{position:?}");
    }
}
