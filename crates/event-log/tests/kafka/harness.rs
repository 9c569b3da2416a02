//! A broker, a handler that records its calls, and waiting for a condition.

use std::{
    collections::HashSet,
    sync::Arc,
    time::{Duration, Instant},
};

use event_log::{
    Behind, Group, Log, NewRecord, PartitionHandler, Reader, Record, RecordOutcome, StartAt, Topic,
    Watermarks,
    kafka::{Kafka, KafkaSettings},
    mock::Cluster,
    topic::Cleanup,
};
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, Consumer as _},
};

/// Longer than anything here takes, on a busy machine too.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
pub(crate) const SESSION_TIMEOUT: Duration = Duration::from_millis(2500);
pub(crate) const TOPIC: &str = "notifications";
pub(crate) const DLQ: &str = "notifications.dlq";

/// A broker with the two topics, and a group of its own.
pub(crate) struct World {
    pub(crate) log: Log,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) dlq: String,
    pub(crate) group: Group,
    pub(crate) partitions: i32,
    /// None: a real broker.
    pub(crate) mock: Option<Cluster>,
}

impl World {
    pub(crate) fn mock(partitions: u32) -> Self {
        let cluster = Cluster::start().expect("the broker starts");
        cluster.create_topic(TOPIC, partitions).expect("the topic is made");
        cluster.create_topic(DLQ, partitions).expect("the topic is made");
        let brokers = cluster.brokers();
        Self::new(TOPIC.to_owned(), partitions, brokers, Some(cluster))
    }

    /// The broker of `TEST_KAFKA_BROKERS`, and topics of this test's own.
    pub(crate) async fn real(partitions: u32) -> Self {
        let brokers = std::env::var("TEST_KAFKA_BROKERS").expect("TEST_KAFKA_BROKERS");
        let world = Self::new(format!("test-{}", uuid::Uuid::now_v7()), partitions, brokers, None);
        let topics = [&world.topic, &world.dlq].map(|name| topic(name, partitions));
        world.log.ensure_topics(&topics).await.expect("the topics are made");
        world
    }

    fn new(topic: String, partitions: u32, brokers: String, mock: Option<Cluster>) -> Self {
        let log = connect(&brokers);
        let dlq = format!("{topic}.dlq");
        let group = Group { id: format!("{topic}-group"), instance: None };
        let partitions = i32::try_from(partitions).expect("a number of partitions");
        Self { log, brokers, topic, dlq, group, partitions, mock }
    }

    pub(crate) fn join(&self, memory: &Memory) -> Reader {
        self.join_with(&self.log, memory)
    }

    /// Joins with clients of another process, as it were.
    pub(crate) fn join_with(&self, log: &Log, memory: &Memory) -> Reader {
        let topic = topic(&self.topic, self.partitions.unsigned_abs());
        log.join_group(&topic, &self.group, Some(&self.dlq), memory.clone()).expect("a member")
    }

    pub(crate) async fn append(&self, partition: i32, value: &str) {
        append(&self.log, &self.topic, partition, value).await;
    }

    /// Everything in the dead-letter queue, in order: each key once.
    pub(crate) async fn dead_letters(&self) -> Vec<Seen> {
        let mut keys = HashSet::new();
        let mut copies = self.copies().await;
        copies.retain(|seen| keys.insert(seen.key.clone()));
        copies
    }

    /// Everything in the dead-letter queue, second copies too.
    pub(crate) async fn copies(&self) -> Vec<Seen> {
        let memory = Memory::default();
        let follower = self.log.follow_topic(&self.dlq, memory.clone()).expect("a follower");
        for partition in 0..self.partitions {
            follower.assign(partition);
        }
        let live = || (0..self.partitions).all(|partition| memory.has(&Call::Live(partition)));
        eventually("the dead-letter queue is read", live).await;
        follower.stop().await;
        memory.records()
    }

    /// The values in a partition of the dead-letter queue: each key once.
    pub(crate) async fn dead_letters_of(&self, partition: i32) -> Vec<String> {
        let letters = self.dead_letters().await.into_iter();
        letters.filter(|seen| seen.partition == partition).map(|seen| seen.value).collect()
    }

    /// The group's committed offset; 0 where there is none.
    pub(crate) fn committed(&self, partition: i32) -> i64 {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", &self.group.id)
            .create()
            .expect("a consumer");
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        let list = consumer.committed_offsets(list, DEADLINE).expect("the committed offsets");
        match list.elements()[0].offset() {
            Offset::Offset(offset) => offset,
            _ => 0,
        }
    }
}

pub(crate) fn connect(brokers: &str) -> Log {
    let (brokers, client_id) = (brokers.to_owned(), "test".to_owned());
    // The in-memory broker lets every rebalance but the first wait for most of a session.
    let session = SESSION_TIMEOUT.as_millis().to_string();
    let properties = [("session.timeout.ms", &*session), ("heartbeat.interval.ms", "300")];
    let properties = properties.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
    let settings = KafkaSettings { brokers, client_id, properties, ..KafkaSettings::default() };
    Log::Kafka(Kafka::new(settings).expect("the clients"))
}

pub(crate) fn topic(name: &str, partitions: u32) -> Topic {
    let cleanup = Cleanup::After(Duration::from_secs(3600));
    Topic { name: name.to_owned(), partitions, replication: 1, cleanup }
}

