//! Queries to the brokers about a topic that is being read: watermarks and the partition count.
//! They block, and the polling thread must not, so a thread of its own sends them.

use std::{
    collections::VecDeque,
    sync::mpsc::{Receiver, Sender, TryRecvError, channel},
    time::Duration,
};

use rdkafka::error::KafkaResult;

use super::admin::AdminHandle;
use crate::{Watermarks, partition_offsets::AssignmentEpoch, partition_state::OffsetGap};

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
}

impl MetadataQuery {
    pub(super) fn assignment(self) -> Option<AssignmentEpoch> {
        match self {
            Self::Watermarks(assignment)
            | Self::Inspect(assignment)
            | Self::EndOffset { assignment, .. }
            | Self::Gap { assignment, .. } => Some(assignment),
            Self::PartitionCount => None,
        }
    }
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MetadataAnswer {
    Watermarks(MetadataQuery, Watermarks),
    /// 0 if the brokers cannot describe the topic.
    PartitionCount(u32),
}

/// The two ends of the thread that sends the queries. The thread ends when this is dropped.
pub(super) struct MetadataQueries {
    queries: Sender<MetadataQuery>,
    answers: Receiver<MetadataAnswer>,
}

impl MetadataQueries {
    pub(super) fn start_thread(admin: AdminHandle, topic: String) -> std::io::Result<Self> {
        let (queries, received) = channel();
        let (answered, answers) = channel();
        std::thread::Builder::new()
            .name("kafka-metadata".into())
            .spawn(move || run_queries(&admin, &topic, &received, &answered))?;
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
    topic: &str,
    queries: &Receiver<MetadataQuery>,
    answers: &Sender<MetadataAnswer>,
) {
    let mut pending = VecDeque::new();
    while let Ok(first) = queries.recv() {
        pending.push_back(first);
        while let Some(query) = pending.pop_front() {
            match send_query(admin, topic, query) {
                Ok(answer) => {
                    if answers.send(answer).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(kafka.topic = topic, ?query, %error, "metadata query failed");
                    if let MetadataQuery::Watermarks(_) = query {
                        pending.push_back(query);
                        std::thread::sleep(RETRY_DELAY);
                    }
                }
            }
            loop {
                match queries.try_recv() {
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
    topic: &str,
    query: MetadataQuery,
) -> KafkaResult<MetadataAnswer> {
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
