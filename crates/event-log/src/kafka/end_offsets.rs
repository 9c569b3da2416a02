//! Asks the brokers at short intervals for the ends of the partitions that are being read, records of
//! unfinished transactions included. The requests block, so a thread of its own sends them. A dead
//! broker must not delay the answers about partitions that others lead, so partitions are asked for
//! by leader.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, channel},
    },
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    config::{ClientConfig, FromClientConfigAndContext as _},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::context::ClientLog;
use crate::{LogUnreachable, behind::EndError};

/// How long the leader of partitions may take to answer. Shorter than the time after which a
/// partition counts as behind, because the next question waits for all leaders.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const LEADERS_TIMEOUT: Duration = Duration::from_secs(1);

/// The client of these questions. It joins no group and fetches no records.
pub(super) type EndOffsetClient = BaseConsumer<ClientLog>;

pub(super) fn create_client(config: &ClientConfig) -> Result<EndOffsetClient, LogUnreachable> {
    BaseConsumer::from_config_and_context(config, ClientLog::new("ends"))
        .map_err(|error| LogUnreachable(format!("Kafka client: {error}")))
}

/// The answer about the partitions of one leader.
pub(super) struct EndOffsets {
    pub(super) sent_at: Instant,
    pub(super) ends: Result<Vec<(i32, i64)>, (Vec<i32>, EndError)>,
}

/// The two ends of the thread that asks. The thread ends when this is dropped.
pub(super) struct EndOffsetQueries {
    queries: Sender<Vec<i32>>,
    answers: Receiver<EndOffsets>,
}

impl EndOffsetQueries {
    pub(super) fn start_thread(
        client: Arc<EndOffsetClient>,
        topic: String,
    ) -> std::io::Result<Self> {
        let (queries, received) = channel();
        let (answered, answers) = channel();
        std::thread::Builder::new()
            .name("kafka-ends".into())
            .spawn(move || answer_queries(&client, &topic, &received, &answered))?;
        Ok(Self { queries, answers })
    }

    /// Asks for the ends of these partitions. Of the questions that wait, the thread sends only the
    /// last one.
    pub(super) fn send(&self, partitions: Vec<i32>) {
        // Cannot fail: the thread lives as long as this sender.
        let _ = self.queries.send(partitions);
    }

    pub(super) fn try_answer(&self) -> Option<EndOffsets> {
        self.answers.try_recv().ok()
    }
}

fn answer_queries(
    client: &EndOffsetClient,
    topic: &str,
    queries: &Receiver<Vec<i32>>,
    answers: &Sender<EndOffsets>,
) {
    // The partitions of the last question, by leader. Empty if a leader did not answer it.
    let mut leaders: Vec<Vec<i32>> = Vec::new();
    while let Ok(mut partitions) = queries.recv() {
        while let Ok(newer) = queries.try_recv() {
            partitions = newer;
        }
        // Takes the errors that the client reports from its queue; `ClientLog` logs them.
        let _ = client.poll(Duration::ZERO);
        let mut known: Vec<_> = leaders.iter().flatten().copied().collect();
        known.sort_unstable();
        if known != partitions {
            leaders = match group_by_leader(client, topic, &partitions) {
                Ok(groups) => groups,
                Err(error) => {
                    let ends = Err((partitions, error));
                    if answers.send(EndOffsets { sent_at: Instant::now(), ends }).is_err() {
                        return;
                    }
                    continue;
                }
            };
        }
        let ask = |group: &[i32]| {
            let sent_at = Instant::now();
            let ends = fetch_ends(client, topic, group).map_err(|error| {
                tracing::debug!(kafka.topic = topic, %error, "cannot ask for end offsets");
                (group.to_vec(), end_error(&error))
            });
            let is_answered = ends.is_ok();
            // Fails only if the driver is gone; `recv` ends this thread then.
            let _ = answers.send(EndOffsets { sent_at, ends });
            is_answered
        };
        let all_answered = match &leaders[..] {
            [group] => ask(group),
            groups => std::thread::scope(|scope| {
                let asked: Vec<_> =
                    groups.iter().map(|group| scope.spawn(|| ask(group))).collect();
                asked.into_iter().map(|thread| thread.join().unwrap_or(false)).fold(true, |a, b| a & b)
            }),
        };
        if !all_answered {
            leaders.clear();
        }
    }
}

/// Groups the partitions by their leaders. Those without a leader are a group of their own, whose
/// question fails in time.
fn group_by_leader(
    client: &EndOffsetClient,
    topic: &str,
    partitions: &[i32],
) -> Result<Vec<Vec<i32>>, EndError> {
    let metadata =
        client.fetch_metadata(Some(topic), LEADERS_TIMEOUT).map_err(|error| end_error(&error))?;
    let topic = metadata.topics().iter().find(|found| found.name() == topic);
    let topic = topic.ok_or(EndError::TopicMissing)?;
    if let Some(code) = topic.error() {
        return Err(end_error(&KafkaError::MetadataFetch(code.into())));
    }
    let mut groups: BTreeMap<i32, Vec<i32>> = BTreeMap::new();
    for partition in partitions {
        let found = topic.partitions().iter().find(|found| found.id() == *partition);
        groups.entry(found.map_or(-1, |found| found.leader())).or_default().push(*partition);
    }
    Ok(groups.into_values().collect())
}

fn fetch_ends(
    client: &EndOffsetClient,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<Vec<(i32, i64)>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let found = client.offsets_for_times(list, ANSWER_TIMEOUT)?;
    let ends = found.elements().into_iter().map(|element| {
        element.error()?;
        match element.offset() {
            Offset::Offset(end) => Ok((element.partition(), end)),
            _ => Err(KafkaError::MetadataFetch(RDKafkaErrorCode::NoOffset)),
        }
    });
    ends.collect()
}

fn end_error(error: &KafkaError) -> EndError {
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition,
        ) => EndError::TopicMissing,
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed,
        ) => EndError::Forbidden,
        Some(
            RDKafkaErrorCode::OperationTimedOut
            | RDKafkaErrorCode::RequestTimedOut
            | RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve
            | RDKafkaErrorCode::LeaderNotAvailable
            | RDKafkaErrorCode::NotLeaderForPartition,
        ) => EndError::Silent,
        _ => EndError::Other,
    }
}
