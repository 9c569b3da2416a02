//! Bare rdkafka: the topics of a run, the records that fill them, and the loops that are the limit
//! of what any service on librdkafka can do.
//!
//! In the services only the `log` crate names rdkafka. This is the one exception, because a limit
//! that went through `log` would hide what `log` costs. The services never depend on this
//! crate.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use futures_util::{StreamExt as _, stream::FuturesUnordered};
use model::{Partitioner, record::Encoded};
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{
        BaseProducer, BaseRecord, DeliveryFuture, FutureProducer, FutureRecord, Producer as _,
    },
    types::RDKafkaErrorCode,
    util::Timeout,
};

use crate::{
    Result,
    client_settings::{BASE, CONSUMER, PRODUCER},
    figures::Sample,
    listeners::number,
    load::Meter,
};

/// As many as the services make by default.
pub(crate) const PARTITIONS: u32 = 12;

/// How long one request to a broker may take.
const ASK: Duration = Duration::from_secs(10);
/// How long a topic may take to be filled or read.
const WHOLE_TOPIC: Duration = Duration::from_secs(180);
/// The most that may be queued by whoever fills a topic; it is the queue's own bound.
const POLL: Duration = Duration::from_millis(10);

/// Whoever speaks with these brokers. A cheap handle, to be cloned.
#[derive(Debug, Clone)]
pub(crate) struct Kafka {
    brokers: String,
}

impl Kafka {
    /// Does not connect yet.
    pub(crate) fn new(brokers: &str) -> Self {
        Self { brokers: brokers.to_owned() }
    }

