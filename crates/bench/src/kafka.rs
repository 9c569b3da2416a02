//! Bare rdkafka: the topics of a run, and the clients that are the limit of what any service on
//! librdkafka can do. [`whole_topic`] fills and reads topics, [`append_loop`] appends in a loop.
//!
//! In the services only the `log` crate names rdkafka. This is the one exception, because a limit
//! that went through `log` would hide what `log` costs. The services never depend on this
//! crate.

mod append_loop;
mod whole_topic;

use std::time::{Duration, Instant};

use model::{Partitioner, record::EncodedRecord};
use rdkafka::{
    ClientConfig, Message as _, TopicPartitionList,
    admin::{AdminClient, AdminOptions, NewTopic, TopicReplication},
    client::DefaultClientContext,
    config::FromClientConfig as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _},
};

use crate::{
    Result,
    client_settings::{BASE, CONSUMER, PRODUCER},
    listeners::number,
};

/// As many as the services make by default.
pub(crate) const PARTITIONS: u32 = 12;

/// A topic of this run.
#[derive(Debug, Clone)]
pub(crate) struct Topic {
    pub(crate) name: String,
    pub(crate) partitions: u32,
}

/// How long one request to a broker may take.
const ASK: Duration = Duration::from_secs(10);
/// How long one poll waits at most.
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
    pub(crate) async fn create(&self, topic: &Topic) -> Result<()> {
        let admin = AdminClient::<DefaultClientContext>::from_config(&self.config(&[]))?;
        let partitions = i32::try_from(topic.partitions)?;
        let new = NewTopic::new(&topic.name, partitions, TopicReplication::Fixed(1));
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

    /// A producer that is connected already.
    pub(crate) fn appender(&self, topic: &Topic) -> Result<FutureProducer> {
        let producer = FutureProducer::from_config(&self.config(PRODUCER))?;
        producer.client().fetch_metadata(Some(&topic.name), ASK)?;
        Ok(producer)
    }

    /// Hands a record over; it is acknowledged later.
    pub(crate) fn append(
        producer: &FutureProducer,
        topic: &Topic,
        record: &EncodedRecord,
    ) -> Result<DeliveryFuture> {
        let message = FutureRecord::to(&topic.name)
            .partition(home(topic, record))
            .key(&record.key)
            .payload(&record.value)
            .headers(headers(record));
        producer.send_result(message).map_err(|(error, _)| error.into())
    }

    /// A consumer of what comes from now on.
    pub(crate) fn at_end(&self, topic: &Topic) -> Result<BaseConsumer> {
        let mut config = self.config(CONSUMER);
        let consumer = BaseConsumer::from_config(config.set("group.id", "bench-none"))?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(topic.partitions)? {
            let (_, end) = consumer.fetch_watermarks(&topic.name, partition, ASK)?;
            all.add_partition_offset(&topic.name, partition, rdkafka::Offset::Offset(end))?;
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
}

fn home(topic: &Topic, record: &EncodedRecord) -> i32 {
    Partitioner::default().partition_for(&record.key, topic.partitions)
}

fn headers(record: &EncodedRecord) -> OwnedHeaders {
    let headers = OwnedHeaders::new_with_capacity(record.headers.len());
    record.headers.iter().fold(headers, |headers, (key, value)| {
        headers.insert(Header { key, value: Some(&**value) })
    })
}
