//! A group member on a polling thread of its own. Callbacks and records arrive on that one thread,
//! so the fold sees everything in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use crate::metrics::REBALANCES;
use metrics::counter;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList,
    admin::AdminClient,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    topic_partition_list::TopicPartitionListElem,
};

use super::{
    KafkaSettings, commits::ConsumerOffsets, context::ClientLog, folding::PartitionDriver,
    statistics::ClientRole,
};
use crate::{
    Group, LogUnreachable, PartitionHandler, Reader, commits, dlq::DlqWriter,
    offset_tracker::OffsetTracker, reader::ReaderStatus,
};

/// How long a poll waits for a record, and so how soon a stop is noticed at the latest.
const POLL: Duration = Duration::from_millis(100);
/// How often what is not about a record is looked at. The lease of the view is hundreds of times as long.
const TICK: Duration = Duration::from_millis(10);
/// How often progress is committed. It is only told to lag tools, so seconds do.
const COMMIT_EVERY: Duration = Duration::from_secs(5);
/// How long a stop waits for what the group is still to be told.
const GOODBYE: Duration = Duration::from_secs(3);
/// After how long a stop of this thread, or of the whole process, the partitions may be another's:
/// the group's session of 10 s, less the second by which the last heartbeat may be older than the
/// stop, less what is needed to be sure on a busy machine.
const LAPSE: Duration = Duration::from_secs(6);
/// How long after a fatal error a new client is made.
const REJOIN_AFTER: Duration = Duration::from_secs(2);

/// See [`Log::join`](crate::Log::join).
pub(super) fn join<F: PartitionHandler>(
    settings: &KafkaSettings,
    admin: Arc<AdminClient<ClientLog>>,
    topic: &str,
    group: &Group,
    dlq: Option<DlqWriter>,
    fold: F,
) -> Result<Reader, LogUnreachable> {
    let signs = Arc::new(ReaderStatus::default());
    let folding = PartitionDriver::new(admin, topic, Arc::clone(&signs), fold)?;
    let member = Member {
        consumer: settings.consumer_config(group),
        dlq,
        topic: topic.to_owned(),
        group: group.id.clone(),
        signs: Arc::clone(&signs),
        folder: Arc::new(Folder {
            log: ClientLog::new(ClientRole::Reader),
            folding: Mutex::new(folding),
        }),
    };
    // Made here, so that a wrong setting is an error at start.
    let first = member.connect()?;
    Ok(Reader::spawn("kafka-reader", &signs, move |stop| {
        let mut client = Some(first);
        while !stop.load(Ordering::Acquire) {
            match client.take().map_or_else(|| member.connect(), Ok) {
                Ok((consumer, ledger)) => member.run(consumer, &ledger, stop),
                Err(error) => tracing::error!(%error, "cannot join the group again"),
            }
            if !stop.load(Ordering::Acquire) {
                std::thread::sleep(REJOIN_AFTER);
            }
        }
    }))
}

type Client<F> = BaseConsumer<Shared<F>>;

/// What it takes to join, once and again.
struct Member<F: PartitionHandler> {
    consumer: ClientConfig,
    dlq: Option<DlqWriter>,
    topic: String,
    group: String,
    signs: Arc<ReaderStatus>,
    folder: Arc<Folder<F>>,
}

impl<F: PartitionHandler> Member<F> {
    fn connect(&self) -> Result<(Client<F>, Arc<OffsetTracker>), LogUnreachable> {
        let wrong = |error: KafkaError| LogUnreachable(format!("Kafka consumer: {error}"));
        let (has_dlq, status) = (self.dlq.is_some(), Arc::clone(&self.signs));
        let ledger = OffsetTracker::new(&self.topic, &self.group, has_dlq, status);
        let ledger = Arc::new(ledger);
        self.folder.folding.lock().tell(Arc::clone(&ledger));
        let shared = Shared { folder: Arc::clone(&self.folder), ledger: Arc::clone(&ledger) };
        let consumer =
            BaseConsumer::from_config_and_context(&self.consumer, shared).map_err(wrong)?;
        consumer.subscribe(&[&self.topic]).map_err(wrong)?;
        Ok((consumer, ledger))
    }

