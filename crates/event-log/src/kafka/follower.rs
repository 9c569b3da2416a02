//! A reader of partitions that it is told, in no group: it never subscribes and never commits.

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
    admin::AdminClient,
    config::FromClientConfigAndContext,
    consumer::{BaseConsumer, Consumer as _, ConsumerContext},
};
use tokio::sync::mpsc::UnboundedReceiver;

use super::{KafkaSettings, context::ClientLog, folding::PartitionDriver, statistics::ClientRole};
use crate::{
    Follower, LogUnreachable, PartitionHandler,
    reader::{Command, ReaderStatus},
};

/// How long a poll waits for a record, and so how soon a command is noticed at the latest.
const POLL: Duration = Duration::from_millis(20);
/// How long after a fatal error a new client is made.
const AGAIN_AFTER: Duration = Duration::from_secs(2);

type Client = BaseConsumer<ClientLog>;

impl ConsumerContext for ClientLog {}

/// See [`Log::follow`](crate::Log::follow).
pub(super) fn follow<F: PartitionHandler>(
    settings: &KafkaSettings,
    admin: Arc<AdminClient<ClientLog>>,
    topic: &str,
    fold: F,
) -> Result<Follower, LogUnreachable> {
    let config = settings.follower_config();
    let folding = PartitionDriver::new(admin, topic, Arc::new(ReaderStatus::default()), fold)?;
    // Made here, so that a wrong setting is an error at start.
    let first = connect(&config)?;
    let topic = topic.to_owned();
    Ok(Follower::spawn("kafka-follower", move |stop, commands| {
        let mut following = Following { topic, folding, commands, wanted: BTreeSet::new() };
        let mut client = Some(first);
        while !stop.load(Ordering::Acquire) {
            match client.take().map_or_else(|| connect(&config), Ok) {
                Ok(consumer) => following.poll(&consumer, stop),
                Err(error) => tracing::error!(%error, "cannot follow the topic again"),
            }
            let all = following.folding.assigned();
            following.folding.revoke(&all);
            if !stop.load(Ordering::Acquire) {
                std::thread::sleep(AGAIN_AFTER);
            }
        }
    }))
}

fn connect(config: &ClientConfig) -> Result<Client, LogUnreachable> {
    BaseConsumer::from_config_and_context(config, ClientLog::new(ClientRole::Follower))
        .map_err(|error| LogUnreachable(format!("Kafka consumer: {error}")))
}

struct Following<F> {
    topic: String,
    folding: PartitionDriver<F>,
    commands: UnboundedReceiver<Command>,
    /// What is to be read, by this client and by one that replaces it.
    wanted: BTreeSet<i32>,
}

impl<F: PartitionHandler> Following<F> {
    /// Polls until told to stop, or until the client failed for good.
    fn poll(&mut self, consumer: &Client, stop: &AtomicBool) {
        for partition in self.wanted.clone() {
            self.assign(consumer, partition);
        }
        while !stop.load(Ordering::Acquire) {
            while let Ok(command) = self.commands.try_recv() {
                match command {
                    Command::Assign(partition) => {
                        if self.wanted.insert(partition) {
                            self.assign(consumer, partition);
                        }
                    }
                    Command::Revoke(partition) => {
                        if self.wanted.remove(&partition) {
                            self.revoke(consumer, partition);
                        }
                    }
                }
            }
            if let Err(code) = self.folding.take(consumer.poll(POLL)) {
                tracing::error!(%code, "the Kafka consumer failed for good; making a new one");
                return;
            }
            self.folding.watch(consumer);
        }
    }

    fn assign(&mut self, consumer: &Client, partition: i32) {
        let start = self.folding.assign(partition);
        let mut list = TopicPartitionList::new();
        let added = list.add_partition_offset(&self.topic, partition, start);
        if let Err(error) = added.and_then(|()| consumer.incremental_assign(&list)) {
            tracing::error!(
                kafka.topic = self.topic, kafka.partition = partition, %error,
                "the partition cannot be followed",
            );
            self.folding.revoke(&[partition]);
        }
    }

    fn revoke(&mut self, consumer: &Client, partition: i32) {
        if !self.folding.is_assigned(partition) {
            return;
        }
        // First nobody may be answered from it any more.
        self.folding.revoke(&[partition]);
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.topic, partition);
        if let Err(error) = consumer.incremental_unassign(&list) {
            tracing::error!(
                kafka.topic = self.topic, kafka.partition = partition, %error,
                "the partition is still fetched",
            );
        }
    }
}
