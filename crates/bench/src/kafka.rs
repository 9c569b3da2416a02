//! Bare rdkafka: the topics of a run, and the clients that are the limit of any service on
//! librdkafka.
//!
//! In the services only `event-log` names rdkafka. This crate is the exception, because a limit on
//! top of `event-log` would hide the cost of `event-log`. The services never depend on this crate.

mod client_settings;

use std::time::{Duration, Instant};

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use model::{Partitioner, record::EncodedRecord};
use rdkafka::{
    ClientConfig, Message as _, Offset, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{BorrowedMessage, Header, Headers as _, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _},
    util::Timeout,
};

use serde::{Deserialize, Serialize};

use crate::{
    Result,
    figures::Sample,
    http::parse_number,
    load::{LoadProfile, Ready, measure_process},
};

use client_settings::{BASE, CONSUMER, PRODUCER};

/// The services' default partition count.
pub(crate) const PARTITIONS: u32 = 12;
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
const POLL_TIMEOUT: Duration = Duration::from_millis(10);
/// Records in flight while a topic is filled: half of librdkafka's queue.
const FILL_IN_FLIGHT: usize = 50_000;

/// Between two points of a curve: finer than a chart shows.
const CURVE_INTERVAL: Duration = Duration::from_millis(20);

/// A topic of this run.
#[derive(Debug, Clone)]
pub(crate) struct BenchTopic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
}

/// Makes clients of these brokers. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct BareKafka {
    brokers: String,
}

