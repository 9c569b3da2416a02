//! From a notification to an acknowledged record of the log.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use event_log::{Ack, AppendError, Log, NewRecord, Topic, TopicError, Writer};
use jiff::Timestamp;
use model::{
    Headers, Notification, Partitioner,
    record::{self, EncodedRecord},
};
use serde_json::Value;
use service::ops::canary::Tried;

/// How long to wait before a log that is away is asked again.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How long the log may take to answer a probe.
const PING_TIMEOUT: Duration = Duration::from_millis(1500);

/// Publishes notifications. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Publisher(Arc<PublisherState>);

struct PublisherState {
    log: Log,
    writer: Writer,
    topic: Topic,
    partitioner: Partitioner,
    /// Whether the topic was found to be what it must be. Before that nothing may be written: a
    /// record in a wrong partition would never be found.
    topic_ready: AtomicBool,
}

impl Publisher {
    /// Publishes to this topic of this log.
    #[must_use]
    pub fn new(log: Log, topic: Topic, partitioner: Partitioner) -> Self {
        let writer = log.writer();
        let prepared = AtomicBool::new(false);
        Self(Arc::new(PublisherState { log, writer, topic, partitioner, topic_ready: prepared }))
    }

    /// Makes sure of the topic, for as long as it takes.
    ///
    /// # Errors
    /// [`TopicError`], when the topic is wrong.
    pub async fn await_topic(&self) -> Result<(), TopicError> {
        self.0.log.await_topics(std::slice::from_ref(&self.0.topic), RETRY_DELAY).await?;
        self.0.topic_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Queues the notification's record, at once. The acknowledgement follows from the log.
    ///
    /// # Errors
    /// [`AppendError`], when it was not even queued.
    pub fn publish(
        &self,
        notification: &Notification<'_>,
        headers: &Headers,
    ) -> Result<Ack, AppendError> {
        let record = record::encode_notification(notification, headers)
            .map_err(|error| AppendError::Refused(error.to_string()))?;
        let partition = self.0.partitioner.partition_for(&record.key, self.0.topic.partitions);
        self.append_record(partition, record)
    }

    /// Writes a record for nobody to this partition (modulo as many as there are), and waits until
    /// it is acknowledged.
    pub(crate) async fn probe_partition(&self, number: u32) -> Tried {
        if !self.0.topic_ready.load(Ordering::Acquire) {
            return Tried::Nothing;
        }
        let partition = i32::try_from(number % self.0.topic.partitions.max(1)).unwrap_or_default();
        let acknowledged =
            match self.append_record(partition, record::encode_canary(Timestamp::now())) {
                Ok(ack) => ack.await,
                Err(error) => Err(error),
            };
        match acknowledged {
            Ok(_) => Tried::Arrived,
            Err(error) => Tried::Failed(format!(
                "a record to partition {partition} was not acknowledged: {error}"
            )),
        }
    }

    fn append_record(&self, partition: i32, record: EncodedRecord) -> Result<Ack, AppendError> {
        if !self.0.topic_ready.load(Ordering::Acquire) {
            return Err(AppendError::Unreachable("its topic is not prepared yet".into()));
        }
        let EncodedRecord { key, value, headers } = record;
        self.0.writer.append(&self.0.topic.name, NewRecord { partition, key, value, headers })
    }

    /// Waits until everything queued is acknowledged, for at most `deadline`.
    pub async fn flush(&self, deadline: Duration) {
        if !self.0.writer.flush(deadline).await {
            tracing::warn!(
                "some records were not acknowledged before the end; their senders were told so"
            );
        }
    }

    /// For `/readyz`: whether the log can be written to.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub async fn check_ready(self) -> Result<Value, String> {
        self.0.log.ping(PING_TIMEOUT).await.map_err(|error| error.to_string())?;
        if !self.0.topic_ready.load(Ordering::Acquire) {
            return Err(format!("topic {} is not prepared yet", self.0.topic.name));
        }
        Ok(Value::Null)
    }
}
