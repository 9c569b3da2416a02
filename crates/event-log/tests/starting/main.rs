//! A fold that has something from an earlier time, on both drivers: it is given what follows, when
//! the log proves it right, and everything when not.

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
    /// What the log stands on.
    _cluster: Option<Cluster>,
    _folder: Option<tempfile::TempDir>,
}

impl World {
    async fn mock() -> Self {
        let cluster = Cluster::start().expect("the broker starts");
        for name in [TOPIC, DLQ] {
            cluster.create_topic(name, 1).expect("the topic is made");
        }
        // The in-memory broker lets every rebalance but the first wait for most of a session.
        let properties = [("session.timeout.ms", "2500"), ("heartbeat.interval.ms", "300")];
        let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned()));
        let settings = KafkaSettings {
            brokers: cluster.brokers(),
            client_id: "test".into(),
            properties: properties.to_vec(),
            ..KafkaSettings::default()
        };
        let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
        Self { log, _cluster: Some(cluster), _folder: None }.filled().await
    }

    async fn embedded() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let log = Embedded::open(&folder.path().join("log.db")).await.expect("the log opens");
        log.ensure_topics(&[topic(TOPIC), topic(DLQ)]).await.expect("the topics are there");
        Self { log: Log::Embedded(log), _cluster: None, _folder: Some(folder) }.filled().await
    }

    /// On the broker of `TEST_KAFKA_BROKERS`, which has no other topic of these names.
    async fn real() -> Self {
        let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
        let settings =
            KafkaSettings { brokers, client_id: "test".into(), ..KafkaSettings::default() };
        let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
        let topics = [TOPIC, DLQ].map(topic);
        log.ensure_topics(&topics).await.expect("the topics are made");
        Self { log, _cluster: None, _folder: None }.filled().await
    }

    async fn filled(self) -> Self {
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

    fn join(&self, group: &str, fold: &Later) -> Reader {
        let group = Group { id: group.to_owned(), instance: None };
        self.log.join_group(TOPIC, &group, Some(DLQ), fold.clone()).expect("a member")
    }

    /// Reads all of it, and stops when the group was told so.
    async fn read_once(&self, group: &str) -> Vec<RecordAnchor> {
        let fold = Later::default();
        let reader = self.join(group, &fold);
        let settling = reader.committed_offsets();
        eventually("the group is told", || settling.committed(0) == Some(4)).await;
        reader.stop().await;
        assert_eq!(fold.told(), ["assigned", "a", "poison", "c", "d", "live", "revoked"]);
        std::mem::take(&mut fold.0.lock().marks)
    }

    async fn letters(&self) -> usize {
        let fold = Later::default();
        let follower = self.log.follow_topic(DLQ, fold.clone()).expect("a follower");
        follower.assign(0);
        eventually("the dead letters are read", || fold.told().contains(&"live".into())).await;
        follower.stop().await;
        fold.0.lock().marks.len()
    }
}

fn topic(name: &str) -> Topic {
    let (name, cleanup) = (name.to_owned(), Cleanup::After(Duration::from_secs(3600)));
    Topic { name, partitions: 1, replication: 1, cleanup }
}

/// A fold that remembers what it was told, and may have something already.
#[derive(Clone, Default)]
struct Later(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    has: Option<RecordAnchor>,
    stale: Option<i32>,
    told: Vec<String>,
    marks: Vec<RecordAnchor>,
}

impl Later {
    fn has(mark: RecordAnchor) -> Self {
        Self(Arc::new(Mutex::new(State { has: Some(mark), ..State::default() })))
    }

    /// In order, the end of liveness first where it comes with the last record.
    fn told(&self) -> Vec<String> {
        self.0.lock().told.clone()
    }

    fn tell(&self, what: &str) {
        self.0.lock().told.push(what.to_owned());
    }
}

impl PartitionHandler for Later {
    fn on_assigned(&mut self, _: i32) -> StartAt {
        self.tell("assigned");
        StartAt::from_anchor(self.0.lock().has.take())
    }

    fn on_watermarks(&mut self, _: i32, _: Watermarks) {}

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
        self.tell(&value);
        self.0.lock().marks.push(record.anchor());
        if value == "poison" {
            RecordOutcome::Poison("it says so".into())
        } else {
            RecordOutcome::Applied
        }
    }

    fn on_live(&mut self, _: i32) {
        self.tell("live");
    }

    fn on_revoked(&mut self, _: i32) {
        self.tell("revoked");
    }

    fn on_reset(&mut self, _: i32, _: &str) {
        self.tell("void");
    }

    fn take_invalidated(&mut self) -> Option<i32> {
        self.0.lock().stale.take()
    }
}

