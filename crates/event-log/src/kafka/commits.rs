//! The thread that tells the group what the [`Ledger`] has to tell. One thing after the other, so
//! that a commit and a transaction of the same partition cannot overtake each other.

use std::{sync::Arc, time::Duration};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::KafkaResult,
};

use super::{
    metadata::AssignmentEpoch,
    offset_tracker::{OffsetTracker, Work},
    quarantine::Copier,
};

/// How long an answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// How long to wait after a failure, at first and at most.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3));

/// Starts the thread. It ends some time after [`Ledger::close`]; whoever is last to let go of the
/// consumer closes it.
pub(super) fn start<C: ConsumerContext + 'static>(
    consumer: Arc<BaseConsumer<C>>,
    ledger: Arc<OffsetTracker>,
    copier: Option<Copier>,
) -> std::io::Result<()> {
    let commits = Commits { consumer, ledger, copier, failing: false };
    std::thread::Builder::new().name("kafka-commits".into()).spawn(move || commits.run())?;
    Ok(())
}

struct Commits<C: ConsumerContext> {
    consumer: Arc<BaseConsumer<C>>,
    ledger: Arc<OffsetTracker>,
    /// None: poison is not set aside.
    copier: Option<Copier>,
    failing: bool,
}

impl<C: ConsumerContext> Commits<C> {
    fn run(mut self) {
        let mut backoff = BACKOFF.0;
        loop {
            let done = match self.ledger.work() {
                Work::End => break,
                Work::Ask(assignments) => self.ask(&assignments).map_err(|error| error.to_string()),
                Work::Copy(batch) => match &mut self.copier {
                    Some(copier) => copier.copy(&self.consumer, &self.ledger, &batch),
                    None => {
                        self.ledger.copied(&batch);
                        Ok(())
                    }
                },
                Work::Commit(positions) => {
                    let done = self.commit(&positions);
                    self.ledger.committed(&positions, done.is_ok());
                    done.map_err(|error| error.to_string())
                }
            };
            match done {
                Ok(()) => {
                    if self.failing {
                        tracing::info!(
                            kafka.topic = self.ledger.topic(),
                            "the group's progress can be kept again",
                        );
                    }
                    (self.failing, backoff) = (false, BACKOFF.0);
                }
                Err(error) => {
                    if !self.failing {
                        tracing::warn!(
                            kafka.topic = self.ledger.topic(),
                            error,
                            "the group's progress cannot be kept at the moment; trying again",
                        );
                    }
                    self.failing = true;
                    if self.ledger.pause(backoff) {
                        break;
                    }
                    backoff = (backoff * 2).min(BACKOFF.1);
                }
            }
        }
        let Self { consumer, ledger, copier, .. } = self;
        drop(copier);
        drop(consumer);
        ledger.ended();
    }

    /// Asks where the group is. Kafka answers when no transaction of a former owner is open.
    fn ask(&self, assignments: &[AssignmentEpoch]) -> KafkaResult<()> {
        let topic = self.ledger.topic();
        let mut list = TopicPartitionList::new();
        for AssignmentEpoch { partition, .. } in assignments {
            list.add_partition(topic, *partition);
        }
        let list = self.consumer.committed_offsets(list, DEADLINE)?;
        for assignment in assignments {
            let partition = assignment.partition;
            let Some(element) = list.find_partition(topic, partition) else { continue };
            element.error()?;
            let mut committed = match element.offset() {
                Offset::Offset(offset) => offset,
                _ => 0,
            };
            if committed > 0 {
                let (_, high) = self.consumer.fetch_watermarks(topic, partition, DEADLINE)?;
                if committed > high {
                    tracing::error!(
                        kafka.topic = topic,
                        kafka.partition = partition,
                        "the group has committed offset {committed}, but the log ends at {high}: \
                         the topic was made again, or brokers lost records. The group starts \
                         over in this partition",
                    );
                    committed = 0;
                }
            }
            self.ledger.known(*assignment, committed);
        }
        Ok(())
    }

    fn commit(&self, positions: &[(AssignmentEpoch, i64)]) -> KafkaResult<()> {
        let mut list = TopicPartitionList::new();
        for (AssignmentEpoch { partition, .. }, position) in positions {
            list.add_partition_offset(self.ledger.topic(), *partition, Offset::Offset(*position))?;
        }
        self.consumer.commit(&list, CommitMode::Sync)
    }
}
