//! The Kafka driver, the only module of the project that names rdkafka. It owns the clients and
//! their settings. It never knows what a record means.

mod admin;
mod config;
mod context;
mod statistics;
mod topic_id;
mod topic_acks;
mod acks;
mod epochs;
mod epoch_checks;
mod topic_config;
mod topics;
mod writer_context;
mod writer;
mod metadata;
mod end_offsets;
mod read_retries;
mod behind_checks;
mod messages;
mod driver;
mod commits;
mod membership;
mod reader;
mod follower;

use std::{sync::Arc, time::Duration};

pub use acks::KafkaAck;
pub use config::KafkaSettings;
pub use writer::KafkaWriter;

use crate::{
    Follower, Group, LogUnreachable, PartitionHandler, Reader, Topic, TopicError, dlq::DlqWriter,
};
use admin::AdminHandle;
use epochs::TopicEpochs;

/// Apache Kafka, reached through librdkafka. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Kafka {
    settings: Arc<KafkaSettings>,
    admin: AdminHandle,
    writer: KafkaWriter,
    epochs: TopicEpochs,
}

impl Kafka {
    /// Creates the clients. It does not wait for a broker, so Kafka may start later.
    /// Fails if a setting is wrong.
    pub fn new(settings: KafkaSettings) -> Result<Self, LogUnreachable> {
        settings.check_build()?;
        let admin = AdminHandle::new(settings.admin_config())?;
        let epochs = TopicEpochs::new(admin.clone())?;
        let writer = KafkaWriter::new(&settings, admin.clone(), epochs.clone())?;
        Ok(Self { settings: Arc::new(settings), admin, writer, epochs })
    }

    pub(crate) fn writer(&self) -> KafkaWriter {
        self.writer.clone()
    }

    pub(crate) async fn ensure_topics(&self, topics: &[Topic]) -> Result<(), TopicError> {
        let ensured = topics::ensure_topics(&self.admin, &self.settings.brokers, topics).await;
        ensured.map_err(|error| self.add_topic_advice(error))?;
        let names: Vec<_> = topics.iter().map(|topic| topic.name.clone()).collect();
        topics::await_epochs(&self.settings.brokers, &self.epochs, names).await;
        Ok(())
    }

    pub(crate) async fn refresh_epoch(&self, topic: &str) -> Result<(), LogUnreachable> {
        let topics = vec![topic.to_owned()];
        topics::fetch_epochs(&self.settings.brokers, &self.epochs, topics).await
    }

    pub(crate) async fn check_topic(
        &self,
        topic: &Topic,
        deadline: Duration,
    ) -> Result<(), TopicError> {
        let brokers = &self.settings.brokers;
        let checked = topics::check_topic(&self.admin, brokers, topic, deadline).await;
        checked.map_err(|error| self.add_topic_advice(error))
    }

    pub(crate) async fn fetch_end_offsets(
        &self,
        topic: &str,
        partitions: &[i32],
        deadline: Duration,
    ) -> Result<Vec<i64>, LogUnreachable> {
        topics::fetch_end_offsets(&self.admin, &self.settings.brokers, topic, partitions, deadline)
            .await
    }

    pub(crate) async fn ping(&self, deadline: Duration) -> Result<(), LogUnreachable> {
        let pinged = topics::ping_brokers(&self.admin, &self.settings.brokers, deadline).await;
        pinged.map_err(|error| self.add_advice(error))
    }

    fn add_topic_advice(&self, error: TopicError) -> TopicError {
        match error {
            TopicError::Unreachable(error) => self.add_advice(error).into(),
            other => other,
        }
    }

    /// Adds what a person can do if the brokers refuse the connection.
    fn add_advice(&self, error: LogUnreachable) -> LogUnreachable {
        match self.writer.last_refusal() {
            Some(refusal) => LogUnreachable(format!("{error}: {}", refusal.to_advice())),
            None => error,
        }
    }

    pub(crate) fn join_group<H: PartitionHandler>(
        &self,
        topic: &Topic,
        group: &Group,
        dlq: Option<&str>,
        handler: H,
    ) -> Result<Reader, LogUnreachable> {
        let dlq = dlq.map(|topic| DlqWriter::new(self.writer(), topic));
        let (admin, epochs) = (self.admin.clone(), &self.epochs);
        reader::join_group(&self.settings, admin, epochs, topic, group, dlq, handler)
    }

    pub(crate) fn follow_topic<H: PartitionHandler>(
        &self,
        topic: &str,
        handler: H,
    ) -> Result<Follower, LogUnreachable> {
        follower::follow_topic(&self.settings, self.admin.clone(), &self.epochs, topic, handler)
    }
}
