//! Appends to Kafka with an idempotent producer (`acks=all`), and a supervisor that replaces the
//! producer after a fatal error.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use parking_lot::RwLock;
use rdkafka::{
    ClientConfig,
    config::{FromClientConfigAndContext, RDKafkaLogLevel},
    error::KafkaError,
    message::{Header, OwnedHeaders},
    producer::{DeliveryFuture, FutureProducer, FutureRecord, Producer as _},
    types::RDKafkaErrorCode,
};

use super::{
    KafkaSettings,
    admin::AdminHandle,
    context::{BrokerRefusal, ClientLog, LOST_BROKERS},
    epochs::TopicEpochs,
};
use crate::{
    AppendError, LogUnreachable, NewRecord, Position, dlq::AppendCopy, poison::PoisonRecord,
};

/// How often the supervisor checks the producer, and how long a broker may take to answer it.
const CHECK_INTERVAL: Duration = Duration::from_millis(250);
const PING_TIMEOUT: Duration = Duration::from_secs(2);
/// How long a replaced producer may take for the records in its queue.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(10);

type ProducerClient = FutureProducer<ClientLog>;

/// Appends to Kafka. A cheap handle, to be cloned; all clones share one client.
#[derive(Clone)]
pub struct KafkaWriter(Arc<WriterShared>);

struct WriterShared {
    config: ClientConfig,
    /// Replaced after a fatal error. The lock is held while a record is queued, which never blocks.
    client: RwLock<ProducerClient>,
    log: ClientLog,
    epochs: TopicEpochs,
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
        let client = new_producer(&config, &log)?;
        let shared = Arc::new(WriterShared {
            config,
            client: RwLock::new(client),
            log,
            epochs,
            reachable: AtomicBool::new(true),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("kafka-writer".into())
            .spawn(move || supervise_writer(&weak, &admin))
            .map_err(|error| {
                LogUnreachable(format!("no thread for the Kafka producer: {error}"))
            })?;
        Ok(Self(shared))
    }

    pub(crate) fn append(&self, topic: &str, record: &NewRecord) -> Result<KafkaAck, AppendError> {
        let headers = record.headers.iter().map(|(name, value)| (*name, &**value));
        self.send_message(
            FutureRecord::to(topic)
                .partition(record.partition)
                .key(&*record.key)
                .payload(&*record.value)
                .headers(owned_headers(headers)),
        )
    }

    fn send_message(&self, message: FutureRecord<'_, [u8], [u8]>) -> Result<KafkaAck, AppendError> {
        if !self.0.reachable.load(Ordering::Acquire) {
            return Err(AppendError::Unreachable("no broker answers".into()));
        }
        // Before the record is queued: an epoch that the topic gets later is not the record's.
        let epoch = self.0.epochs.known(message.topic);
        match self.0.client.read().send_result(message) {
            Ok(delivery) => Ok(KafkaAck { delivery, epoch, log: self.0.log.clone() }),
            Err((error, _)) => {
                let error = queue_error(&error);
                if error != AppendError::Full {
                    self.0.log.set_suspect();
                }
                Err(error)
            }
        }
    }

    /// Why the brokers refuse the client, if they do.
    pub(super) fn last_refusal(&self) -> Option<BrokerRefusal> {
        self.0.log.last_refusal()
    }

    pub(crate) async fn flush(&self, deadline: Duration) -> bool {
        let client = self.0.client.read().clone();
        // librdkafka's flush blocks.
        let flushed = tokio::task::spawn_blocking(move || client.flush(deadline).is_ok());
        flushed.await.unwrap_or(false)
    }
}

impl AppendCopy for KafkaWriter {
    type Ack = KafkaAck;

    fn append_copy(&self, topic: &str, poison: &PoisonRecord) -> Result<KafkaAck, AppendError> {
        let headers = poison.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        self.send_message(FutureRecord {
            topic,
            partition: Some(poison.partition),
            payload: poison.value.as_deref(),
            key: Some(poison.key.as_bytes()),
            timestamp: None,
            headers: Some(owned_headers(headers)),
        })
    }
}

fn owned_headers<'h>(headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])>) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    headers.fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }))
}

