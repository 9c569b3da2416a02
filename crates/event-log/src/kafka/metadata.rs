//! Queries to the brokers about a topic that is being read: watermarks, partition count and epoch.
//! They block, and the polling thread must not, so a thread of its own sends them.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    time::Duration,
};

use rdkafka::error::KafkaResult;

use super::{admin::AdminHandle, epochs::TopicEpochs};
use crate::{
    LogUnreachable, Watermarks, partition_offsets::AssignmentEpoch, partition_state::OffsetGap,
};

const METADATA_TIMEOUT: Duration = Duration::from_secs(5);
/// How long to wait before a failed query is sent again.
const RETRY_DELAY: Duration = Duration::from_millis(200);

#[derive(Clone, Copy, Debug)]
pub(super) enum MetadataQuery {
    /// The watermarks at an assignment. Sent until the brokers answer.
    Watermarks(AssignmentEpoch),
    /// Is the high watermark still at or above `next`? Sent once.
    EndOffset { assignment: AssignmentEpoch, next: i64, is_confirmation: bool },
    /// Is the low watermark above the gap's start? Sent once.
    Gap { assignment: AssignmentEpoch, gap: OffsetGap },
    /// Which records are there, and up to where do they belong to no unfinished transaction? Sent
    /// once.
    Inspect(AssignmentEpoch),
    /// How many partitions the topic has. Sent once.
    PartitionCount,
    /// The topic's epoch, after the assignment of this number. Sent once, before any other query.
    TopicEpoch(u64),
}

impl MetadataQuery {
    pub(super) fn assignment(self) -> Option<AssignmentEpoch> {
        match self {
            Self::Watermarks(assignment)
            | Self::Inspect(assignment)
            | Self::EndOffset { assignment, .. }
            | Self::Gap { assignment, .. } => Some(assignment),
            Self::PartitionCount | Self::TopicEpoch(_) => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MetadataAnswer {
    Watermarks(MetadataQuery, Watermarks),
    /// 0 if the brokers cannot describe the topic.
    PartitionCount(u32),
    /// The topic's epoch, after the assignment of this number; `None` if the broker has no topic ids.
    TopicEpoch(u64, Option<u32>),
    /// The brokers did not return the topic's epoch.
    TopicEpochUnknown,
}

/// The two ends of the thread that sends the queries. The thread ends when this is dropped.
pub(super) struct MetadataQueries {
    queries: Sender<MetadataQuery>,
    answers: Receiver<MetadataAnswer>,
}

impl MetadataQueries {
    pub(super) fn start_thread(
        admin: AdminHandle,
        epochs: TopicEpochs,
        topic: String,
    ) -> Result<Self, LogUnreachable> {
        let (queries, received) = channel();
        let (answered, answers) = channel();
        std::thread::Builder::new()
            .name("kafka-metadata".into())
            .spawn(move || run_queries(&admin, &epochs, &topic, &received, &answered))
            .map_err(|error| {
                LogUnreachable(format!("cannot start the metadata thread: {error}"))
            })?;
        Ok(Self { queries, answers })
    }

    pub(super) fn send(&self, query: MetadataQuery) {
        // Cannot fail: the thread lives as long as this sender.
        let _ = self.queries.send(query);
    }

    pub(super) fn try_answer(&self) -> Option<MetadataAnswer> {
        self.answers.try_recv().ok()
    }
}

fn run_queries(
    admin: &AdminHandle,
    epochs: &TopicEpochs,
    topic: &str,
    queries: &Receiver<MetadataQuery>,
    answers: &Sender<MetadataAnswer>,
) {
    let mut pending = VecDeque::new();
    while let Ok(first) = queries.recv() {
        pending.push_back(first);
        while let Some(query) = pending.pop_front() {
            match send_query(admin, epochs, topic, query) {
                Ok(answer) => {
                    if answers.send(answer).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(kafka.topic = topic, ?query, %error, "metadata query failed");
                    match query {
                        MetadataQuery::Watermarks(_) => {
                            pending.push_back(query);
                            std::thread::sleep(RETRY_DELAY);
                        }
                        MetadataQuery::TopicEpoch(_) => {
                            if answers.send(MetadataAnswer::TopicEpochUnknown).is_err() {
                                return;
                            }
                        }
                        MetadataQuery::EndOffset { .. }
                        | MetadataQuery::Gap { .. }
                        | MetadataQuery::Inspect(_)
                        | MetadataQuery::PartitionCount => {}
                    }
                }
            }
            loop {
                match queries.try_recv() {
                    // Partitions wait for it before they become live.
                    Ok(first @ MetadataQuery::TopicEpoch(_)) => pending.push_front(first),
                    Ok(newer) => {
                        // An assignment that is over needs no watermarks.
                        pending.retain(|older| {
                            use MetadataQuery::Watermarks;
                            !matches!((newer, older), (Watermarks(newer), Watermarks(older))
                                if newer.partition == older.partition)
                        });
                        pending.push_back(newer);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }
}

fn send_query(
    admin: &AdminHandle,
    epochs: &TopicEpochs,
    topic: &str,
    query: MetadataQuery,
) -> KafkaResult<MetadataAnswer> {
    if let MetadataQuery::TopicEpoch(assignment) = query {
        let epoch = epochs.fetch(&[topic], METADATA_TIMEOUT)?;
        return Ok(MetadataAnswer::TopicEpoch(assignment, epoch.first().copied().flatten()));
    }
    let Some(AssignmentEpoch { partition, .. }) = query.assignment() else {
        let metadata =
            admin.query(|client| client.fetch_metadata(Some(topic), METADATA_TIMEOUT))?;
        let topic = metadata.topics().iter().find(|found| found.name() == topic);
        let count = topic.filter(|t| t.error().is_none()).map_or(0, |t| t.partitions().len());
        return Ok(MetadataAnswer::PartitionCount(u32::try_from(count).unwrap_or(u32::MAX)));
    };
    let (low, high) =
        admin.query(|client| client.fetch_watermarks(topic, partition, METADATA_TIMEOUT))?;
    Ok(MetadataAnswer::Watermarks(query, Watermarks { low, high }))
}
