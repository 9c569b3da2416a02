//! Appends to Kafka with an idempotent producer (`acks=all`), and a supervisor that replaces the
//! producer after a fatal error.

use std::{
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use parking_lot::RwLock;
use rdkafka::{
    ClientConfig,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{BaseRecord, Producer as _, ThreadedProducer},
    types::RDKafkaErrorCode,
};

use super::{
    KafkaSettings,
    acks::{AckWakeups, KafkaAck, PendingAck},
    admin::AdminHandle,
    context::{BrokerRefusal, ClientLog, LOST_BROKERS},
    epochs::TopicEpochs,
    writer_context::WriterContext,
};
use crate::{AppendError, LogUnreachable, dlq::AppendCopy, poison::PoisonRecord};

/// How often the supervisor checks the producer, and how long a broker may take to answer it.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a replaced producer may take for the records in its queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a flush looks if the queue is empty.
const FLUSH_CHECK_INTERVAL: Duration = Duration::from_millis(5);

type ProducerClient = Arc<ThreadedProducer<WriterContext>>;

/// Appends to Kafka. A cheap handle, to be cloned; all clones share one client.
#[derive(Clone)]
pub struct KafkaWriter(Arc<WriterShared>);

struct WriterShared {
    config: ClientConfig,
    /// Replaced after a fatal error. The lock is held while a record is queued, which never blocks.
    client: RwLock<ProducerClient>,
    context: WriterContext,
    /// A broker answered one of the last two checks. While none does, appends fail at once: a record
    /// that waits in the queue might be written after its sender gave up.
    reachable: AtomicBool,
}

impl KafkaWriter {
    pub(super) fn new(
        settings: &KafkaSettings,
        admin: AdminHandle,
        epochs: TopicEpochs,
    ) -> Result<Self, LogUnreachable> {
        let mut config = settings.producer_config();
        // librdkafka logs a closed connection (a TLS listener's answer to plaintext) at INFO only.
        config.set_log_level(RDKafkaLogLevel::Info);
        let log = ClientLog::new("writer");
        let context = WriterContext { log, epochs, wakeups: AckWakeups::start() };
        let client = RwLock::new(new_producer(&config, &context)?);
        let shared =
            Arc::new(WriterShared { config, client, context, reachable: AtomicBool::new(true) });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("kafka-writer".into())
            .spawn(move || supervise_writer(&weak, &admin))
            .map_err(|error| {
                LogUnreachable(format!("no thread for the Kafka producer: {error}"))
            })?;
        Ok(Self(shared))
    }

    pub(crate) fn append<'r>(
        &self,
        topic: &'r str,
        partition: i32,
        key: &'r [u8],
        value: &'r [u8],
        headers: impl ExactSizeIterator<Item = (&'r str, &'r [u8])>,
    ) -> Result<KafkaAck, AppendError> {
        self.send_message(topic, |pending| {
            BaseRecord::with_opaque_to(topic, pending)
                .partition(partition)
                .key(key)
                .payload(value)
                .headers(owned_headers(headers))
        })
    }

    fn send_message<'r>(
        &self,
        topic: &str,
        record: impl FnOnce(Arc<PendingAck>) -> BaseRecord<'r, [u8], [u8], Arc<PendingAck>>,
    ) -> Result<KafkaAck, AppendError> {
        let WriterContext { log, epochs, .. } = &self.0.context;
        if !self.0.reachable.load(Ordering::Acquire) {
            return Err(AppendError::Unreachable("no broker answers".into()));
        }
        let pending = PendingAck::new(epochs.topic(topic));
        let sent = self.0.client.read().send(record(Arc::clone(&pending)));
        match sent {
            Ok(()) => Ok(KafkaAck::new(pending)),
            Err((error, _)) => {
                let error = queue_error(&error);
                if error != AppendError::Full {
                    log.set_suspect();
                }
                Err(error)
            }
        }
    }

    /// Why the brokers refuse the client, if they do.
    pub(super) fn last_refusal(&self) -> Option<BrokerRefusal> {
        self.0.context.log.last_refusal()
    }

    pub(crate) async fn flush(&self, deadline: Duration) -> bool {
        let client = self.0.client.read().clone();
        let until = Instant::now() + deadline;
        while client.in_flight_count() > 0 {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(FLUSH_CHECK_INTERVAL).await;
        }
        true
    }
}