/// Appends and waits for the acknowledgement.
pub(crate) async fn append(log: &Log, topic: &str, partition: i32, value: &str) {
    let headers = vec![("ce_id", b"abc".into())];
    let record = NewRecord { partition, key: b"7".to_vec(), value: value.into(), headers };
    log.writer().append(topic, record).expect("queued").await.expect("acknowledged");
}

/// A record as it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) value: String,
    pub(crate) headers: Vec<(String, String)>,
}

/// A call of the handler.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Call {
    Assigned(i32),
    Watermarks(i32, Watermarks),
    Record(Seen),
    Live(i32),
    Revoked(i32),
    /// The cause; `None`: it follows its log again.
    Behind(i32, Option<String>),
    Lost(i32, i64),
}

/// A handler that records its calls, in order, and its lease. What says that it is poison is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Memory(Arc<Mutex<Vec<Call>>>, Arc<Mutex<Option<Instant>>>);

impl Memory {
    /// Until when it may answer. `None` before it was told so, and after its lease has ended.
    pub(crate) fn lease(&self) -> Option<Instant> {
        self.1.lock().filter(|until| Instant::now() < *until)
    }

    pub(crate) fn calls(&self) -> Vec<Call> {
        self.0.lock().clone()
    }

    pub(crate) fn has(&self, wanted: &Call) -> bool {
        self.0.lock().contains(wanted)
    }

    pub(crate) fn count(&self) -> usize {
        self.0.lock().iter().filter(|call| matches!(call, Call::Record(_))).count()
    }

    pub(crate) fn records(&self) -> Vec<Seen> {
        let record = |call| if let Call::Record(seen) = call { Some(seen) } else { None };
        self.calls().into_iter().filter_map(record).collect()
    }

    /// The values that were read of a partition since it was last assigned.
    pub(crate) fn since_assigned(&self, partition: i32) -> Vec<String> {
        let calls = self.calls();
        let start = calls.iter().rposition(|call| *call == Call::Assigned(partition));
        let calls = start.map_or(&[][..], |start| &calls[start..]);
        let values = calls.iter().filter_map(|call| match call {
            Call::Record(seen) if seen.partition == partition => Some(seen.value.clone()),
            _ => None,
        });
        values.collect()
    }

    /// Which partitions are assigned and live.
    pub(crate) fn live(&self) -> Vec<i32> {
        let mut live = Vec::new();
        for call in &*self.0.lock() {
            match call {
                Call::Live(partition) => live.push(*partition),
                Call::Assigned(partition) | Call::Revoked(partition) => {
                    live.retain(|live| live != partition);
                }
                Call::Watermarks(..) | Call::Record(_) | Call::Behind(..) | Call::Lost(..) => {}
            }
        }
        live
    }

    /// Why the partition is behind its log, if it is.
    pub(crate) fn behind(&self, partition: i32) -> Option<String> {
        let mut behind = None;
        for call in &*self.0.lock() {
            match call {
                Call::Behind(number, cause) if *number == partition => behind.clone_from(cause),
                Call::Assigned(number) if *number == partition => behind = None,
                _ => {}
            }
        }
        behind
    }

    /// How often the partition fell behind its log.
    pub(crate) fn count_behind(&self, partition: i32) -> usize {
        let calls = self.0.lock();
        let told = calls.iter().filter_map(|call| match call {
            Call::Behind(number, cause) if *number == partition => Some(cause.is_some()),
            _ => None,
        });
        // Several causes may follow each other in one episode.
        told.fold((0, false), |(count, was), is| (count + usize::from(is && !was), is)).0
    }
}

impl PartitionHandler for Memory {
    fn on_assigned(&mut self, partition: i32) -> StartAt {
        self.0.lock().push(Call::Assigned(partition));
        StartAt::Beginning
    }

    fn on_watermarks(&mut self, partition: i32, watermarks: Watermarks) {
        self.0.lock().push(Call::Watermarks(partition, watermarks));
    }

    fn on_record(&mut self, record: &Record<'_>) -> RecordOutcome {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let headers = record.headers.iter();
        let seen = Seen {
            partition: record.partition,
            offset: record.offset,
            key: record.key.map_or_else(String::new, text),
            value: record.value.map_or_else(|| "null".into(), text),
            headers: headers.map(|(name, value)| ((*name).to_owned(), text(value))).collect(),
        };
        let poison = seen.value.contains("poison") || seen.value == "null";
        self.0.lock().push(Call::Record(seen));
        if poison { RecordOutcome::Poison("it is poison".into()) } else { RecordOutcome::Applied }
    }

    fn on_live(&mut self, partition: i32) {
        self.0.lock().push(Call::Live(partition));
    }

    fn renew_lease(&mut self, until: Instant) {
        *self.1.lock() = Some(until);
    }

    fn on_revoked(&mut self, partition: i32) {
        self.0.lock().push(Call::Revoked(partition));
    }

    fn wants_behind(&self) -> bool {
        true
    }

    fn on_behind(&mut self, partition: i32, behind: Option<&Behind>) {
        self.0.lock().push(Call::Behind(partition, behind.map(|behind| behind.cause.clone())));
    }

    fn on_lost_records(&mut self, partition: i32, next: i64) {
        self.0.lock().push(Call::Lost(partition, next));
    }
}

/// Waits until the condition holds.
pub(crate) async fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let until = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < until, "not in time: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
