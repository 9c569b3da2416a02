//! A group member on a polling thread of its own. Callbacks and records arrive on that one thread,
//! so the fold sees everything in order.

use std::{
    collections::HashMap,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList,
    admin::AdminClient,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    message::{BorrowedMessage, Headers as _, Message as _},
    types::RDKafkaErrorCode,
};

use super::{
    KafkaSettings,
    context::ClientLog,
    extents::{Assignment, Extents},
};
use crate::{Extent, Fold, Group, Reader, Record, Unreachable};

/// How long a poll waits for a record, and so how soon a stop is noticed at the latest.
const POLL: Duration = Duration::from_millis(100);
/// How often progress is committed. It is only told to lag tools, so seconds do.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How long after a fatal error a new client is made.
const REJOIN_AFTER: Duration = Duration::from_secs(2);

/// See [`Log::join`](crate::Log::join).
pub(super) fn join<F: Fold>(
    settings: &KafkaSettings,
    admin: Arc<AdminClient<ClientLog>>,
    topic: &str,
    group: &Group,
    fold: F,
) -> Result<Reader, Unreachable> {
    let config = settings.consumer(group);
    let extents = Extents::start(admin, topic.to_owned())
        .map_err(|error| Unreachable(format!("no thread for watermarks: {error}")))?;
    let folding = Folding {
        fold,
        topic: topic.to_owned(),
        assigned: HashMap::new(),
        assignments: 0,
        extents,
    };
    let context = Arc::new(Folder { log: ClientLog::default(), folding: Mutex::new(folding) });
    // Made here, so that a wrong setting is an error at start.
    let first = connect(&config, &context, topic)?;
    let topic = topic.to_owned();
    Ok(Reader::spawn("kafka-reader", move |stop| {
        let mut client = Some(first);
        while !stop.load(Ordering::Acquire) {
            let Some(consumer) = client.take() else {
                match connect(&config, &context, &topic) {
                    Ok(new) => client = Some(new),
                    Err(error) => tracing::error!(%error, "cannot join the group again"),
                }
                continue;
            };
            poll(&consumer, &context.folding, stop);
            // Whatever comes now, nobody may be answered from partitions that may be another's.
            context.folding.lock().revoke_all(&consumer);
            drop(consumer);
            if !stop.load(Ordering::Acquire) {
                std::thread::sleep(REJOIN_AFTER);
            }
        }
    }))
}

type Client<F> = BaseConsumer<Shared<F>>;

fn connect<F: Fold>(
    config: &ClientConfig,
    context: &Arc<Folder<F>>,
    topic: &str,
) -> Result<Client<F>, Unreachable> {
    let consumer = BaseConsumer::from_config_and_context(config, Shared(Arc::clone(context)))
        .map_err(|error| Unreachable(format!("Kafka consumer: {error}")))?;
    consumer
        .subscribe(&[topic])
        .map_err(|error| Unreachable(format!("Kafka consumer: {error}")))?;
    Ok(consumer)
}

/// Polls until told to stop, or until the client failed for good.
fn poll<F: Fold>(consumer: &Client<F>, folding: &Mutex<Folding<F>>, stop: &AtomicBool) {
    let mut committed = Instant::now();
    while !stop.load(Ordering::Acquire) {
        match consumer.poll(POLL) {
            Some(Ok(message)) => folding.lock().record(&message),
            Some(Err(KafkaError::PartitionEOF(partition))) => folding.lock().caught_up(partition),
            Some(Err(KafkaError::MessageConsumptionFatal(code))) => {
                tracing::error!(%code, "the Kafka consumer failed for good; joining again");
                return;
            }
            Some(Err(error)) => complain(&error),
            None => folding.lock().fold.idle(),
        }
        folding.lock().hear_extents();
        if committed.elapsed() >= COMMIT_EVERY {
            committed = Instant::now();
            folding.lock().commit(consumer, None);
        }
    }
}

fn complain(error: &KafkaError) {
    match error.rdkafka_error_code() {
        // Told by the client's own log already, once for each broker and each time.
        Some(
            RDKafkaErrorCode::BrokerTransportFailure
            | RDKafkaErrorCode::AllBrokersDown
            | RDKafkaErrorCode::Resolve,
        ) => tracing::debug!(%error, "Kafka"),
        _ => tracing::warn!(%error, "Kafka consumer"),
    }
}

/// The context of each client of a reader: clients may come and go, the fold stays.
struct Shared<F: Fold>(Arc<Folder<F>>);

struct Folder<F: Fold> {
    log: ClientLog,
    /// Taken by the polling thread alone: by its loop between polls, by callbacks within one.
    folding: Mutex<Folding<F>>,
}

impl<F: Fold> ClientContext for Shared<F> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log.log(level, facility, message);
    }

    fn stats(&self, _: Statistics) {}

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.log.error(error, reason);
    }
}