    fn config(&self, settings: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.brokers).set("client.id", "bench");
        for (name, value) in BASE.iter().chain(settings) {
            config.set(*name, *value);
        }
        config
    }

    /// Makes an empty topic, as the services would.
    pub(crate) async fn create(&self, topic: &str) -> Result<()> {
        let admin = AdminClient::<DefaultClientContext>::from_config(&self.config(&[]))?;
        let partitions = i32::try_from(PARTITIONS)?;
        let new = NewTopic::new(topic, partitions, TopicReplication::Fixed(1));
        let options = AdminOptions::new().operation_timeout(Some(ASK)).request_timeout(Some(ASK));
        for made in admin.create_topics([&new], &options).await? {
            made.map_err(|(topic, code)| format!("topic {topic} cannot be made: {code}"))?;
        }
        Ok(())
    }

    /// Removes topics, for brokers that live on after this run. Those that are not there are fine.
    pub(crate) async fn delete(&self, topics: &[&str]) -> Result<()> {
        let admin = AdminClient::<DefaultClientContext>::from_config(&self.config(&[]))?;
        admin.delete_topics(topics, &AdminOptions::new().request_timeout(Some(ASK))).await?;
        Ok(())
    }

    /// Appends all of these and makes sure that the topic, which was empty, holds them. Blocks.
    pub(crate) fn fill(&self, topic: &str, records: impl Iterator<Item = Encoded>) -> Result<u64> {
        let producer = BaseProducer::from_config(&self.config(PRODUCER))?;
        let started = Instant::now();
        let mut written = 0;
        for record in records {
            let mut next = Some(
                BaseRecord::to(topic)
                    .partition(home(&record))
                    .key(&record.key)
                    .payload(&record.value)
                    .headers(headers(&record)),
            );
            while let Some(record) = next.take() {
                match producer.send(record) {
                    Ok(()) => written += 1,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                        producer.poll(POLL);
                        next = Some(record);
                    }
                    Err((error, _)) => return Err(error.into()),
                }
                if started.elapsed() > WHOLE_TOPIC {
                    return Err("filling the topic took too long; try fewer --records".into());
                }
            }
            if written % 10_000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(WHOLE_TOPIC)?;
        let mut held = 0;
        for partition in 0..i32::try_from(PARTITIONS)? {
            held += producer.client().fetch_watermarks(topic, partition, ASK)?.1;
        }
        if u64::try_from(held)? == written {
            return Ok(written);
        }
        Err(format!("the topic holds {held} records of {written}: the broker lost or refused some")
            .into())
    }

    /// Reads the whole topic and drops what it reads; returns how long that took, from a client
    /// that was already connected. Blocks.
    pub(crate) fn read(&self, topic: &str, records: u64) -> Result<Duration> {
        let mut config = self.config(CONSUMER);
        // librdkafka wants a group's name even of those that join none.
        let consumer = BaseConsumer::from_config(config.set("group.id", "bench-none"))?;
        consumer.fetch_metadata(Some(topic), ASK)?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(PARTITIONS)? {
            all.add_partition_offset(topic, partition, rdkafka::Offset::Beginning)?;
        }
        let started = Instant::now();
        consumer.assign(&all)?;
        let (mut seen, mut bytes) = (0, 0);
        while seen < records {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    seen += 1;
                    bytes += message.payload().map_or(0, <[u8]>::len);
                }
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(error.into()),
            }
            if started.elapsed() > WHOLE_TOPIC {
                return Err(format!("only {seen} of {records} records came").into());
            }
        }
        // Looked at, so that no compiler can decide that nobody wanted the payload.
        std::hint::black_box(bytes);
        Ok(started.elapsed())
    }

    /// A producer that is connected already.
    pub(crate) fn appender(&self, topic: &str) -> Result<FutureProducer> {
        let producer = FutureProducer::from_config(&self.config(PRODUCER))?;
        producer.client().fetch_metadata(Some(topic), ASK)?;
        Ok(producer)
    }

    /// Hands a record over; it is acknowledged later.
    pub(crate) fn append(
        producer: &FutureProducer,
        topic: &str,
        record: &Encoded,
    ) -> Result<DeliveryFuture> {
        let message = FutureRecord::to(topic)
            .partition(home(record))
            .key(&record.key)
            .payload(&record.value)
            .headers(headers(record));
        producer.send_result(message).map_err(|(error, _)| error.into())
    }

    /// A consumer of what comes from now on.
    pub(crate) fn at_end(&self, topic: &str) -> Result<BaseConsumer> {
        let mut config = self.config(CONSUMER);
        let consumer = BaseConsumer::from_config(config.set("group.id", "bench-none"))?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(PARTITIONS)? {
            let (_, end) = consumer.fetch_watermarks(topic, partition, ASK)?;
            all.add_partition_offset(topic, partition, rdkafka::Offset::Offset(end))?;
        }
        consumer.assign(&all)?;
        Ok(consumer)
    }

    /// The numbers in the next so many records' messages, each with when it came. Blocks.
    pub(crate) fn numbers(
        consumer: &BaseConsumer,
        count: usize,
        grace: Duration,
    ) -> Result<Vec<(usize, Instant)>> {
        let (mut seen, mut last) = (Vec::with_capacity(count), Instant::now());
        while seen.len() < count {
            match consumer.poll(POLL) {
                Some(Ok(message)) => {
                    last = Instant::now();
                    seen.extend(message.payload().and_then(number).map(|number| (number, last)));
                }
                None | Some(Err(KafkaError::PartitionEOF(_))) => {}
                Some(Err(error)) => return Err(error.into()),
            }
            if last.elapsed() > grace {
                return Err(format!("only {} of {count} records came", seen.len()).into());
            }
        }
        Ok(seen)
    }

    /// Appends these over and over, `in_flight` at a time, each again when it is acknowledged.
    pub(crate) async fn append_loop(
        &self,
        topic: &str,
        records: Vec<Encoded>,
        in_flight: usize,
        round: Duration,
    ) -> Result<Sample> {
        let (kafka, topic) = (self.clone(), topic.to_owned());
        tokio::task::spawn_blocking(move || {
            // The first record would otherwise also pay for the connection.
            let producer = kafka.appender(&topic)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let sample =
                runtime.block_on(append_round(&producer, &topic, &records, in_flight, round));
            producer.flush(Timeout::After(ASK))?;
            sample
        })
        .await?
    }
}

async fn append_round(
    producer: &FutureProducer,
    topic: &str,
    records: &[Encoded],
    in_flight: usize,
    round: Duration,
) -> Result<Sample> {
    let meter = Meter::start(round)?;
    let refused = Cell::new(None);
    let one = async |record: &Encoded| {
        while meter.goes_on() {
            let asked = Instant::now();
            match Kafka::append(producer, topic, record) {
                Ok(delivery) => meter.note(asked, matches!(delivery.await, Ok(Ok(_)))),
                Err(error) => return refused.set(Some(error)),
            }
        }
    };
    let mut running: FuturesUnordered<_> =
        records.iter().cycle().take(in_flight).map(one).collect();
    while running.next().await.is_some() {}
    drop(running);
    match refused.take() {
        Some(error) => Err(error),
        None => meter.finish(),
    }
}

fn home(record: &Encoded) -> i32 {
    Partitioner::default().partition(&record.key, PARTITIONS)
}

fn headers(record: &Encoded) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(headers, |headers, (key, value)| {
        headers.insert(Header { key, value: Some(&**value) })
    })
}