impl BareKafka {
    /// Does not connect yet.
    pub(crate) fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned() }
    }

    fn client_config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "bench");
        for (name, value) in BASE.iter().chain(settings) {
            config.set(*name, *value);
        }
        config
    }

    /// Creates an empty topic, as the services would.
    pub(crate) async fn create_topic(&self, topic: &BenchTopic) -> Result<()> {
        let admin = AdminClient::<DefaultClientContext>::from_config(&self.client_config(&[]))?;
        let partitions = i32::try_from(topic.partitions)?;
        let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(1));
        let timeout = Some(REQUEST_TIMEOUT);
        let options = AdminOptions::new().operation_timeout(timeout).request_timeout(timeout);
        for created in admin.create_topics([&new], &options).await? {
            created.map_err(|(topic, code)| format!("topic {topic} cannot be made: {code}"))?;
        }
        Ok(())
    }

    /// Deletes topics. A missing topic is no error.
    pub(crate) async fn delete_topics(&self, topics: &[String]) -> Result<()> {
        let admin = AdminClient::<DefaultClientContext>::from_config(&self.client_config(&[]))?;
        let topics: Vec<_> = topics.iter().map(String::as_str).collect();
        let options = AdminOptions::new().request_timeout(Some(REQUEST_TIMEOUT));
        admin.delete_topics(&topics, &options).await?;
        Ok(())
    }

    /// A producer that is connected to the topic's brokers, so that the first record does not pay
    /// for the connection.
    pub(crate) fn connect_producer(&self, topic: &BenchTopic) -> Result<FutureProducer> {
        let producer = FutureProducer::from_config(&self.client_config(PRODUCER))?;
        producer.client().fetch_metadata(Some(&topic.name), REQUEST_TIMEOUT)?;
        Ok(producer)
    }

    /// Enqueues a record; the returned future resolves when the broker has acknowledged it.
    pub(crate) fn append(
        producer: &FutureProducer,
        topic: &BenchTopic,
        record: &EncodedRecord,
    ) -> Result<DeliveryFuture> {
        producer.send_result(to_message(topic, record)).map_err(|(error, _)| error.into())
    }

    /// The bare loop: appends these records over and over; each worker has one record in flight.
    /// Measures this process.
    pub(crate) async fn run_append_loop(
        &self,
        broker: Option<u32>,
        topic: &BenchTopic,
        records: Vec<EncodedRecord>,
        profile: LoadProfile,
    ) -> Result<Sample> {
        let (kafka, topic) = (self.clone(), topic.clone());
        measure_process(std::process::id(), broker, async move |ready: Ready<'_>| {
            let producer = kafka.connect_producer(&topic)?;
            let append = |first: usize| {
                let (producer, topic, records, mut next) = (&producer, &topic, &records, first);
                async move || {
                    let record = &records[next % records.len()];
                    next += profile.connections;
                    Ok(matches!(Self::append(producer, topic, record)?.await, Ok(Ok(_))))
                }
            };
            let workers = (0..profile.connections).map(append).collect();
            ready.begin()?;
            let sample = profile.run_workers(workers).await;
            producer.flush(Timeout::After(REQUEST_TIMEOUT))?;
            sample
        })
        .await
    }

    /// Appends all records to an empty topic, and verifies by the watermarks that it holds them.
    pub(crate) async fn fill_topic(
        &self,
        topic: &BenchTopic,
        records: impl Iterator<Item = Result<EncodedRecord>>,
    ) -> Result<()> {
        let producer = self.connect_producer(topic)?;
        let append = async |record: Result<EncodedRecord>| -> Result<()> {
            let record = record?;
            let delivery = producer.send(to_message(topic, &record), REQUEST_TIMEOUT);
            delivery.await.map(|_| ()).map_err(|(error, _)| error.into())
        };
        let appended = stream::iter(records).map(append).buffer_unordered(FILL_IN_FLIGHT);
        let written = appended.try_fold(0, async |written, ()| Ok(written + 1)).await?;
        let (client, mut held) = (producer.client(), 0);
        for partition in 0..i32::try_from(topic.partitions)? {
            held += client.fetch_watermarks(&topic.name, partition, REQUEST_TIMEOUT)?.1;
        }
        if held == written {
            return Ok(());
        }
        Err(format!("the topic holds {held} records of {written}: the broker lost or refused some")
            .into())
    }

    /// A connected consumer, and an assignment of the whole topic from its beginning or its present
    /// end.
    fn consumer(
        &self,
        topic: &BenchTopic,
        from_end: bool,
    ) -> Result<(BaseConsumer, TopicPartitionList)> {
        let mut config = self.client_config(CONSUMER);
        // librdkafka requires a group name even from a consumer that joins no group.
        let consumer = BaseConsumer::from_config(config.set("group.id", "bench-none"))?;
        consumer.fetch_metadata(Some(&topic.name), REQUEST_TIMEOUT)?;
        let mut assignment = TopicPartitionList::new();
        for partition in 0..i32::try_from(topic.partitions)? {
            let mut offset = Offset::Beginning;
            if from_end {
                let (_, high) =
                    consumer.fetch_watermarks(&topic.name, partition, REQUEST_TIMEOUT)?;
                offset = Offset::Offset(high);
            }
            assignment.add_partition_offset(&topic.name, partition, offset)?;
        }
        Ok((consumer, assignment))
    }

    /// A consumer of the records that are appended from now on.
    pub(crate) fn consume_from_end(&self, topic: &BenchTopic) -> Result<BaseConsumer> {
        let (consumer, assignment) = self.consumer(topic, true)?;
        consumer.assign(&assignment)?;
        Ok(consumer)
    }

    /// Reads this many records; returns the number in each one's message, and when it came. Blocks.
    /// Fails if no record comes for `timeout`.
    pub(crate) fn read_numbers(
        consumer: &BaseConsumer,
        count: usize,
        timeout: Duration,
    ) -> Result<Vec<(usize, Instant)>> {
        let (mut numbers, mut last) = (Vec::with_capacity(count), Instant::now());
        while numbers.len() < count {
            if let Some(message) = poll_message(consumer)? {
                last = Instant::now();
                let number = message.payload().and_then(parse_number);
                numbers.extend(number.map(|number| (number, last)));
            }
            if last.elapsed() > timeout {
                return Err(format!("only {} of {count} records came", numbers.len()).into());
            }
        }
        Ok(numbers)
    }

    /// Reads the whole topic and touches the key, the headers and the value of each record. Returns
    /// the records over time since the assignment, on a client that was connected before. Blocks.
    pub(crate) fn read_topic(&self, topic: &BenchTopic, records: u64) -> Result<ReadCurve> {
        let (consumer, assignment) = self.consumer(topic, false)?;
        let mut curve = ReadCurve::start();
        consumer.assign(&assignment)?;
        let (mut seen, mut touched) = (0, 0);
        while seen < records {
            if let Some(message) = poll_message(&consumer)? {
                seen += 1;
                let parts = [message.key(), message.payload()].into_iter().flatten();
                touched += parts.map(touch).sum::<u64>();
                // librdkafka parses headers only when they are asked for.
                for header in message.headers().iter().flat_map(|headers| headers.iter()) {
                    touched += touch(header.key.as_bytes()) + header.value.map_or(0, touch);
                }
            }
            if curve.add_point(seen) > transfer_timeout(records) {
                return Err(format!("only {seen} of {records} records came").into());
            }
        }
        // Keeps the compiler from removing the access.
        std::hint::black_box(touched);
        curve.add_last_point(records);
        Ok(curve)
    }
}