impl AppendCopy for KafkaWriter {
    type Ack = KafkaAck;

    fn append_copy(&self, topic: &str, poison: &PoisonRecord) -> Result<KafkaAck, AppendError> {
        let headers = poison.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.send_message(topic, |pending| BaseRecord {
            topic,
            partition: Some(poison.partition),
            payload: poison.value.as_deref(),
            key: Some(poison.key.as_bytes()),
            timestamp: None,
            headers: Some(owned_headers(headers)),
            delivery_opaque: pending,
        })
    }
}

fn owned_headers<'h>(headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])>) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    headers.fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }))
}

fn new_producer(
    config: &ClientConfig,
    context: &WriterContext,
) -> Result<ProducerClient, LogUnreachable> {
    ThreadedProducer::from_config_and_context(config, context.clone())
        .map(Arc::new)
        .map_err(|error| LogUnreachable(format!("Kafka producer: {error}")))
}

/// Checks after each sign of trouble if the brokers answer, and replaces a producer that had a fatal
/// error. Ends with the last handle.
fn supervise_writer(shared: &Weak<WriterShared>, admin: &AdminHandle) {
    let mut has_failed = false;
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        let Some(shared) = shared.upgrade() else { return };
        let log = &shared.context.log;
        let was_reachable = shared.reachable.load(Ordering::Acquire);
        if !log.take_suspect() && was_reachable {
            continue;
        }
        let client = shared.client.read().clone();
        let fatal = client.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
        let lost = log.take_lost_brokers().then(|| LOST_BROKERS.to_owned());
        if let Some(reason) = fatal.or(lost) {
            tracing::error!(reason, "fatal error of the Kafka producer; replacing it");
            match new_producer(&shared.config, &shared.context) {
                Ok(new) => {
                    let old = std::mem::replace(&mut *shared.client.write(), new);
                    // Each record in its queue fails, which answers its sender.
                    let until = Instant::now() + FLUSH_TIMEOUT;
                    while old.in_flight_count() > 0 && Instant::now() < until {
                        std::thread::sleep(FLUSH_CHECK_INTERVAL);
                    }
                }
                Err(error) => tracing::error!(%error, "cannot replace the Kafka producer"),
            }
            log.set_suspect();
            continue;
        }
        // Over the admin client's own connections: on the producer's, the answer would wait behind
        // records that wait for a replica.
        let answers = admin
            .query(|client| client.fetch_metadata(Some("__consumer_offsets"), PING_TIMEOUT))
            .is_ok();
        if answers {
            log.record_answer();
        } else if !std::mem::replace(&mut has_failed, true) && !log.has_no_broker() {
            // librdkafka may have asked a broker that is going down. It asks another one next.
            log.set_suspect();
            continue;
        }
        has_failed = !answers;
        shared.reachable.store(answers, Ordering::Release);
        if answers != was_reachable {
            if answers {
                tracing::info!("Kafka is reachable again; accepting records");
            } else {
                tracing::warn!("Kafka is unreachable; rejecting records");
            }
        }
    }
}

/// The error of a record that was not queued.
fn queue_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::QueueFull) => AppendError::Full,
        Some(RDKafkaErrorCode::MessageSizeTooLarge) => AppendError::TooLarge,
        Some(RDKafkaErrorCode::Fatal) => {
            AppendError::Unreachable("the client is being replaced".into())
        }
        Some(
            code @ (RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition),
        ) => AppendError::Unreachable(code.to_string()),
        _ => AppendError::Refused(error.to_string()),
    }
}