fn new_producer(config: &ClientConfig, log: &ClientLog) -> Result<ProducerClient, LogUnreachable> {
    FutureProducer::from_config_and_context(config, log.clone())
        .map_err(|error| LogUnreachable(format!("Kafka producer: {error}")))
}

/// Checks after each sign of trouble if the brokers answer, and replaces a producer that had a fatal
/// error. Ends with the last handle.
fn supervise_writer(shared: &Weak<WriterShared>, admin: &AdminHandle) {
    let mut has_failed = false;
    loop {
        std::thread::sleep(CHECK_INTERVAL);
        let Some(shared) = shared.upgrade() else { return };
        let was_reachable = shared.reachable.load(Ordering::Acquire);
        if !shared.log.take_suspect() && was_reachable {
            continue;
        }
        let client = shared.client.read().clone();
        let fatal = client.client().fatal_error().map(|(code, reason)| format!("{code}: {reason}"));
        let lost = shared.log.take_lost_brokers().then(|| LOST_BROKERS.to_owned());
        if let Some(reason) = fatal.or(lost) {
            tracing::error!(reason, "fatal error of the Kafka producer; replacing it");
            match new_producer(&shared.config, &shared.log) {
                Ok(new) => {
                    let old = std::mem::replace(&mut *shared.client.write(), new);
                    // Each record in its queue fails, which answers its sender.
                    let _ = old.flush(FLUSH_TIMEOUT);
                }
                Err(error) => tracing::error!(%error, "cannot replace the Kafka producer"),
            }
            shared.log.set_suspect();
            continue;
        }
        // Over the admin client's own connections: on the producer's, the answer would wait behind
        // records that wait for a replica.
        let answers = admin
            .query(|client| client.fetch_metadata(Some("__consumer_offsets"), PING_TIMEOUT))
            .is_ok();
        if answers {
            shared.log.record_answer();
        } else if !std::mem::replace(&mut has_failed, true) && !shared.log.has_no_broker() {
            // librdkafka may have asked a broker that is going down. It asks another one next.
            shared.log.set_suspect();
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

/// Resolves when all in-sync replicas have the record.
pub struct KafkaAck {
    delivery: DeliveryFuture,
    epoch: Option<u32>,
    log: ClientLog,
}

impl std::fmt::Debug for KafkaAck {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("KafkaAck")
    }
}

impl Future for KafkaAck {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        Poll::Ready(match ready!(Pin::new(&mut self.delivery).poll(cx)) {
            // Of a record that was sent twice, the broker may not know the offset any more.
            Ok(Ok(delivery)) if delivery.offset < 0 => Err(AppendError::TimedOut(
                "the broker has the record and does not say where".into(),
            )),
            Ok(Ok(delivery)) => {
                let (partition, offset) = (delivery.partition, delivery.offset);
                Ok(Position { partition, offset, epoch: self.epoch })
            }
            Ok(Err((error, _))) => {
                self.log.set_suspect();
                Err(delivery_error(&error))
            }
            Err(_) => Err(AppendError::TimedOut("the Kafka client was closed".into())),
        })
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

/// The error of a queued record that was not acknowledged.
fn delivery_error(error: &KafkaError) -> AppendError {
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::MessageSizeTooLarge | RDKafkaErrorCode::InvalidMessageSize) => {
            AppendError::TooLarge
        }
        Some(
            code @ (RDKafkaErrorCode::PurgeQueue
            | RDKafkaErrorCode::UnknownTopic
            | RDKafkaErrorCode::UnknownPartition
            | RDKafkaErrorCode::UnknownTopicOrPartition
            | RDKafkaErrorCode::NotEnoughReplicas),
        ) => AppendError::Unreachable(code.to_string()),
        Some(
            code @ (RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::PolicyViolation),
        ) => AppendError::Refused(code.to_string()),
        // After any other error, a time-out above all, a broker may have the record.
        _ => AppendError::TimedOut(error.to_string()),
    }
}
