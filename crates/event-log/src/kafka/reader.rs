//! A group member on a polling thread of its own. librdkafka runs its callbacks on that thread too,
//! so the handler sees assignments, records and revocations in order.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use metrics::counter;
use parking_lot::Mutex;
use rdkafka::{
    ClientConfig, ClientContext, Offset, Statistics, TopicPartitionList,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    consumer::{BaseConsumer, CommitMode, Consumer, ConsumerContext, Rebalance},
    error::{KafkaError, KafkaResult},
    topic_partition_list::TopicPartitionListElem,
};

use super::{
    KafkaSettings, KafkaWriter,
    admin::AdminHandle,
    commits::ConsumerOffsets,
    context::{ClientLog, LOST_BROKERS},
    driver::PartitionDriver,
    epochs::TopicEpochs,
    membership::MemberLease,
};
use crate::{
    Group, LogUnreachable, PartitionHandler, Reader, Topic, commits,
    dlq::DlqWriter,
    metrics::REBALANCES,
    offset_tracker::OffsetTracker,
    reader::{READING_LEASE_TTL, ReaderStatus},
};

/// How long a poll waits for a record. A stop is noticed after this at the latest.
const POLL_TIMEOUT: Duration = Duration::from_millis(100);
/// How often the handler is told of the lease and the driver's checks run. The lease is far longer.
const TICK_INTERVAL: Duration = Duration::from_millis(10);
/// How often all progress is committed. Only lag tools depend on it.
const COMMIT_INTERVAL: Duration = Duration::from_secs(5);
/// How long a stop waits for the last commits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);
/// After a pause of this thread of this length (a stopped process, a suspended machine) the group
/// may have given the partitions to another member: the session timeout of 10 s, less 1 s by which
/// the last heartbeat may precede the pause, less a margin for a busy machine.
const MAX_POLL_PAUSE: Duration = Duration::from_secs(6);
/// How long to wait before a new client replaces one that failed for good.
const REJOIN_DELAY: Duration = Duration::from_secs(2);

/// See [`Log::join_group`](crate::Log::join_group).
pub(super) fn join_group<H: PartitionHandler>(
    settings: &KafkaSettings,
    admin: AdminHandle,
    epochs: &TopicEpochs,
    topic: &Topic,
    group: &Group,
    dlq: Option<DlqWriter<KafkaWriter>>,
    handler: H,
) -> Result<Reader, LogUnreachable> {
    let status = Arc::new(ReaderStatus::default());
    let partitions = Some(topic.partitions);
    let driver = PartitionDriver::new(
        settings,
        admin,
        epochs,
        &topic.name,
        partitions,
        Arc::clone(&status),
        handler,
    )?;
    let consumer = settings.consumer_config(group);
    let member = GroupMember {
        lease: MemberLease::from_config(&consumer),
        consumer,
        dlq,
        topic: topic.name.clone(),
        group: group.id.clone(),
        status: Arc::clone(&status),
        log: ClientLog::new("reader"),
        driver: Arc::new(Mutex::new(driver)),
    };
    // Here and not on the thread, so that a wrong setting is an error at the start.
    let first = member.connect()?;
    Ok(Reader::spawn("kafka-reader", &status, move |stop| {
        let mut client = Some(first);
        while !stop.load(Ordering::Acquire) {
            match client.take().map_or_else(|| member.connect(), Ok) {
                Ok((consumer, tracker)) => member.run_client(consumer, &tracker, stop),
                Err(error) => tracing::error!(%error, "cannot join the group again"),
            }
            if !stop.load(Ordering::Acquire) {
                std::thread::sleep(REJOIN_DELAY);
            }
        }
    }))
}

type MemberClient<H> = BaseConsumer<MemberContext<H>>;
/// Locked by the polling thread alone: between polls by its loop, within them by callbacks.
type SharedDriver<H> = Arc<Mutex<PartitionDriver<H>>>;

/// Creates the clients that join the group: the first one, and those that replace it.
struct GroupMember<H: PartitionHandler> {
    consumer: ClientConfig,
    dlq: Option<DlqWriter<KafkaWriter>>,
    topic: String,
    group: String,
    status: Arc<ReaderStatus>,
    log: ClientLog,
    driver: SharedDriver<H>,
    lease: MemberLease,
}

impl<H: PartitionHandler> GroupMember<H> {
    fn connect(&self) -> Result<(MemberClient<H>, Arc<OffsetTracker>), LogUnreachable> {
        let wrong = |error: KafkaError| LogUnreachable(format!("Kafka consumer: {error}"));
        let (has_dlq, status) = (self.dlq.is_some(), Arc::clone(&self.status));
        let tracker = OffsetTracker::new(&self.topic, &self.group, has_dlq, status);
        let tracker = Arc::new(tracker);
        self.driver.lock().partitions.set_tracker(Arc::clone(&tracker));
        let (log, driver) = (self.log.clone(), Arc::clone(&self.driver));
        let context = MemberContext { log, driver, tracker: Arc::clone(&tracker) };
        let consumer =
            BaseConsumer::from_config_and_context(&self.consumer, context).map_err(wrong)?;
        consumer.subscribe(&[&self.topic]).map_err(wrong)?;
        Ok((consumer, tracker))
    }

