//! The bare loop: the limit of any service that appends through librdkafka.

use model::record::EncodedRecord;
use rdkafka::{producer::Producer as _, util::Timeout};

use super::{ASK, Kafka, Topic};
use crate::{Result, effort::Effort, figures::Sample};

impl Kafka {
    /// Appends these over and over; each worker has one record in flight at a time.
    pub(crate) async fn append_loop(
        &self,
        topic: &Topic,
        records: &[EncodedRecord],
        effort: &Effort,
    ) -> Result<Sample> {
        let (kafka, topic) = (self.clone(), topic.clone());
        let (records, effort) = (records.to_vec(), effort.clone());
        tokio::task::spawn_blocking(move || {
            // The first record would otherwise also pay for the connection.
            let producer = kafka.appender(&topic)?;
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            let append = |record| {
                let (producer, topic) = (&producer, &topic);
                async move || Ok(matches!(Self::append(producer, topic, record)?.await, Ok(Ok(_))))
            };
            let workers = records.iter().cycle().take(effort.connections).map(append);
            let sample = runtime.block_on(effort.run(workers.collect()));
            producer.flush(Timeout::After(ASK))?;
            sample
        })
        .await?
    }
}
