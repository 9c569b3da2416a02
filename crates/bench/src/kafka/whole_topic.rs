//! Fills a whole topic, and reads one, as fast as librdkafka does it. Both block their thread.

use std::time::{Duration, Instant};

use model::record::EncodedRecord;
use rdkafka::{
    Message as _, TopicPartitionList,
    config::FromClientConfig as _,
    consumer::{BaseConsumer, Consumer as _},
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::RDKafkaErrorCode,
};

use super::{ASK, Kafka, POLL, Topic, headers, home};
use crate::{
    Result,
    client_settings::{CONSUMER, PRODUCER},
    progress::{Progress, patience},
};

impl Kafka {
    /// Appends all of these and makes sure that the topic, which was empty, holds them. Blocks.
    pub(crate) fn fill(
        &self,
        topic: &Topic,
        records: impl Iterator<Item = EncodedRecord>,
    ) -> Result<u64> {
        let producer = BaseProducer::from_config(&self.config(PRODUCER))?;
        let started = Instant::now();
        let mut written = 0;
        for record in records {
            let mut next = Some(
                BaseRecord::to(&topic.name)
                    .partition(home(topic, &record))
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
                if started.elapsed() > patience(written) {
                    return Err(format!("a topic takes no more after {written} records").into());
                }
            }
            if written % 10_000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(patience(written))?;
        let mut held = 0;
        for partition in 0..i32::try_from(topic.partitions)? {
            held += producer.client().fetch_watermarks(&topic.name, partition, ASK)?.1;
        }
        if u64::try_from(held)? == written {
            return Ok(written);
        }
        Err(format!("the topic holds {held} records of {written}: the broker lost or refused some")
            .into())
    }

    /// Reads the whole topic and drops what it reads; returns how far it was when, from when a
    /// client that was already connected began. Blocks.
    pub(crate) fn read(&self, topic: &Topic, records: u64) -> Result<Progress> {
        let mut config = self.config(CONSUMER);
        // librdkafka wants a group's name even of those that join none.
        let consumer = BaseConsumer::from_config(config.set("group.id", "bench-none"))?;
        consumer.fetch_metadata(Some(&topic.name), ASK)?;
        let mut all = TopicPartitionList::new();
        for partition in 0..i32::try_from(topic.partitions)? {
            all.add_partition_offset(&topic.name, partition, rdkafka::Offset::Beginning)?;
        }
        let mut progress = Progress::start();
        let patience = patience(records);
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
            if progress.note(seen) > patience {
                return Err(format!("only {seen} of {records} records came").into());
            }
        }
        // Looked at, so that no compiler can decide that nobody wanted the payload.
        std::hint::black_box(bytes);
        progress.end(records);
        Ok(progress)
    }
}
