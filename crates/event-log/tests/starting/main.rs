//! A handler that starts after an anchor, on both drivers. If the log has that record, the handler
//! gets the records after it; if not, the partition is reset and the handler gets all records.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::{
    Group, Log, NewRecord, PartitionHandler, Reader, Record, RecordAnchor, RecordOutcome, StartAt,
    Topic, Watermarks,
    embedded::Embedded,
    kafka::{Kafka, KafkaSettings},
    mock::Cluster,
    topic::Cleanup,
};
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions},
    client::DefaultClientContext,
};

/// Longer than anything here takes, on a busy machine too.
const DEADLINE: Duration = Duration::from_secs(60);
const TOPIC: &str = "notifications";
const DLQ: &str = "notifications.dlq";

/// A log with four records in its one partition; the second is poison.
struct World {
    log: Log,
    /// Kept alive for the log.
    _cluster: Option<Cluster>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    async fn mock() -> Self {
        let cluster = Cluster::start().expect("the broker starts");
        for name in [TOPIC, DLQ] {
            cluster.create_topic(name, 1).expect("the topic is made");
        }
        // The mock broker delays each rebalance but the first for most of a session.
        let properties = [("session.timeout.ms", "2500"), ("heartbeat.interval.ms", "300")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = KafkaSettings {
            brokers: cluster.brokers(),
            client_id: "test".into(),
            properties: properties.to_vec(),
            ..KafkaSettings::default()
        };
        let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
        Self { log, _cluster: Some(cluster), _folder: None }.with_records().await
    }

    async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(&folder.path().join("log.db")).await.expect("the log opens");
        log.ensure_topics(&[topic(TOPIC), topic(DLQ)]).await.expect("the topics are there");
        Self { log: Log::Embedded(log), _cluster: None, _folder: Some(folder) }.with_records().await
    }

    /// On the broker of `TEST_KAFKA_BROKERS`, which has no other topic of these names.
    async fn real() -> Self {
        let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
        let settings =
            KafkaSettings { brokers, client_id: "test".into(), ..KafkaSettings::default() };
        let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
        let topics = [TOPIC, DLQ].map(topic);
        log.ensure_topics(&topics).await.expect("the topics are made");
        Self { log, _cluster: None, _folder: None }.with_records().await
    }

    async fn with_records(self) -> Self {
        for value in ["a", "poison", "c", "d"] {
            self.append(value).await;
        }
        self
    }

    async fn append(&self, value: &str) {
        let headers = vec![("ce_id", value.as_bytes().to_vec().into())];
        let record = NewRecord { partition: 0, key: b"7".to_vec(), value: value.into(), headers };
        self.log.writer().append(TOPIC, record).expect("queued").await.expect("acknowledged");
    }

    fn join(&self, group: &str, handler: &ResumingHandler) -> Reader {
        let group = Group { id: group.to_owned(), instance: None };
        self.log.join_group(&topic(TOPIC), &group, Some(DLQ), handler.clone()).expect("a member")
    }

    /// Reads all records, and stops once the group has committed them.
    async fn read_once(&self, group: &str) -> Vec<RecordAnchor> {
        let handler = ResumingHandler::default();
        let reader = self.join(group, &handler);
        let offsets = reader.committed_offsets();
        eventually("the group has committed all", || offsets.committed(0) == Some(4)).await;
        reader.stop().await;
        assert_eq!(handler.events(), ["assigned", "a", "poison", "c", "d", "live", "revoked"]);
        std::mem::take(&mut handler.0.lock().anchors)
    }

    async fn count_copies(&self) -> usize {
        let handler = ResumingHandler::default();
        let follower = self.log.follow_topic(DLQ, handler.clone()).expect("a follower");
        follower.assign(0);
        eventually("the dead-letter queue is read", || handler.events().contains(&"live".into()))
            .await;
        follower.stop().await;
        handler.0.lock().anchors.len()
    }
}

fn topic(name: &str) -> Topic {
    let (name, cleanup) = (name.to_owned(), Cleanup::After(Duration::from_secs(3600)));
    Topic { name, partitions: 1, replication: 1, cleanup }
}

