//! Partitions that cannot follow their log, and those that can although a foreign client wrote them,
//! on a real broker. Run by `scripts/real run`.

use std::time::Duration;

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    producer::{FutureProducer, FutureRecord, Producer as _},
};

use crate::harness::{Call, DEADLINE, Memory, World, eventually};

const CODECS: [&str; 5] = ["none", "gzip", "snappy", "lz4", "zstd"];

fn admin(world: &World) -> AdminClient<DefaultClientContext> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.brokers).create().expect("an admin client")
}

fn foreign_producer(world: &World, settings: &[(&str, &str)]) -> FutureProducer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &world.brokers);
    for (name, value) in settings {
        config.set(*name, *value);
    }
    config.create().expect("a producer")
}

async fn send(producer: &FutureProducer, topic: &str, value: &str) {
    let record: FutureRecord<'_, str, str> =
        FutureRecord::to(topic).partition(0).key("7").payload(value);
    producer.send(record, DEADLINE).await.expect("acknowledged");
}

/// Long enough to be worth compressing, so that a batch is.
fn compressible(name: &str) -> String {
    format!("{name} {}", "0123456789".repeat(200))
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn records_of_a_foreign_client_with_any_codec_are_read() {
    let world = World::real(1).await;
    let values = CODECS.map(compressible);
    for (codec, value) in CODECS.into_iter().zip(&values) {
        let producer = foreign_producer(&world, &[("compression.type", codec)]);
        send(&producer, &world.topic, value).await;
    }
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("all are read", || memory.since_assigned(0) == values).await;
    eventually("live", || memory.live() == [0]).await;
    reader.stop().await;
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn topics_that_recompress_with_any_codec_are_read() {
    let world = World::real(1).await;
    for kind in ["uncompressed", "gzip", "snappy", "lz4", "zstd", "producer"] {
        let name = format!("{}-{kind}", world.topic);
        let topic = NewTopic::new(&name, 1, TopicReplication::Fixed(1));
        let topic = [topic.set("compression.type", kind)];
        let made = admin(&world).create_topics(&topic, &AdminOptions::new()).await;
        assert!(made.is_ok_and(|made| made.iter().all(Result::is_ok)), "{kind}");
        let values = CODECS.map(compressible);
        for (codec, value) in CODECS.into_iter().zip(&values) {
            let producer = foreign_producer(&world, &[("compression.type", codec)]);
            send(&producer, &name, value).await;
        }
        let memory = Memory::default();
        let follower = world.log.follow_topic(&name, memory.clone()).expect("a follower");
        follower.assign(0);
        eventually(kind, || memory.live() == [0] && memory.since_assigned(0) == values).await;
        follower.stop().await;
    }
}

/// A producer with a record in an unfinished transaction.
async fn open_transaction(world: &World, value: &str) -> FutureProducer {
    let id = format!("{}-transaction", world.topic);
    let producer = foreign_producer(world, &[("transactional.id", &id)]);
    producer.init_transactions(DEADLINE).expect("initialised");
    producer.begin_transaction().expect("begun");
    send(&producer, &world.topic, value).await;
    producer
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real broker"]
async fn a_hung_transaction_makes_its_partition_behind_until_it_ends() {
    let world = World::real(2).await;
    world.append(0, "before").await;
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("live", || memory.live().len() == 2).await;
    eventually("read", || memory.since_assigned(0) == ["before"]).await;

    let transaction = open_transaction(&world, "aborted").await;
    world.append(0, "acknowledged").await;
    eventually("behind", || memory.behind(0).is_some()).await;
    eventually("for its cause", || {
        let cause = memory.behind(0).unwrap_or_default();
        cause.contains("unfinished transaction hides the records from offset 1 up to")
    })
    .await;
    assert_eq!(memory.since_assigned(0), ["before"]);
    eventually("the other one follows", || memory.behind(1).is_none()).await;

    transaction.abort_transaction(DEADLINE).expect("aborted");
    eventually("read", || memory.since_assigned(0) == ["before", "acknowledged"]).await;
    eventually("it follows again", || memory.behind(0).is_none()).await;
    assert_eq!(memory.count_behind(0), 1);
    reader.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real broker"]
async fn a_partition_that_ends_with_markers_or_aborted_records_follows_its_log() {
    let world = World::real(1).await;
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("live", || memory.live() == [0]).await;
    let transaction = open_transaction(&world, "aborted").await;
    transaction.abort_transaction(DEADLINE).expect("aborted");
    transaction.begin_transaction().expect("begun");
    send(&transaction, &world.topic, "committed").await;
    transaction.commit_transaction(DEADLINE).expect("committed");
    eventually("read", || memory.since_assigned(0) == ["committed"]).await;
    // The time in which it would fall behind, and stay so.
    tokio::time::sleep(Duration::from_secs(5)).await;
    eventually("it follows", || memory.behind(0).is_none()).await;

    // Nor if only a marker is there to be read.
    let delete = delete_below(&world, 3).await;
    assert!(delete, "not deleted");
    let again = Memory::default();
    let follower = world.log.follow_topic(&world.topic, again.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || again.live() == [0]).await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    eventually("it follows", || again.live() == [0] && again.behind(0).is_none()).await;
    follower.stop().await;
    reader.stop().await;
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_deleted_topic_makes_its_partitions_behind() {
    let world = World::real(1).await;
    world.append(0, "before").await;
    let memory = Memory::default();
    let reader = world.join(&memory);
    eventually("live", || memory.live() == [0]).await;
    let deleted = admin(&world).delete_topics(&[&world.topic], &AdminOptions::new()).await;
    assert!(deleted.is_ok_and(|deleted| deleted.iter().all(Result::is_ok)));
    // The group may revoke its partitions first, so any moment counts.
    let missing = "the topic does not exist, or does not have this partition any more".to_owned();
    eventually("behind", || memory.has(&Call::Behind(0, Some(missing.clone())))).await;
    reader.stop().await;
}

/// Deletes the records below this offset of partition 0, as retention does.
async fn delete_below(world: &World, offset: i64) -> bool {
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&world.topic, 0, Offset::Offset(offset)).expect("an offset");
    let deleted =
        admin(world).delete_records(&list, &AdminOptions::new()).await.expect("an answer");
    deleted.elements().iter().all(|element| element.error().is_ok())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real broker"]
async fn a_reader_that_retention_overtakes_is_told_what_it_lost() {
    let world = World::real(1).await;
    world.append(0, "0").await;
    let memory = Memory::default();
    let follower = world.log.follow_topic(&world.topic, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || memory.live() == [0] && memory.count() == 1).await;
    // Holds the reader at offset 1.
    let transaction = open_transaction(&world, "1").await;
    for value in ["2", "3", "4", "5"] {
        world.append(0, value).await;
    }
    transaction.commit_transaction(DEADLINE).expect("committed");
    drop(transaction);
    let hold = open_transaction(&world, "held").await;
    eventually("all before is read", || memory.since_assigned(0).len() == 6).await;
    let position = 7;
    for value in ["8", "9", "10"] {
        world.append(0, value).await;
    }
    assert!(delete_below(&world, position + 2).await, "not deleted");
    eventually("told", || memory.has(&Call::Lost(0, position + 2))).await;
    hold.abort_transaction(DEADLINE).expect("aborted");
    eventually("the rest is read", || memory.since_assigned(0)[6..] == ["9", "10"]).await;
    follower.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "needs a real broker"]
async fn a_rebuild_that_retention_overtakes_before_its_first_record_is_told() {
    let world = World::real(1).await;
    // Holds the reader at the beginning.
    let hold = open_transaction(&world, "0").await;
    for value in ["1", "2", "3"] {
        world.append(0, value).await;
    }
    let memory = Memory::default();
    let follower = world.log.follow_topic(&world.topic, memory.clone()).expect("a follower");
    follower.assign(0);
    let told = |call: &Call| matches!(call, Call::Watermarks(0, _));
    eventually("the watermarks", || memory.calls().iter().any(told)).await;
    assert!(delete_below(&world, 2).await, "not deleted");
    hold.abort_transaction(DEADLINE).expect("aborted");
    eventually("the rest is read", || memory.since_assigned(0) == ["2", "3"]).await;
    eventually("told", || memory.has(&Call::Lost(0, 2))).await;
    follower.stop().await;
}

#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_reader_whose_unread_records_are_all_deleted_is_told_too() {
    let world = World::real(1).await;
    world.append(0, "0").await;
    let memory = Memory::default();
    let follower = world.log.follow_topic(&world.topic, memory.clone()).expect("a follower");
    follower.assign(0);
    eventually("live", || memory.live() == [0] && memory.count() == 1).await;
    let hold = open_transaction(&world, "1").await;
    world.append(0, "2").await;
    assert!(delete_below(&world, 3).await, "not deleted");
    eventually("told", || memory.has(&Call::Lost(0, 3))).await;
    eventually("it follows", || memory.behind(0).is_none()).await;
    drop(hold);
    follower.stop().await;
}
