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
    record::{self, Encoded},
};
use serde_json::Value;
use service::ops::canary::ProbeOutcome;

/// How long to wait before a log that is away is asked again.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// How long the log may take to answer a probe.
const PING: Duration = Duration::from_millis(1500);

/// Publishes notifications. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Publisher(Arc<Shared>);

struct Shared {
    log: Log,
    writer: Writer,
    topic: Topic,
    partitioner: Partitioner,
    /// Whether the topic was found to be what it must be. Before that nothing may be written: a
    /// record in a wrong partition would never be found.
    prepared: AtomicBool,
}

impl Publisher {
    /// Publishes to this topic of this log.
    #[must_use]
    pub fn new(log: Log, topic: Topic, partitioner: Partitioner) -> Self {
        let writer = log.writer();
        let prepared = AtomicBool::new(false);
        Self(Arc::new(Shared { log, writer, topic, partitioner, prepared }))
    }

    /// Makes sure of the topic, for as long as it takes.
    ///
    /// # Errors
    /// [`TopicError`], when the topic is wrong.
    pub async fn prepare(&self) -> Result<(), TopicError> {
        self.0.log.await_topics(std::slice::from_ref(&self.0.topic), ASK_AGAIN).await?;
        self.0.prepared.store(true, Ordering::Release);
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
        let record = record::encode(notification, headers)
            .map_err(|error| AppendError::Refused(error.to_string()))?;
        let partition = self.0.partitioner.partition(&record.key, self.0.topic.partitions);
        self.append(partition, record)
    }

    /// Writes a record for nobody to this partition (modulo as many as there are), and waits until
    /// it is acknowledged.
    pub(crate) async fn try_partition(&self, number: u32) -> ProbeOutcome {
        if !self.0.prepared.load(Ordering::Acquire) {
            return ProbeOutcome::Skipped;
        }
        let partition = i32::try_from(number % self.0.topic.partitions.max(1)).unwrap_or_default();
        let acknowledged = match self.append(partition, record::canary(Timestamp::now())) {
            Ok(ack) => ack.await,
            Err(error) => Err(error),
        };
        match acknowledged {
            Ok(_) => ProbeOutcome::Arrived,
            Err(error) => ProbeOutcome::Failed(format!(
                "a record to partition {partition} was not acknowledged: {error}"
            )),
        }
    }

    fn append(&self, partition: i32, record: Encoded) -> Result<Ack, AppendError> {
        if !self.0.prepared.load(Ordering::Acquire) {
            return Err(AppendError::Unreachable("its topic is not prepared yet".into()));
        }
        let Encoded { key, value, headers } = record;
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
    pub async fn check(self) -> Result<Value, String> {
        self.0.log.ping(PING).await.map_err(|error| error.to_string())?;
        if !self.0.prepared.load(Ordering::Acquire) {
            return Err(format!("topic {} is not prepared yet", self.0.topic.name));
        }
        Ok(Value::Null)
    }
}