    fn run_client(
        &self,
        consumer: MemberClient<H>,
        tracker: &Arc<OffsetTracker>,
        stop: &AtomicBool,
    ) {
        let consumer = Arc::new(consumer);
        let offsets = || ConsumerOffsets::new(&consumer, &self.topic, &self.lease);
        let started = commits::start_workers(tracker, offsets(), self.dlq.clone());
        match started.and_then(|()| MemberLease::start_renewals(tracker, offsets())) {
            Ok(()) => self.poll_until_stopped(&consumer, stop),
            Err(error) => {
                tracing::error!(%error, "cannot start the threads that commit offsets and copy poison records");
            }
        }
        self.lease.end();
        let mut driver = self.driver.lock();
        if stop.load(Ordering::Acquire) {
            driver.partitions.record_progress();
            tracker.close(CLOSE_TIMEOUT);
        }
        // The partitions may be another member's now, so the handler must stop answering from them.
        let partitions = driver.partitions.numbers();
        if !stop.load(Ordering::Acquire) && !partitions.is_empty() {
            count_rebalance("lost");
        }
        let positions = driver.revoke_partitions(&partitions);
        commit_positions(&consumer, &self.topic, &positions);
        tracker.close(Duration::ZERO);
        // Dropping the consumer runs callbacks that take the lock.
        drop(driver);
        drop(consumer);
    }

    /// Polls until told to stop, or until the client has failed for good.
    fn poll_until_stopped(&self, consumer: &MemberClient<H>, stop: &AtomicBool) {
        let now = Instant::now();
        let (mut recorded_at, mut ticked_at, mut polled_at) = (now, now, now);
        while !stop.load(Ordering::Acquire) {
            // The poll's callbacks take the lock too, so it is taken after the poll.
            let polled = consumer.poll(POLL_TIMEOUT);
            let now = Instant::now();
            let mut driver = self.driver.lock();
            if now - polled_at > MAX_POLL_PAUSE {
                tracing::warn!(
                    pause_ms = u64::try_from((now - polled_at).as_millis()).unwrap_or(u64::MAX),
                    "the Kafka consumer was not polled for a while: the process or a call to the \
                     brokers was held up. The group may have given its partitions to another \
                     member; rejoining",
                );
                return;
            }
            polled_at = now;
            // Not at each record: a replay has millions of them.
            let is_due = now - ticked_at >= TICK_INTERVAL || polled.is_none();
            if is_due {
                ticked_at = now;
                let until = self.lease.until().unwrap_or(now);
                driver.partitions.renew_lease(until.min(now + READING_LEASE_TTL));
            }
            if let Err(code) = driver.handle_polled(polled) {
                tracing::error!(%code, "the Kafka consumer failed for good; rejoining the group");
                return;
            }
            if is_due {
                driver.run_checks(consumer);
                if self.log.take_lost_brokers() {
                    tracing::error!("{LOST_BROKERS}; rejoining the group with a new one");
                    return;
                }
                if driver.take_stale_client() {
                    tracing::warn!("the topic was created again; rejoining the group");
                    return;
                }
            }
            if now - recorded_at >= COMMIT_INTERVAL {
                recorded_at = now;
                driver.partitions.record_progress();
            }
        }
    }
}

/// The context of one client. Clients are replaced; the driver and its handler stay.
struct MemberContext<H: PartitionHandler> {
    log: ClientLog,
    driver: SharedDriver<H>,
    tracker: Arc<OffsetTracker>,
}

/// Commits these positions without waiting.
fn commit_positions<H: PartitionHandler>(
    consumer: &MemberClient<H>,
    topic: &str,
    positions: &[(i32, i64)],
) {
    let mut list = TopicPartitionList::new();
    for (partition, position) in positions {
        let _ = list.add_partition_offset(topic, *partition, Offset::Offset(*position));
    }
    if list.count() > 0
        && let Err(error) = consumer.commit(&list, CommitMode::Async)
    {
        log_failed_commit(&error);
    }
}

fn count_rebalance(kind: &'static str) {
    counter!(REBALANCES, "kind" => kind).increment(1);
}

fn log_failed_commit(error: &KafkaError) {
    tracing::debug!(%error, "commit failed; the next commit covers it");
}

impl<H: PartitionHandler> ClientContext for MemberContext<H> {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.log.log(level, facility, message);
    }

    fn stats(&self, statistics: Statistics) {
        self.log.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.log.error(error, reason);
    }
}

impl<H: PartitionHandler> ConsumerContext for MemberContext<H> {
    fn pre_rebalance(&self, consumer: &BaseConsumer<Self>, rebalance: &Rebalance<'_>) {
        let mut driver = self.driver.lock();
        if !driver.partitions.uses_tracker(&self.tracker) {
            // A replaced client leaves the group; its partitions were revoked before.
            return;
        }
        match rebalance {
            Rebalance::Assign(list) => {
                count_rebalance("assigned");
                for element in &mut list.elements() {
                    // The handler decides where to start, not the group's committed offset.
                    let start = driver.assign_partition(element.partition());
                    if let Err(error) = element.set_offset(start) {
                        tracing::error!(%error, "cannot set the start offset of a partition");
                    }
                }
            }
            Rebalance::Revoke(list) => {
                count_rebalance(if consumer.assignment_lost() { "lost" } else { "revoked" });
                let elements = list.elements();
                let partitions: Vec<_> =
                    elements.iter().map(TopicPartitionListElem::partition).collect();
                let positions = driver.revoke_partitions(&partitions);
                commit_positions(consumer, driver.partitions.topic(), &positions);
            }
            Rebalance::Error(error) => tracing::warn!(%error, "rebalance"),
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        if let Err(error) = result {
            log_failed_commit(&error);
        }
    }
}
