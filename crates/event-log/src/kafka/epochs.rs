//! The epochs of topics: a number that differs if a topic was deleted and created again. It follows
//! from the topic's id, which the broker makes anew for each topic (KIP-516, Kafka 2.8).

use std::{
    collections::HashMap,
    sync::{
        Arc, Weak,
        atomic::{AtomicI32, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use rdkafka::{
    client::Client,
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::{acks::TopicState, admin::AdminHandle, context::ClientLog, topic_id::fetch_topic_ids};
use crate::LogUnreachable;

/// How long a broker may take for the epochs that acknowledgements wait for, and the delay before
/// it is asked again.
const REQUEST_TIMEOUT: Duration = Duration::from_millis(500);
const REQUEST_INTERVAL: Duration = Duration::from_millis(50);

/// The epochs that the brokers returned last. A cheap handle, to be cloned.
#[derive(Clone)]
pub(super) struct TopicEpochs(Arc<EpochsState>);

struct EpochsState {
    admin: AdminHandle,
    topics: RwLock<HashMap<String, Arc<TopicState>>>,
    /// The broker that answered last; −1 if it did not answer the next time.
    broker_id: AtomicI32,
    /// Wakes the thread that asks for the epochs that acknowledgements wait for.
    request: SyncSender<()>,
}

impl TopicEpochs {
    pub(super) fn new(admin: AdminHandle) -> Result<Self, LogUnreachable> {
        let (topics, broker_id) = (RwLock::default(), AtomicI32::new(-1));
        let (request, requests) = sync_channel(1);
        let state = Arc::new(EpochsState { admin, topics, broker_id, request });
        let weak = Arc::downgrade(&state);
        std::thread::Builder::new()
            .name("kafka-epochs".into())
            .spawn(move || answer_requests(&weak, &requests))
            .map_err(|error| {
                LogUnreachable(format!("no thread for the topics' epochs: {error}"))
            })?;
        Ok(Self(state))
    }

    /// The epoch and the acknowledgements of a topic.
    pub(super) fn topic(&self, topic: &str) -> Arc<TopicState> {
        if let Some(state) = self.0.topics.read().get(topic) {
            return Arc::clone(state);
        }
        Arc::clone(self.0.topics.write().entry(topic.to_owned()).or_default())
    }

    /// The topic's epoch, `None` if it is not known.
    pub(super) fn known(&self, topic: &str) -> Option<u32> {
        self.topic(topic).lock().epoch()
    }

    /// Has the epochs fetched that acknowledgements wait for.
    pub(super) fn request(&self) {
        // If the channel is full, the thread has not begun with the last request.
        let _ = self.0.request.try_send(());
    }

    fn list_awaited(&self) -> Vec<String> {
        let topics = self.0.topics.read();
        let awaited = topics.iter().filter(|(_, state)| state.lock().is_awaited());
        awaited.map(|(topic, _)| topic.clone()).collect()
    }

    fn expire_waiting(&self, topic: &str) {
        let expired = self.topic(topic).lock().take_expired(Instant::now());
        expired.into_iter().for_each(|(waiting, epoch)| waiting.resolve(epoch));
    }

    /// Asks a broker for the epochs of these topics. `None` of a broker without topic ids. Fails if
    /// a topic does not exist. Blocks for at most twice the `timeout`.
    pub(super) fn fetch(
        &self,
        topics: &[&str],
        timeout: Duration,
    ) -> KafkaResult<Vec<Option<u32>>> {
        let queried_at = Instant::now();
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
        let (mut epochs, mut is_missing) = (Vec::with_capacity(topics.len()), false);
        for topic in topics {
            let state = self.topic(topic);
            let Some(epoch) = ids.get(*topic).map(|id| epoch_from_id(*id)) else {
                state.lock().add_missing(Instant::now());
                is_missing = true;
                continue;
            };
            let resolved = state.lock().add_fetched(epoch, queried_at);
            resolved.into_iter().for_each(|(waiting, epoch)| waiting.resolve(epoch));
            epochs.push(epoch);
        }
        if is_missing {
            return Err(KafkaError::MetadataFetch(RDKafkaErrorCode::UnknownTopicOrPartition));
        }
        Ok(epochs)
    }
}

/// Asks for the epochs that acknowledgements wait for, until they have them or have waited too long.
/// Ends with the last handle.
fn answer_requests(state: &Weak<EpochsState>, requests: &Receiver<()>) {
    while requests.recv().is_ok() {
        loop {
            let Some(epochs) = state.upgrade().map(TopicEpochs) else { return };
            let awaited = epochs.list_awaited();
            if awaited.is_empty() {
                break;
            }
            let names: Vec<_> = awaited.iter().map(String::as_str).collect();
            if let Err(error) = epochs.fetch(&names, REQUEST_TIMEOUT) {
                tracing::debug!(%error, "the topics' epochs are not known now");
            }
            awaited.iter().for_each(|topic| epochs.expire_waiting(topic));
            if epochs.list_awaited().is_empty() {
                break;
            }
            drop(epochs);
            std::thread::sleep(REQUEST_INTERVAL);
        }
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
