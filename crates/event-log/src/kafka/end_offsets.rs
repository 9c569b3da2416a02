//! Asks the brokers at short intervals for the ends of the partitions that are being read, records of
//! unfinished transactions included. The requests block, so a thread of its own sends them. A dead
//! broker must not delay the answers about partitions that others lead, so partitions are asked for
//! by leader.

use std::{
    collections::BTreeMap,
    sync::mpsc::{Receiver, Sender, channel},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    config::{ClientConfig, FromClientConfigAndContext as _},
    consumer::{BaseConsumer, Consumer as _},
    error::{KafkaError, KafkaResult},
    metadata::MetadataPartition,
    types::RDKafkaErrorCode,
};

use super::context::ClientLog;
use crate::{LogUnreachable, behind::EndError};

/// How long the leader of partitions may take to answer. Shorter than the time after which a
/// partition counts as behind, because the next question waits for all leaders.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
const LEADERS_TIMEOUT: Duration = Duration::from_secs(1);
/// How long no leader must have answered until the client is replaced.
const REPLACE_AFTER: Duration = Duration::from_secs(10);

/// The client of these questions. It joins no group and fetches no records.
type EndOffsetClient = BaseConsumer<ClientLog>;

fn create_client(config: &ClientConfig) -> Result<EndOffsetClient, LogUnreachable> {
    BaseConsumer::from_config_and_context(config, ClientLog::new("ends"))
        .map_err(|error| LogUnreachable(format!("Kafka client: {error}")))
}

/// The answer about the partitions of one leader.
pub(super) struct EndOffsets {
    pub(super) sent_at: Instant,
    /// By partition.
    pub(super) ends: Vec<(i32, Result<i64, EndError>)>,
}

impl EndOffsets {
    fn failed(sent_at: Instant, partitions: &[i32], error: EndError) -> Self {
        let ends = partitions.iter().map(|partition| (*partition, Err(error))).collect();
        Self { sent_at, ends }
    }
}

/// The two ends of the thread that asks. The thread ends when this is dropped.
pub(super) struct EndOffsetQueries {
    queries: Sender<Vec<i32>>,
    answers: Receiver<EndOffsets>,
}

impl EndOffsetQueries {
    /// Fails if a setting of the client is wrong.
    pub(super) fn start_thread(
        config: ClientConfig,
        topic: String,
    ) -> Result<Self, LogUnreachable> {
        let (queries, received) = channel();
        let (answers, answered) = channel();
        let client = create_client(&config)?;
        let mut thread =
            EndOffsetThread { config, client, topic, leaders: Vec::new(), failing_since: None };
        std::thread::Builder::new()
            .name("kafka-ends".into())
            .spawn(move || thread.answer_queries(&received, &answers))
            .map_err(|error| {
                LogUnreachable(format!("cannot start the thread for end offsets: {error}"))
            })?;
        Ok(Self { queries, answers: answered })
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

struct EndOffsetThread {
    config: ClientConfig,
    client: EndOffsetClient,
    topic: String,
    /// The partitions of the last question, by leader. Empty if a leader did not answer it.
    leaders: Vec<Vec<i32>>,
    /// No leader has answered since.
    failing_since: Option<Instant>,
}

impl EndOffsetThread {
    fn answer_queries(&mut self, queries: &Receiver<Vec<i32>>, answers: &Sender<EndOffsets>) {
        while let Ok(mut partitions) = queries.recv() {
            while let Ok(newer) = queries.try_recv() {
                partitions = newer;
            }
            // Takes the errors that the client reports from its queue; `ClientLog` logs them.
            let _ = self.client.poll(Duration::ZERO);
            let any_answered = self.ask_leaders(&partitions, answers);
            self.replace_client_if_failing(any_answered);
        }
    }

    /// Returns true if a leader has answered.
    fn ask_leaders(&mut self, partitions: &[i32], answers: &Sender<EndOffsets>) -> bool {
        let mut known: Vec<_> = self.leaders.iter().flatten().copied().collect();
        known.sort_unstable();
        if known != partitions {
            match group_by_leader(&self.client, &self.topic, partitions) {
                Ok(leaders) => self.leaders = leaders,
                Err(error) => {
                    // Fails only if the driver is gone; `recv` ends this thread then.
                    let _ = answers.send(EndOffsets::failed(Instant::now(), partitions, error));
                    return error != EndError::Silent;
                }
            }
        }
        let ask = |group: &[i32]| {
            let sent_at = Instant::now();
            let fetched = fetch_ends(&self.client, &self.topic, group);
            let is_answered = fetched.is_ok();
            let answer = match fetched {
                Ok(ends) => EndOffsets { sent_at, ends },
                Err(error) => {
                    let topic = &self.topic;
                    tracing::debug!(kafka.topic = topic, %error, "cannot ask for end offsets");
                    EndOffsets::failed(sent_at, group, end_error(&error))
                }
            };
            let _ = answers.send(answer);
            is_answered
        };
        let answered: Vec<bool> = match &self.leaders[..] {
            [group] => vec![ask(group)],
            groups => std::thread::scope(|scope| {
                let asked: Vec<_> = groups.iter().map(|group| scope.spawn(|| ask(group))).collect();
                asked.into_iter().map(|asked| asked.join().unwrap_or(false)).collect()
            }),
        };
        if answered.contains(&false) {
            self.leaders.clear();
        }
        answered.contains(&true)
    }

    /// See [`AdminHandle`](super::admin::AdminHandle): librdkafka may lose its brokers for good.
    fn replace_client_if_failing(&mut self, any_answered: bool) {
        if any_answered {
            self.failing_since = None;
        } else if self.failing_since.get_or_insert_with(Instant::now).elapsed() >= REPLACE_AFTER {
            match create_client(&self.config) {
                Ok(client) => self.client = client,
                Err(error) => tracing::error!(%error, "cannot replace the Kafka client"),
            }
            self.failing_since = None;
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
        groups.entry(found.map_or(-1, MetadataPartition::leader)).or_default().push(*partition);
    }
    Ok(groups.into_values().collect())
}

fn fetch_ends(
    client: &EndOffsetClient,
    topic: &str,
    partitions: &[i32],
) -> KafkaResult<Vec<(i32, Result<i64, EndError>)>> {
    let mut list = TopicPartitionList::with_capacity(partitions.len());
    for partition in partitions {
        list.add_partition_offset(topic, *partition, Offset::End)?;
    }
    let found = client.offsets_for_times(list, ANSWER_TIMEOUT)?;
    let ends = found.elements().into_iter().map(|element| {
        let end = match (element.error(), element.offset()) {
            (Ok(()), Offset::Offset(end)) => Ok(end),
            (Ok(()), _) => Err(EndError::Other),
            (Err(error), _) => Err(end_error(&error)),
        };
        (element.partition(), end)
    });
    Ok(ends.collect())
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
