//! The epochs of topics: a number that differs if a topic was deleted and created again. It follows
//! from the topic's id, which the broker makes anew for each topic (KIP-516, Kafka 2.8).

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicI32, Ordering},
    },
    time::Duration,
};

use parking_lot::RwLock;
use rdkafka::{
    client::Client,
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::{admin::AdminHandle, context::ClientLog, topic_id::fetch_topic_ids};

/// The epochs that the brokers returned last. A cheap handle, to be cloned.
#[derive(Clone)]
pub(super) struct TopicEpochs(Arc<EpochsState>);

struct EpochsState {
    admin: AdminHandle,
    known: RwLock<HashMap<String, u32>>,
    /// The broker that answered last; −1 if it did not answer the next time.
    broker_id: AtomicI32,
}

impl TopicEpochs {
    pub(super) fn new(admin: AdminHandle) -> Self {
        let (known, broker_id) = (RwLock::default(), AtomicI32::new(-1));
        Self(Arc::new(EpochsState { admin, known, broker_id }))
    }

    /// The topic's epoch, `None` if it is not known.
    pub(super) fn known(&self, topic: &str) -> Option<u32> {
        self.0.known.read().get(topic).copied()
    }

    /// Asks a broker for the epochs of these topics. `None` of a broker without topic ids. Fails if
    /// a topic does not exist. Blocks for at most twice the `timeout`.
    pub(super) fn fetch(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> KafkaResult<Vec<Option<u32>>> {
        // Forgotten unless it answers again.
        let broker_id = self.0.broker_id.swap(-1, Ordering::Relaxed);
        let fetched = self.0.admin.query(|client| {
            let broker_id = if broker_id < 0 {
                find_broker(client, topics.first().copied(), timeout)?
            } else {
                broker_id
            };
            let ids = fetch_topic_ids(client, broker_id, topics, timeout)?;
            self.0.broker_id.store(broker_id, Ordering::Relaxed);
            Ok(ids)
        });
        let ids: HashMap<_, _> = fetched?.into_iter().collect();
        let unknown = KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition);
        let mut known = self.0.known.write();
        let epoch = |topic: &&str| {
            let epoch = epoch_from_id(*ids.get(*topic).ok_or_else(|| unknown.clone())?);
            if let Some(epoch) = epoch {
                known.insert((*topic).to_owned(), epoch);
            }
            Ok(epoch)
        };
        topics.iter().map(epoch).collect()
    }
}

/// The id of a broker that answers. One topic keeps the response small on a cluster with thousands.
pub(super) fn find_broker(
    client: &Client<ClientLog>,
    topic: Option<&str>,
    timeout: Duration,
) -> KafkaResult<i32> {
    let metadata = client.fetch_metadata(topic, timeout)?;
    // A broker of --kafka-brokers has no id until librdkafka has found out which one it is.
    let answered = Some(metadata.orig_broker_id()).filter(|id| *id >= 0);
    let first = || metadata.brokers().first().map(rdkafka::metadata::MetadataBroker::id);
    answered.or_else(first).ok_or(KafkaError::MetadataFetch(RDKafkaErrorCode::BrokerNotAvailable))
}

/// `None` for id 0: the broker has no topic ids.
fn epoch_from_id(id: u128) -> Option<u32> {
    (id != 0).then(|| crc32fast::hash(&id.to_be_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_follows_from_the_topic_s_id_and_a_broker_without_ids_has_none() {
        assert_eq!(epoch_from_id(0), None);
        assert_eq!(epoch_from_id(7), epoch_from_id(7));
        assert_ne!(epoch_from_id(7), epoch_from_id(7 << 64));
    }
}