async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn until_told(fold: &Later, expected: &[&str]) {
    let until = Instant::now() + DEADLINE;
    while fold.told() != expected {
        assert!(Instant::now() < until, "{:?} instead of {expected:?}", fold.told());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const ALL_AFTER_ALL: [&str; 9] =
    ["assigned", "void", "revoked", "assigned", "a", "poison", "c", "d", "live"];

async fn what_follows(world: World) {
    let marks = world.read_once("group").await;
    let fold = Later::has(marks[1]);
    let reader = world.join("group", &fold);
    until_told(&fold, &["assigned", "c", "d", "live"]).await;
    world.append("e").await;
    until_told(&fold, &["assigned", "c", "d", "live", "e"]).await;
    reader.stop().await;
    // With nothing after it, it is live at once.
    let fold = Later::has(marks[3]);
    let follower = world.log.follow_topic(TOPIC, fold.clone()).expect("a follower");
    follower.assign(0);
    until_told(&fold, &["assigned", "e", "live"]).await;
    follower.stop().await;
    assert_eq!(world.letters().await, 1, "dead letters are copied once");
}

async fn nothing_follows(world: World) {
    let marks = world.read_once("group").await;
    let fold = Later::has(marks[3]);
    let reader = world.join("group", &fold);
    until_told(&fold, &["assigned", "live"]).await;
    reader.stop().await;
    // What is told of the group's progress is no less than before.
    let fold = Later::has(marks[3]);
    let reader = world.join("group", &fold);
    until_told(&fold, &["assigned", "live"]).await;
    reader.stop().await;
}

async fn another_log(world: World) {
    let marks = world.read_once("group").await;
    let other = |offset, checksum| Later::has(RecordAnchor { offset, checksum });
    let wrong = [
        other(1, marks[1].checksum ^ 1),
        // The place of the next record, and one that the log has not come to.
        other(4, marks[1].checksum),
        other(1000, marks[1].checksum),
    ];
    for fold in wrong {
        let follower = world.log.follow_topic(TOPIC, fold.clone()).expect("a follower");
        follower.assign(0);
        until_told(&fold, &ALL_AFTER_ALL).await;
        follower.stop().await;
    }
    let fold = other(2, marks[1].checksum);
    let reader = world.join("group", &fold);
    until_told(&fold, &ALL_AFTER_ALL).await;
    world.append("e").await;
    eventually("it goes on", || fold.told().last().map(String::as_str) == Some("e")).await;
    reader.stop().await;
    assert_eq!(world.letters().await, 1, "dead letters are copied once");
}

async fn group_behind(world: World) {
    let marks = world.read_once("group").await;
    // To this group nothing was told, and the dead letter is its own to copy.
    let fold = Later::has(marks[2]);
    let reader = world.join("another group", &fold);
    let settling = reader.committed_offsets();
    eventually("the group is told", || settling.committed(0) == Some(4)).await;
    let told = fold.told();
    let again = told.iter().rposition(|told| told == "assigned").expect("an assignment");
    assert_eq!(told[again..], ALL_AFTER_ALL[3..]);
    assert!(told[..again].iter().any(|told| told == "void"), "{told:?}");
    reader.stop().await;
    assert_eq!(world.letters().await, 2, "once for each group");
}

async fn stale(world: World) {
    let marks = world.read_once("group").await;
    let fold = Later::has(marks[2]);
    let reader = world.join("group", &fold);
    until_told(&fold, &["assigned", "d", "live"]).await;
    fold.0.lock().stale = Some(0);
    let whole = [&["assigned", "d", "live"], &ALL_AFTER_ALL[1..]].concat();
    until_told(&fold, &whole).await;
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
    super::what_follows as a_fold_that_has_something_is_given_what_follows,
    super::nothing_follows as a_fold_that_has_everything_is_live_without_a_record,
    super::another_log as what_the_log_does_not_prove_is_void_and_read_from_the_beginning,
    super::group_behind as a_start_beyond_what_the_group_was_told_is_void,
    super::stale as a_fold_may_have_a_partition_started_over,
}

/// What only a real broker can do to a topic. One after the other, because the names are the same.
#[tokio::test]
#[ignore = "needs a real broker"]
async fn what_retention_removed_or_a_new_topic_does_not_have_is_void() {
    let world = World::real().await;
    let group = || format!("group-{}", uuid::Uuid::now_v7());
    let name = group();
    let marks = world.read_once(&name).await;
    let fold = Later::has(marks[1]);
    let reader = world.join(&name, &fold);
    until_told(&fold, &["assigned", "c", "d", "live"]).await;
    reader.stop().await;

    let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", &brokers).create().expect("a client");
    let mut until = TopicPartitionList::new();
    until.add_partition_offset(TOPIC, 0, Offset::Offset(2)).expect("a place");
    admin.delete_records(&until, &AdminOptions::new()).await.expect("removed");
    let fold = Later::has(marks[1]);
    let reader = world.join(&name, &fold);
    until_told(&fold, &["assigned", "void", "revoked", "assigned", "c", "d", "live"]).await;
    reader.stop().await;
    let fold = Later::has(marks[2]);
    let reader = world.join(&name, &fold);
    until_told(&fold, &["assigned", "d", "live"]).await;
    reader.stop().await;

    admin.delete_topics(&[TOPIC], &AdminOptions::new()).await.expect("deleted");
    let deadline = Instant::now() + DEADLINE;
    // A client that knew it may still find it for a moment.
    while world.log.ensure_topics(&[topic(TOPIC)]).await.is_err() {
        assert!(Instant::now() < deadline, "the topic is not made again");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Shorter than what is kept, as long, and longer.
    let new = ["x", "y", "z", "1", "2", "3"];
    let mut expected = vec!["assigned", "void", "revoked", "assigned"];
    for value in new {
        let headers = vec![("ce_id", value.as_bytes().to_vec().into())];
        let record = NewRecord { partition: 0, key: b"7".to_vec(), value: value.into(), headers };
        let settings = KafkaSettings { brokers: brokers.clone(), ..KafkaSettings::default() };
        let log = Log::Kafka(Kafka::new(settings).expect("the clients"));
        log.writer().append(TOPIC, record).expect("queued").await.expect("acknowledged");
        expected.push(value);
        let fold = Later::has(marks[2]);
        let follower = log.follow_topic(TOPIC, fold.clone()).expect("a follower");
        follower.assign(0);
        until_told(&fold, &[&expected[..], &["live"]].concat()).await;
        follower.stop().await;
    }
}