    fn run(&self, consumer: Client<F>, ledger: &Arc<OffsetTracker>, stop: &AtomicBool) {
        let consumer = Arc::new(consumer);
        let offsets = ConsumerOffsets::new(&consumer, &self.topic);
        match commits::start_workers(ledger, offsets, self.dlq.clone()) {
            Ok(()) => self.poll(&consumer, stop),
            Err(error) => {
                tracing::error!(%error, "cannot start the threads that commit offsets and copy poison records")
            }
        }
        let mut folding = self.folder.folding.lock();
        if stop.load(Ordering::Acquire) {
            folding.tell_progress();
            ledger.close(GOODBYE);
        }
        // Whatever comes now, nobody may be answered from partitions that may be another's.
        let all = folding.assigned();
        if !stop.load(Ordering::Acquire) && !all.is_empty() {
            rebalanced("lost");
        }
        let told = folding.revoke(&all);
        commit(&consumer, &self.topic, &told);
        ledger.close(Duration::ZERO);
        // The callbacks of the goodbye take the lock.
        drop(folding);
        drop(consumer);
    }

    /// Polls until told to stop, or until the client failed for good.
    fn poll(&self, consumer: &Client<F>, stop: &AtomicBool) {
        let now = Instant::now();
        let (mut told, mut ticked, mut polled_at) = (now, now, now);
        while !stop.load(Ordering::Acquire) {
            // The callbacks of the poll take the lock too, so it is taken after the poll.
            let polled = consumer.poll(POLL);
            let now = Instant::now();
            let mut folding = self.folder.folding.lock();
            if now - polled_at > LAPSE {
                tracing::warn!("this process was stopped for long; joining the group again");
                return;
            }
            polled_at = now;
            // What is not about a record is done now and then: a replay has millions of them.
            let due = now - ticked >= TICK || polled.is_none();
            if due {
                ticked = now;
                folding.tick();
            }
            if let Err(code) = folding.take(polled) {
                tracing::error!(%code, "the Kafka consumer failed for good; joining again");
                return;
            }
            if due {
                folding.watch(consumer);
            }
            if now - told >= COMMIT_EVERY {
                told = now;
                folding.tell_progress();
            }
        }
    }
}

/// The context of each client of a reader: clients may come and go, the fold stays.
struct Shared<F: PartitionHandler> {
    folder: Arc<Folder<F>>,
    /// Of this client alone.
    ledger: Arc<OffsetTracker>,
}

struct Folder<F: PartitionHandler> {
    log: ClientLog,
    /// Taken by the polling thread alone: by its loop between polls, by callbacks within one.
    folding: Mutex<PartitionDriver<F>>,
}

/// Commits these positions, without waiting.
fn commit<F: PartitionHandler>(consumer: &Client<F>, topic: &str, positions: &[(i32, i64)]) {
    let mut list = TopicPartitionList::new();
    for (partition, position) in positions {
        let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*position));
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        uncommitted(&error);
    }
}

fn rebalanced(kind: &'static str) {
    counter!(REBALANCES, "kind" => kind).increment(1);
}

fn uncommitted(error: &KafkaError) {
    tracing::debug!(%error, "progress was not committed; the next commit covers it");
}

impl<F: PartitionHandler> ClientContext for Shared<F> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.folder.log.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.folder.log.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.folder.log.error(error, reason);
    }
}

impl<F: PartitionHandler> ConsumerContext for Shared<F> {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut folding = self.folder.folding.lock();
        if !folding.tells(&self.ledger) {
            // The goodbye of a client that was replaced: its partitions were revoked long ago.
            return;
        }
        match rebalance {
            Rebalance::Assign(list) => {
                rebalanced("assigned");
                for element in &mut list.elements() {
                    // The fold knows where, whatever the group has committed: from the beginning,
                    // or from what it has from an earlier time.
                    let start = folding.assign(element.partition());
                    if let Err(error) = element.set_offset(start) {
                        tracing::error!(%error, "cannot start a partition where it is to be read");
                    }
                }
            }
            Rebalance::Revoke(list) => {
                rebalanced(if consumer.assignment_lost() { "lost" } else { "revoked" });
                let elements = list.elements();
                let partitions: Vec<_> =
                    elements.iter().map(TopicPartitionListElem::partition).collect();
                let told = folding.revoke(&partitions);
                commit(consumer, folding.topic(), &told);
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            uncommitted(&error);
        }
    }
}
