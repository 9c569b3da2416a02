//! The group's committed offsets, as Kafka keeps them: asked for and committed through the
//! member's consumer. A commit also renews the member's lease.

use std::{
    sync::{Arc, Weak},
    time::{Duration, Instant},
};

use rdkafka::{
    Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext},
    error::{KafkaError, KafkaResult},
    types::RDKafkaErrorCode,
};

use super::membership::MemberLease;
use crate::commits::GroupOffsets;

/// How long a broker may take to answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) struct ConsumerOffsets<C: ConsumerContext + 'static> {
    /// Not kept alive by this: the consumer leaves the group as soon as the reading thread drops
    /// it.
    consumer: Weak<BaseConsumer<C>>,
    topic: String,
    lease: MemberLease,
}

impl<C: ConsumerContext> ConsumerOffsets<C> {
    pub(super) fn new(consumer: &Arc<BaseConsumer<C>>, topic: &str, lease: &MemberLease) -> Self {
        let (topic, lease) = (topic.to_owned(), lease.clone());
        Self { consumer: Arc::downgrade(consumer), topic, lease }
    }

    fn call_consumer<T>(
        &self,
        call: impl FnOnce(&BaseConsumer<C>) -> KafkaResult<T>,
    ) -> Result<T, String> {
        let consumer = self.consumer.upgrade().ok_or("the consumer is closed")?;
        call(&consumer).map_err(|error| error.to_string())
    }

    /// Returns 0 if the group has committed nothing, or an offset above the end of the log.
    fn check_committed(
        &self,
        consumer: &BaseConsumer<C>,
        partition: i32,
        offset: Offset,
    ) -> KafkaResult<i64> {
        let Offset::Offset(committed @ 1..) = offset else { return Ok(0) };
        let (_, high) = consumer.fetch_watermarks(&self.topic, partition, ANSWER_TIMEOUT)?;
        if committed <= high {
            return Ok(committed);
        }
        tracing::error!(
            kafka.topic = self.topic,
            kafka.partition = partition,
            "the group has committed offset {committed}, but the log ends at {high}: the topic was \
             created again, or brokers lost records. The group starts again from offset 0 in this \
             partition",
        );
        Ok(0)
    }
}

impl<C: ConsumerContext + 'static> GroupOffsets for ConsumerOffsets<C> {
    fn fetch_committed(
        &self,
        partitions: &[i32],
        report: &mut dyn FnMut(i32, i64),
    ) -> Result<(), String> {
        self.call_consumer(|consumer| {
            let mut list = TopicPartitionList::new();
            for partition in partitions {
                list.add_partition(&self.topic, *partition);
            }
            let list = consumer.committed_offsets(list, ANSWER_TIMEOUT)?;
            let check = |partition: i32| {
                let element = list.find_partition(&self.topic, partition);
                let element =
                    element.ok_or(KafkaError::OffsetFetch(RDKafkaErrorCode::UnknownPartition))?;
                element.error()?;
                self.check_committed(consumer, partition, element.offset())
            };
            // A partition without a leader must not keep the others from committing.
            let mut outcome = Ok(());
            for partition in partitions {
                match check(*partition) {
                    Ok(committed) => report(*partition, committed),
                    Err(error) => outcome = Err(error),
                }
            }
            outcome
        })
    }

    fn commit_offsets(&self, offsets: &[(i32, i64)]) -> Result<(), String> {
        self.call_consumer(|consumer| {
            let mut list = TopicPartitionList::new();
            for (partition, offset) in offsets {
                list.add_partition_offset(&self.topic, *partition, Offset::Offset(*offset))?;
            }
            let asked_at = Instant::now();
            let committed = consumer.commit(&list, CommitMode::Sync);
            self.lease.record_commit(asked_at, &committed);
            committed
        })
    }
}
