//! Reads the partitions that its owner assigns, outside any group: it never subscribes and never
//! commits.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use rdkafka::{
    ClientConfig, TopicPartitionList,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    KafkaSettings,
    admin::AdminHandle,
    context::{ClientLog, LOST_BROKERS},
    driver::PartitionDriver,
    epochs::TopicEpochs,
};
use crate::{Follower, LogUnreachable, PartitionHandler, reader::FollowerCommand};

/// How long a poll waits for a record. A command is noticed after this at the latest.
const POLL_TIMEOUT: Duration = Duration::from_millis(20);
/// How long to wait before a new client replaces one that failed for good.
const RECONNECT_DELAY: Duration = Duration::from_secs(2);

type FollowerClient = BaseConsumer<ClientLog>;

impl ConsumerContext for ClientLog {}

/// See [`Log::follow_topic`](crate::Log::follow_topic).
pub(super) fn follow_topic<H: PartitionHandler>(
    settings: &KafkaSettings,
    admin: AdminHandle,
    epochs: &TopicEpochs,
    topic: &str,
    handler: H,
) -> Result<Follower, LogUnreachable> {
    let config = settings.follower_config();
    let driver =
        PartitionDriver::new(settings, admin, epochs, topic, None, Arc::default(), handler)?;
    // Here and not on the thread, so that a wrong setting is an error at the start.
    let first = create_client(&config)?;
    let topic = topic.to_owned();
    Ok(Follower::spawn("kafka-follower", move |stop, commands| {
        let mut thread = FollowerThread { topic, driver, commands, wanted: BTreeSet::new() };
        let mut client = Some(first);
        while !stop.load(Ordering::Acquire) {
            match client.take().map_or_else(|| create_client(&config), Ok) {
                Ok(consumer) => thread.poll_until_stopped(&consumer, stop),
                Err(error) => tracing::error!(%error, "cannot follow the topic again"),
            }
            let assigned = thread.driver.partitions.numbers();
            thread.driver.revoke_partitions(&assigned);
            if !stop.load(Ordering::Acquire) {
                std::thread::sleep(RECONNECT_DELAY);
            }
        }
    }))
}

fn create_client(config: &ClientConfig) -> Result<FollowerClient, LogUnreachable> {
    BaseConsumer::from_config_and_context(config, ClientLog::new("follower"))
        .map_err(|error| LogUnreachable(format!("Kafka consumer: {error}")))
}

struct FollowerThread<H> {
    topic: String,
    driver: PartitionDriver<H>,
    commands: UnboundedReceiver<FollowerCommand>,
    /// The partitions to read, with this client and with one that replaces it.
    wanted: BTreeSet<i32>,
}

impl<H: PartitionHandler> FollowerThread<H> {
    /// Polls until told to stop, or until the client has failed for good.
    fn poll_until_stopped(&mut self, consumer: &FollowerClient, stop: &AtomicBool) {
        for partition in self.wanted.clone() {
            self.assign_partition(consumer, partition);
        }
        while !stop.load(Ordering::Acquire) {
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    FollowerCommand::Assign(partition) => {
                        if self.wanted.insert(partition) {
                            self.assign_partition(consumer, partition);
                        }
                    }
                    FollowerCommand::Revoke(partition) => {
                        if self.wanted.remove(&partition) {
                            self.revoke_partition(consumer, partition);
                        }
                    }
                }
            }
            if let Err(code) = self.driver.handle_polled(consumer.poll(POLL_TIMEOUT)) {
                tracing::error!(%code, "the Kafka consumer failed for good; creating a new one");
                return;
            }
            self.driver.run_checks(consumer);
            if consumer.context().take_lost_brokers() {
                tracing::error!(kafka.topic = self.topic, "{LOST_BROKERS}; creating a new client");
                return;
            }
            if self.driver.take_stale_client() {
                tracing::warn!(kafka.topic = self.topic, "the topic was created again; new client");
                return;
            }
        }
    }

    fn assign_partition(&mut self, consumer: &FollowerClient, partition: i32) {
        let start = self.driver.assign_partition(partition);
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.topic, partition, start);
        if let Err(error) = added.and_then(|()| consumer.incremental_assign(&list)) {
            tracing::error!(
                kafka.topic = self.topic, kafka.partition = partition, %error,
                "cannot assign the partition",
            );
            self.driver.revoke_partitions(&[partition]);
        }
    }

    fn revoke_partition(&mut self, consumer: &FollowerClient, partition: i32) {
        if !self.driver.partitions.is_assigned(partition) {
            return;
        }
        // The handler first: it must stop answering from the partition.
        self.driver.revoke_partitions(&[partition]);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        if let Err(error) = consumer.incremental_unassign(&list) {
            tracing::error!(
                kafka.topic = self.topic, kafka.partition = partition, %error,
                "cannot unassign the partition; the client still fetches it",
            );
        }
    }
}
