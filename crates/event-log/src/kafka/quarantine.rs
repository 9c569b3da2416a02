//! Copies poison to the dead-letter topic in transactions that also move the group's committed
//! offset beyond it (KIP-447): both or neither, and only for a member that the group still knows.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use rdkafka::{
    ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, Consumer as _, ConsumerContext, ConsumerGroupMetadata},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseProducer, BaseRecord, DeliveryResult, Producer as _, ProducerContext},
    types::RDKafkaErrorCode,
};

use super::{
    context::ClientLog,
    metadata::AssignmentEpoch,
    offset_tracker::{Batch, OffsetTracker},
    statistics::Role,
};
use crate::poison::PoisonRecord;

/// How long one step of a transaction may take, and how long it is tried again.
const STEP: Duration = Duration::from_secs(3);
const TRIES: Duration = Duration::from_secs(10);
/// A record of this many bytes is not too large for any topic.
const SMALL: usize = 64 << 10;

type Client = BaseProducer<Quiet>;

/// Owns the transactional producer, which is made when there is the first thing to copy: most
/// members never have any.
pub(super) struct Copier {
    config: ClientConfig,
    topic: String,
    producer: Option<Client>,
    /// The producer may begin transactions.
    ready: bool,
    /// A record was too large for the dead-letter topic: large ones go without their value.
    without_values: AtomicBool,
}

/// What became of an attempt.
enum Failure {
    /// Nothing was written, or what was is aborted.
    Undone(String),
    /// Whether it was committed is not known, or the client is of no use any more.
    Unknown(String),
}

struct Quiet(ClientLog);

impl ClientContext for Quiet {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl ProducerContext for Quiet {
    type DeliveryOpaque = ();

    // A record that is not delivered fails its transaction, which says so.
    fn delivery(&self, _: &DeliveryResult<'_>, (): ()) {}
}

impl Copier {
    pub(super) fn new(config: ClientConfig, topic: &str) -> Self {
        let without_values = AtomicBool::new(false);
        Self { config, topic: topic.to_owned(), producer: None, ready: false, without_values }
    }

    /// Copies those of the batch that are still ours.
    pub(super) fn copy<C: ConsumerContext>(
        &mut self,
        consumer: &BaseConsumer<C>,
        ledger: &OffsetTracker,
        batch: &Batch,
    ) -> Result<(), String> {
        let producer = match self.producer.take() {
            Some(producer) => producer,
            None => self.connect().map_err(|error| error.to_string())?,
        };
        if !self.ready {
            // Once and not again and again: commits wait meanwhile.
            match producer.init_transactions(STEP) {
                Ok(()) => self.ready = true,
                Err(error) => {
                    // What was begun goes on when it is next asked for.
                    self.producer = Some(producer).filter(|_| may_go_on(&error));
                    return Err(error.to_string());
                }
            }
        }
        let member = || {
            let metadata = consumer.group_metadata();
            // A member that the group has put out has metadata that prove nothing.
            metadata.filter(|_| !consumer.assignment_lost())
        };
        let Some((member, ours)) = ledger.permit(batch, member) else {
            self.producer = Some(producer);
            return Ok(());
        };
        let Some(member) = member else {
            self.producer = Some(producer);
            return Err("the group has put this member out".into());
        };
        match self.transact(&producer, ledger, &member, &ours) {
            Ok(()) => {
                self.producer = Some(producer);
                self.without_values.store(false, Ordering::Relaxed);
                ledger.copied(&ours);
                tracing::info!(
                    kafka.topic = self.topic,
                    records = ours.len(),
                    "set poison records aside",
                );
                Ok(())
            }
            Err(Failure::Undone(error)) => {
                self.producer = Some(producer);
                Err(error)
            }
            Err(Failure::Unknown(error)) => {
                // The next client has the same transactional.id, so it first brings to an end
                // whatever this one has left open; then Kafka can say how far the group is.
                ledger.unknown(&ours);
                Err(error)
            }
        }
    }

    fn connect(&mut self) -> Result<Client, KafkaError> {
        self.ready = false;
        BaseProducer::from_config_and_context(&self.config, Quiet(ClientLog::of(Role::Quarantine)))
    }

    fn transact(
        &self,
        producer: &Client,
        ledger: &OffsetTracker,
        member: &ConsumerGroupMetadata,
        batch: &Batch,
    ) -> Result<(), Failure> {
        producer.begin_transaction().map_err(|error| Failure::Unknown(error.to_string()))?;
        let mut offsets = TopicPartitionList::new();
        for (AssignmentEpoch { partition, .. }, poison) in batch {
            if let Err(error) = self.send(producer, poison) {
                return Err(self.undo(producer, &error));
            }
            // They are in order, so the last of a partition stays.
            let offset = Offset::Offset(poison.offset + 1);
            let set = match offsets.find_partition(ledger.topic(), *partition) {
                Some(mut element) => element.set_offset(offset),
                None => offsets.add_partition_offset(ledger.topic(), *partition, offset),
            };
            if let Err(error) = set {
                return Err(self.undo(producer, &error));
            }
        }
        again(|| producer.send_offsets_to_transaction(&offsets, member, STEP))
            .map_err(|error| self.undo(producer, &error))?;
        match again(|| producer.commit_transaction(STEP)) {
            Ok(()) => Ok(()),
            // This one was refused as a whole. After any other error it may have been committed.
            Err(KafkaError::Transaction(error)) if error.txn_requires_abort() => {
                Err(self.undo(producer, &KafkaError::Transaction(error)))
            }
            Err(error) => Err(Failure::Unknown(error.to_string())),
        }
    }

    fn send(&self, producer: &Client, poison: &PoisonRecord) -> Result<(), KafkaError> {
        let mut headers = OwnedHeaders::new_with_capacity(poison.headers.len() + 1);
        for (key, value) in &poison.headers {
            headers = headers.insert(Header { key, value: Some(value) });
        }
        let mut record: BaseRecord<'_, [u8], [u8]> =
            BaseRecord::to(&self.topic).partition(poison.partition);
        record.key = poison.key.as_deref();
        record.payload = poison.value.as_deref();
        if self.without_values.load(Ordering::Relaxed) && poison.bytes() > SMALL {
            let value = Some("left out: the record is larger than this topic allows");
            headers = headers.insert(Header { key: "dlq.value", value });
            record.payload = None;
        }
        record.headers = Some(headers);
        producer.send(record).map_err(|(error, _)| error)
    }

    /// Aborts what was begun.
    fn undo(&self, producer: &Client, error: &KafkaError) -> Failure {
        if error.rdkafka_error_code() == Some(RDKafkaErrorCode::MessageSizeTooLarge) {
            self.without_values.store(true, Ordering::Relaxed);
        }
        let fatal = matches!(error, KafkaError::Transaction(error) if error.is_fatal());
        if fatal || again(|| producer.abort_transaction(STEP)).is_err() {
            return Failure::Unknown(error.to_string());
        }
        Failure::Undone(error.to_string())
    }
}

fn may_go_on(error: &KafkaError) -> bool {
    matches!(error, KafkaError::Transaction(error) if error.is_retriable() && !error.is_fatal())
}

/// Tries a step again for as long as librdkafka says that this may help.
fn again(mut step: impl FnMut() -> Result<(), KafkaError>) -> Result<(), KafkaError> {
    let until = Instant::now() + TRIES;
    loop {
        match step() {
            Err(error) if may_go_on(&error) && Instant::now() < until => {
                std::thread::sleep(Duration::from_millis(50));
            }
            Err(KafkaError::Flush(_)) if Instant::now() < until => {}
            outcome => return outcome,
        }
    }
}