impl<F: Fold> ConsumerContext for Shared<F> {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut folding = self.0.folding.lock();
        match rebalance {
            Rebalance::Assign(list) => {
                for element in &mut list.elements() {
                    // The view is in memory, so it starts from the beginning, whatever the group
                    // has committed.
                    if let Err(error) = element.set_offset(Offset::Beginning) {
                        tracing::error!(%error, "cannot start a partition from its beginning");
                    }
                    folding.assigned(element.partition());
                }
            }
            Rebalance::Revoke(list) => {
                let partitions: Vec<_> = list.elements().iter().map(|e| e.partition()).collect();
                folding.revoke(consumer, &partitions);
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            tracing::debug!(%error, "progress was not committed; the next commit covers it");
        }
    }
}

/// The fold, and how far it is in each partition.
struct Folding<F> {
    fold: F,
    topic: String,
    assigned: HashMap<i32, Progress>,
    assignments: u64,
    extents: Extents,
}

struct Progress {
    number: u64,
    /// One beyond the last record that was folded; none before the first.
    next: Option<i64>,
    committed: Option<i64>,
    high: Option<i64>,
    live: bool,
}

impl<F: Fold> Folding<F> {
    fn assigned(&mut self, partition: i32) {
        self.assignments += 1;
        let number = self.assignments;
        let progress = Progress { number, next: None, committed: None, high: None, live: false };
        if self.assigned.insert(partition, progress).is_some() {
            self.fold.revoked(partition);
        }
        tracing::info!(kafka.topic = self.topic, kafka.partition = partition, "partition assigned");
        self.fold.assigned(partition);
        self.extents.ask(Assignment { partition, number });
    }

    fn record(&mut self, message: &BorrowedMessage<'_>) {
        let partition = message.partition();
        // A record that was fetched before a revocation may still come; it is not ours.
        let Some(progress) = self.assigned.get_mut(&partition) else { return };
        progress.next = Some(message.offset() + 1);
        self.fold.record(&Record {
            partition,
            offset: message.offset(),
            timestamp_ms: message.timestamp().to_millis().unwrap_or(0),
            key: message.key(),
            value: message.payload(),
            headers: headers(message),
        });
        if !progress.live && progress.next >= progress.high && progress.high.is_some() {
            progress.live = true;
            self.fold.live(partition);
        }
    }

    /// The end of the partition was reached: everything that is there has been given to us.
    fn caught_up(&mut self, partition: i32) {
        if let Some(progress) = self.assigned.get_mut(&partition)
            && !progress.live
        {
            progress.live = true;
            self.fold.live(partition);
        }
    }

    fn hear_extents(&mut self) {
        while let Some((Assignment { partition, number }, extent)) = self.extents.answer() {
            let Some(progress) = self.assigned.get_mut(&partition) else { continue };
            if progress.number != number {
                continue;
            }
            let Extent { low, high } = extent;
            progress.high = Some(high);
            self.fold.extent(partition, extent);
            // A busy partition may never say that its end was reached, so the watermark counts too.
            if !progress.live && (low == high || progress.next.is_some_and(|next| next >= high)) {
                progress.live = true;
                self.fold.live(partition);
            }
        }
    }

    fn revoke(&mut self, consumer: &Client<F>, partitions: &[i32]) {
        self.commit(consumer, Some(partitions));
        for partition in partitions {
            if self.assigned.remove(partition).is_some() {
                self.fold.revoked(*partition);
                tracing::info!(kafka.topic = self.topic, kafka.partition = partition, "partition revoked");
            }
        }
    }

    fn revoke_all(&mut self, consumer: &Client<F>) {
        let partitions: Vec<_> = self.assigned.keys().copied().collect();
        self.revoke(consumer, &partitions);
    }

    /// Commits what moved since the last time, of these partitions or of all.
    fn commit(&mut self, consumer: &Client<F>, partitions: Option<&[i32]>) {
        let mut list = TopicPartitionList::new();
        for (partition, progress) in &mut self.assigned {
            let wanted = partitions.is_none_or(|partitions| partitions.contains(partition));
            let Some(next) = progress.next.filter(|_| wanted) else { continue };
            // A replay is behind what was committed before; the group's progress never goes back.
            if progress.live && progress.committed != Some(next) {
                progress.committed = Some(next);
                let _ = list.add_partition_offset(&self.topic, *partition, Offset::Offset(next));
            }
        }
        if list.count() > 0
            && let Err(error) = consumer.commit(&list, CommitMode::Async)
        {
            tracing::debug!(%error, "progress was not committed; the next commit covers it");
        }
    }
}

/// The headers of a message. rdkafka panics at a header name that is not UTF-8, and a record from
/// outside must not end this thread: such a record is read as if it had none.
fn headers<'m>(message: &'m BorrowedMessage<'_>) -> smallvec::SmallVec<[(&'m str, &'m [u8]); 8]> {
    let read = catch_unwind(AssertUnwindSafe(|| {
        let headers = message.headers()?;
        Some(headers.iter().filter_map(|header| Some((header.key, header.value?))).collect())
    }));
    match read {
        Ok(headers) => headers.unwrap_or_default(),
        Err(_) => {
            tracing::warn!(
                kafka.partition = message.partition(), kafka.offset = message.offset(),
                "a header's name is not UTF-8; the record is read without headers",
            );
            smallvec::SmallVec::new()
        }
    }
}
