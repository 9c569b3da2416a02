//! What is asked of Kafka about a topic while it is read: watermarks, and how many partitions
//! there are. Off the polling thread, because a question blocks, and the poll must not.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        mpsc::{Receiver, Sender, TryRecvError, channel},
    },
    time::Duration,
};

use rdkafka::{admin::AdminClient, error::KafkaResult};

use super::context::ClientLog;
use crate::Watermarks;

const DEADLINE: Duration = Duration::from_secs(5);
/// How long after a question that got no answer it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// An assignment of a partition; a later one of the same partition has a higher number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct AssignmentEpoch {
    pub(super) partition: i32,
    pub(super) number: u64,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MetadataQuery {
    /// How much there is to read; asked until it is answered.
    Extent(AssignmentEpoch),
    /// Whether the partition still is the one that was read up to `next`; asked once.
    Still { assignment: AssignmentEpoch, next: i64 },
    /// Whether records from the first offset to the second are gone; asked once.
    Gap { assignment: AssignmentEpoch, from: i64, to: i64 },
    /// How many partitions the topic has; asked once.
    Partitions,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum MetadataAnswer {
    Watermarks(MetadataQuery, Watermarks),
    Partitions(usize),
}

/// Asks, on a thread of its own that ends with this.
pub(super) struct MetadataQueries {
    questions: Sender<MetadataQuery>,
    answers: Receiver<MetadataAnswer>,
}

impl MetadataQueries {
    pub(super) fn start(
        admin: Arc<AdminClient<ClientLog>>,
        topic: String,
    ) -> std::io::Result<Self> {
        let (questions, asked) = channel();
        let (answer, answers) = channel();
        std::thread::Builder::new()
            .name("kafka-questions".into())
            .spawn(move || serve(&admin, &topic, &asked, &answer))?;
        Ok(Self { questions, answers })
    }

    pub(super) fn ask(&self, question: MetadataQuery) {
        // The thread ends after we do, so somebody listens.
        let _ = self.questions.send(question);
    }

    pub(super) fn answer(&self) -> Option<MetadataAnswer> {
        self.answers.try_recv().ok()
    }
}

fn serve(
    admin: &AdminClient<ClientLog>,
    topic: &str,
    asked: &Receiver<MetadataQuery>,
    answers: &Sender<MetadataAnswer>,
) {
    let mut open = VecDeque::new();
    while let Ok(first) = asked.recv() {
        open.push_back(first);
        while let Some(question) = open.pop_front() {
            match ask(admin, topic, question) {
                Ok(answer) => {
                    if answers.send(answer).is_err() {
                        return;
                    }
                }
                Err(error) => {
                    tracing::debug!(kafka.topic = topic, ?question, %error, "no answer yet");
                    if let MetadataQuery::Extent(_) = question {
                        open.push_back(question);
                        std::thread::sleep(ASK_AGAIN);
                    }
                }
            }
            loop {
                match asked.try_recv() {
                    Ok(newer) => {
                        open.retain(|older| !replaces(newer, *older));
                        open.push_back(newer);
                    }
                    Err(TryRecvError::Empty) => break,
                    Err(TryRecvError::Disconnected) => return,
                }
            }
        }
    }
}

/// A newer assignment of a partition replaces what was open of it.
fn replaces(newer: MetadataQuery, older: MetadataQuery) -> bool {
    match (newer, older) {
        (MetadataQuery::Extent(newer), MetadataQuery::Extent(older)) => {
            newer.partition == older.partition
        }
        _ => false,
    }
}

fn ask(
    admin: &AdminClient<ClientLog>,
    topic: &str,
    question: MetadataQuery,
) -> KafkaResult<MetadataAnswer> {
    let assignment = match question {
        MetadataQuery::Extent(assignment)
        | MetadataQuery::Still { assignment, .. }
        | MetadataQuery::Gap { assignment, .. } => assignment,
        MetadataQuery::Partitions => {
            let metadata = admin.inner().fetch_metadata(Some(topic), DEADLINE)?;
            let topic = metadata.topics().iter().find(|found| found.name() == topic);
            // A topic in trouble has none, which is not its number.
            let count = topic.filter(|topic| topic.error().is_none()).map(|t| t.partitions().len());
            return Ok(MetadataAnswer::Partitions(count.unwrap_or(0)));
        }
    };
    let (low, high) = admin.inner().fetch_watermarks(topic, assignment.partition, DEADLINE)?;
    Ok(MetadataAnswer::Watermarks(question, Watermarks { low, high }))
}
