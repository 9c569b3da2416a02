//! Appends notifications to the log as records.

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
    record::{self, BorrowedRecord, EncodedRecord, RecordEncoder},
};
use serde_json::Value;
use service::ops::canary::ProbeOutcome;

/// Delay before retrying when the log is unavailable.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// Time between two questions for the topic's epoch. Each is one small request.
const EPOCH_REFRESH_INTERVAL: Duration = Duration::from_secs(1);
/// Timeout of the log's answer to a health check.
const PING_TIMEOUT: Duration = Duration::from_millis(1500);

/// Appends notifications to the log. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Publisher(Arc<PublisherState>);

struct PublisherState {
    log: Log,
    writer: Writer,
    topic: Topic,
    partitioner: Partitioner,
    /// True once the topic exists with the partition count of the settings. Earlier records could
    /// go to a wrong partition, where their recipients would not find them.
    topic_ready: AtomicBool,
}

impl Publisher {
    pub(crate) fn new(log: Log, topic: Topic, partitioner: Partitioner) -> Self {
        let writer = log.writer();
        let prepared = AtomicBool::new(false);
        Self(Arc::new(PublisherState { log, writer, topic, partitioner, topic_ready: prepared }))
    }

    /// The log's name in the health checks.
    pub(crate) fn log_kind(&self) -> &'static str {
        self.0.log.kind()
    }

    /// Waits until the log is available and the topic exists; creates the topic if it is missing.
    pub(crate) async fn await_topic(&self) -> Result<(), TopicError> {
        self.0.log.await_topics(std::slice::from_ref(&self.0.topic), RETRY_DELAY).await?;
        self.0.topic_ready.store(true, Ordering::Release);
        Ok(())
    }

    /// Asks for the topic's epoch at an interval, so that the cursors in answers are those of the
    /// topic as it is, also after it was deleted and created again. Never ends.
    pub(crate) async fn refresh_epoch(self) {
        loop {
            tokio::time::sleep(EPOCH_REFRESH_INTERVAL).await;
            if let Err(error) = self.0.log.refresh_epoch(&self.0.topic.name).await {
                tracing::debug!(%error, "the topic's epoch is not known now");
            }
        }
    }

    /// Queues the notification's record without waiting. The log acknowledges it later.
    pub(crate) fn publish(
        &self,
        notification: &Notification<'_>,
        headers: &Headers,
        encoder: &mut RecordEncoder,
    ) -> Result<Ack, AppendError> {
        let PublisherState { writer, topic, partitioner, .. } = &*self.0;
        self.check_topic_ready()?;
        let record = encoder
            .encode_notification(notification, headers)
            .map_err(|error| AppendError::Refused(error.to_string()))?;
        let partition = partitioner.partition_for(record.key, topic.partitions);
        let BorrowedRecord { key, value, headers } = record;
        writer.append_borrowed(&topic.name, partition, key, value, &headers)
    }

    /// Writes a canary probe to partition `number` modulo the partition count, and waits for its
    /// acknowledgement.
    pub(crate) async fn probe_partition(&self, number: u32) -> ProbeOutcome {
        if !self.0.topic_ready.load(Ordering::Acquire) {
            return ProbeOutcome::Skipped;
        }
        let partition = i32::try_from(number % self.0.topic.partitions.max(1)).unwrap_or_default();
        let EncodedRecord { key, value, headers } = record::encode_canary(Timestamp::now());
        let record = NewRecord { partition, key, value, headers };
        match async { self.0.writer.append(&self.0.topic.name, record)?.await }.await {
            Ok(_) => ProbeOutcome::Arrived,
            Err(error) => ProbeOutcome::Failed(format!(
                "a record to partition {partition} was not acknowledged: {error}"
            )),
        }
    }

    fn check_topic_ready(&self) -> Result<(), AppendError> {
        if self.0.topic_ready.load(Ordering::Acquire) {
            return Ok(());
        }
        Err(AppendError::Unreachable("its topic is not ready yet".into()))
    }

    /// Waits until all queued records are acknowledged, for at most `timeout`.
    pub(crate) async fn flush(&self, timeout: Duration) {
        if !self.0.writer.flush(timeout).await {
            tracing::warn!(
                "some records were not acknowledged before shutdown; their requests were answered 504"
            );
        }
    }

    /// The check of `/readyz`: the log answers, and has the topic as it was at the start.
    pub(crate) async fn check_ready(self) -> Result<Value, String> {
        let PublisherState { log, topic, topic_ready, .. } = &*self.0;
        if !topic_ready.load(Ordering::Acquire) {
            log.ping(PING_TIMEOUT).await.map_err(|error| error.to_string())?;
            return Err(format!("topic {} is not ready yet", topic.name));
        }
        let checked = log.check_topic(topic, PING_TIMEOUT).await;
        checked.map(|()| Value::Null).map_err(|error| error.to_string())
    }
}