/// Reads a byte of each cache line.
fn touch(bytes: &[u8]) -> u64 {
    bytes.iter().step_by(64).map(|byte| u64::from(*byte)).sum()
}

/// Records read over time.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct ReadCurve {
    #[serde(skip, default = "Instant::now")]
    started: Instant,
    /// Seconds and records.
    pub(crate) points: Vec<(f64, f64)>,
    /// Processor time of the process, in nanoseconds.
    pub(crate) cpu_ns: u64,
}

impl ReadCurve {
    /// A curve that begins now with no records.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), points: vec![(0.0, 0.0)], cpu_ns: 0 }
    }

    /// Adds a point unless the last one is less than [`CURVE_INTERVAL`] old. Returns the time since
    /// the start.
    pub(crate) fn add_point(&mut self, records: u64) -> Duration {
        let now = self.started.elapsed();
        if self
            .points
            .last()
            .is_none_or(|(last, _)| now.as_secs_f64() >= last + CURVE_INTERVAL.as_secs_f64())
        {
            self.points.push((now.as_secs_f64(), records as f64));
        }
        now
    }

    /// Adds the last point in any case.
    pub(crate) fn add_last_point(&mut self, records: u64) {
        self.points.push((self.started.elapsed().as_secs_f64(), records as f64));
    }

    /// Seconds from the start to the last point.
    pub(crate) fn seconds(&self) -> f64 {
        self.points.last().map_or(0.0, |(at, _)| *at)
    }
}

/// How long writing or reading this many records may take: a minute, and the rest at a tenth of a
/// slow machine's speed.
pub(crate) fn transfer_timeout(records: u64) -> Duration {
    Duration::from_secs(60 + records / 5_000)
}

/// The next record; `None` if there is none yet.
fn poll_message(consumer: &BaseConsumer) -> Result<Option<BorrowedMessage<'_>>> {
    match consumer.poll(POLL_TIMEOUT) {
        None | Some(Err(KafkaError::PartitionEOF(_))) => Ok(None),
        Some(message) => Ok(Some(message?)),
    }
}

fn to_message<'a>(
    topic: &'a BenchTopic,
    record: &'a EncodedRecord,
) -> FutureRecord<'a, [u8], [u8]> {
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    let headers = record.headers.iter().fold(headers, |headers, (key, value)| {
        headers.insert(Header { key, value: Some(&**value) })
    });
    FutureRecord::to(&topic.name)
        .partition(Partitioner::default().partition_for(&record.key, topic.partitions))
        .key(&record.key[..])
        .payload(&record.value[..])
        .headers(headers)
}
