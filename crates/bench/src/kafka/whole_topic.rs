//! Fills a whole topic, and reads one, as fast as librdkafka does it. Both block their thread.

use std::time::{Duration, Instant};

use model::record::Encoded;
use rdkafka::{
    Message as _,
    config::FromClientConfig as _,
    consumer::Consumer as _,
    error::KafkaError,
    producer::{BaseProducer, BaseRecord, Producer as _},
    types::RDKafkaErrorCode,
};

use super::{
    BareKafka, BenchTopic, POLL_TIMEOUT, PRODUCER, REQUEST_TIMEOUT, kafka_headers, partition_for,
    poll_message,
};
use crate::{
    Result,
    meter::{ReadCurve, transfer_timeout},
};

impl BareKafka {
    /// Appends all records to an empty topic, and verifies by the watermarks that it holds them.
    pub(crate) fn fill_topic(
        &self,
        topic: &BenchTopic,
        records: impl Iterator<Item = Result<Encoded>>,
    ) -> Result<()> {
        let producer = BaseProducer::from_config(&self.client_config(PRODUCER))?;
        let started = Instant::now();
        let mut written = 0;
        for record in records {
            let record = record?;
            let mut next = Some(
                BaseRecord::to(&topic.name)
                    .partition(partition_for(topic, &record))
                    .key(&record.key)
                    .payload(&record.value)
                    .headers(kafka_headers(&record)),
            );
            while let Some(record) = next.take() {
                match producer.send(record) {
                    Ok(()) => written += 1,
                    Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), record)) => {
                        producer.poll(POLL_TIMEOUT);
                        next = Some(record);
                    }
                    Err((error, _)) => return Err(error.into()),
                }
                if started.elapsed() > transfer_timeout(written) {
                    return Err(format!("a topic takes no more after {written} records").into());
                }
            }
            if written % 10_000 == 0 {
                producer.poll(Duration::ZERO);
            }
        }
        producer.flush(transfer_timeout(written))?;
        let (client, mut held) = (producer.client(), 0);
        for partition in 0..i32::try_from(topic.partitions)? {
            held += client.fetch_watermarks(&topic.name, partition, REQUEST_TIMEOUT)?.1;
        }
        if u64::try_from(held)? == written {
            return Ok(());
        }
        Err(format!("the topic holds {held} records of {written}: the broker lost or refused some")
            .into())
    }

    /// Reads the whole topic and drops the records. Returns the records over time since the
    /// assignment, on a client that was connected before.
    pub(crate) fn read_topic(&self, topic: &BenchTopic, records: u64) -> Result<ReadCurve> {
        let (consumer, assignment) = self.consumer(topic, false)?;
        let mut curve = ReadCurve::since(Instant::now());
        consumer.assign(&assignment)?;
        let (mut seen, mut bytes) = (0, 0);
        while seen < records {
            if let Some(message) = poll_message(&consumer)? {
                seen += 1;
                bytes += message.payload().map_or(0, <[u8]>::len);
            }
            if curve.add_point(seen) > transfer_timeout(records) {
                return Err(format!("only {seen} of {records} records came").into());
            }
        }
        // Keeps the compiler from removing the access to the payload.
        std::hint::black_box(bytes);
        curve.add_last_point(records);
        Ok(curve)
    }
}