/// A handler that records its calls, and may start after an anchor.
#[derive(Clone, Default)]
struct ResumingHandler(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    anchor: Option<RecordAnchor>,
    invalidated: Option<i32>,
    events: Vec<String>,
    anchors: Vec<RecordAnchor>,
}

impl ResumingHandler {
    fn with_anchor(anchor: RecordAnchor) -> Self {
        Self(Arc::new(Mutex::new(State { anchor: Some(anchor), ..State::default() })))
    }

    /// The calls in order.
    fn events(&self) -> Vec<String> {
        self.0.lock().events.clone()
    }

    fn record_event(&self, what: &str) {
        self.0.lock().events.push(what.to_owned());
    }
}

impl PartitionHandler for ResumingHandler {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        self.record_event("assigned");
        StartAt::from_anchor(self.0.lock().anchor.take())
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        self.record_event(&value);
        self.0.lock().anchors.push(record.anchor());
        if value == "poison" {
            RecordOutcome::Poison("it says so".into())
        } else {
            RecordOutcome::Applied
        }
    }

    fn on_live(&mut self, _: i32) {
        self.record_event("live");
    }

    fn on_revoked(&mut self, _: i32) {
        self.record_event("revoked");
    }

    fn on_reset(&mut self, _: i32, _: &str) {
        self.record_event("reset");
    }

    fn take_invalidated(&mut self) -> Option<i32> {
        self.0.lock().invalidated.take()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_events(handler: &ResumingHandler, expected: &[&str]) {
    let until = Instant::now() + DEADLINE;
    while handler.events() != expected {
        assert!(Instant::now() < until, "{:?} instead of {expected:?}", handler.events());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const ALL_AFTER_ALL: [&str; 9] =
    ["assigned", "reset", "revoked", "assigned", "a", "poison", "c", "d", "live"];

async fn records_follow(world: World) {
    let anchors = world.read_once("group").await;
    let handler = ResumingHandler::with_anchor(anchors[1]);
    let reader = world.join("group", &handler);
    until_events(&handler, &["assigned", "c", "d", "live"]).await;
    world.append("e").await;
    until_events(&handler, &["assigned", "c", "d", "live", "e"]).await;
    reader.stop().await;
    // A start after the last record but one.
    let handler = ResumingHandler::with_anchor(anchors[3]);
    let follower = world.log.follow_topic(TOPIC, handler.clone()).expect("a follower");
    follower.assign(0);
    until_events(&handler, &["assigned", "e", "live"]).await;
    follower.stop().await;
    assert_eq!(world.count_copies().await, 1, "poison records are copied once");
}

async fn no_records_follow(world: World) {
    let anchors = world.read_once("group").await;
    let handler = ResumingHandler::with_anchor(anchors[3]);
    let reader = world.join("group", &handler);
    until_events(&handler, &["assigned", "live"]).await;
    reader.stop().await;
    // The committed offset is not below the anchor now.
    let handler = ResumingHandler::with_anchor(anchors[3]);
    let reader = world.join("group", &handler);
    until_events(&handler, &["assigned", "live"]).await;
    reader.stop().await;
}

async fn another_log(world: World) {
    let anchors = world.read_once("group").await;
    let other = |offset, checksum| ResumingHandler::with_anchor(RecordAnchor { offset, checksum });
    let wrong = [
        other(1, anchors[1].checksum ^ 1),
        // The offset of the next record, and one above the end of the log.
        other(4, anchors[1].checksum),
        other(1000, anchors[1].checksum),
    ];
    for handler in wrong {
        let follower = world.log.follow_topic(TOPIC, handler.clone()).expect("a follower");
        follower.assign(0);
        until_events(&handler, &ALL_AFTER_ALL).await;
        follower.stop().await;
    }
    let handler = other(2, anchors[1].checksum);
    let reader = world.join("group", &handler);
    until_events(&handler, &ALL_AFTER_ALL).await;
    world.append("e").await;
    eventually("it goes on", || handler.events().last().map(String::as_str) == Some("e")).await;
    reader.stop().await;
    assert_eq!(world.count_copies().await, 1, "poison records are copied once");
}

async fn group_behind(world: World) {
    let anchors = world.read_once("group").await;
    // This group has committed nothing, so it has the poison record to copy.
    let handler = ResumingHandler::with_anchor(anchors[2]);
    let reader = world.join("another group", &handler);
    let offsets = reader.committed_offsets();
    eventually("the group has committed all", || offsets.committed(0) == Some(4)).await;
    let events = handler.events();
    let again = events.iter().rposition(|events| events == "assigned").expect("an assignment");
    assert_eq!(events[again..], ALL_AFTER_ALL[3..]);
    assert!(events[..again].iter().any(|events| events == "reset"), "{events:?}");
    reader.stop().await;
    assert_eq!(world.count_copies().await, 2, "once for each group");
}

async fn invalidated(world: World) {
    let anchors = world.read_once("group").await;
    let handler = ResumingHandler::with_anchor(anchors[2]);
    let reader = world.join("group", &handler);
    until_events(&handler, &["assigned", "d", "live"]).await;
    handler.0.lock().invalidated = Some(0);
    let whole = [&["assigned", "d", "live"], &ALL_AFTER_ALL[1..]].concat();
    until_events(&handler, &whole).await;
    reader.stop().await;
}

macro_rules! on_both {
    ($($test:path as $name:ident),* $(,)?) => {
        mod embedded {
            $(#[tokio::test] async fn $name() { $test(super::World::embedded().await).await; })*
        }
        mod mock {
            $(#[tokio::test] async fn $name() { $test(super::World::mock().await).await; })*
        }
    };
}

on_both! {
    super::records_follow as a_handler_that_starts_after_an_anchor_gets_the_records_after_it,
    super::no_records_follow as a_handler_that_has_all_records_is_live_without_one,
    super::another_log as a_partition_without_the_anchor_is_reset_and_read_from_the_beginning,
    super::group_behind as a_start_above_the_committed_offset_is_reset,
    super::invalidated as a_handler_may_have_a_partition_reset,
}

/// Only a real broker deletes records and topics. One test, because the topic names are the same.
#[tokio::test]
#[ignore = "needs a real broker"]
async fn a_partition_whose_anchor_retention_or_a_new_topic_removed_is_reset() {
    let world = World::real().await;
    let group = || format!("group-{}", uuid::Uuid::now_v7());
    let name = group();
    let anchors = world.read_once(&name).await;
    let handler = ResumingHandler::with_anchor(anchors[1]);
    let reader = world.join(&name, &handler);
    until_events(&handler, &["assigned", "c", "d", "live"]).await;
    reader.stop().await;

    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a client");
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(TOPIC, 0, Offset::Offset(2)).expect("a place");
    admin.delete_records(&until, &AdminOptions::new()).await.expect("removed");
    let handler = ResumingHandler::with_anchor(anchors[1]);
    let reader = world.join(&name, &handler);
    until_events(&handler, &["assigned", "reset", "revoked", "assigned", "c", "d", "live"]).await;
    reader.stop().await;
    let handler = ResumingHandler::with_anchor(anchors[2]);
    let reader = world.join(&name, &handler);
    until_events(&handler, &["assigned", "d", "live"]).await;
    reader.stop().await;

    admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.expect("deleted");
    let deadline = Instant::now() + DEADLINE;
    // A client may still have the old topic in its metadata.
    while world.log.ensure_topics(&[topic(TOPIC)]).await.is_err() {
        assert!(Instant::now() < deadline, "the topic is not made again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // The new log ends below the anchor, at it, and above it.
    let new = ["x", "y", "z", "1", "2", "3"];
    let mut expected = vec!["assigned", "reset", "revoked", "assigned"];
    for value in new {
        let headers = vec![("ce_id", value.as_bytes().to_vec().into())];
        let record = NewRecord { partition: 0, key: b"7".to_vec(), value: value.into(), headers };
        let settings = KafkaSettings { brokers: brokers.clone(), ..KafkaSettings::default() };
        let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
        log.writer().append(TOPIC, record).expect("queued").await.expect("acknowledged");
        expected.push(value);
        let handler = ResumingHandler::with_anchor(anchors[2]);
        let follower = log.follow_topic(TOPIC, handler.clone()).expect("a follower");
        follower.assign(0);
        until_events(&handler, &[&expected[..], &["live"]].concat()).await;
        follower.stop().await;
    }
}
