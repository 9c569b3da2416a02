//! Appending to Kafka: an idempotent producer with `acks=all`, and someone who looks after it.

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
    context::{ClientLog, Refusal},
    statistics::Role,
};
use crate::{AppendError, LogUnreachable, NewRecord, Position, poison::PoisonRecord};

/// How often the supervisor looks, and how long it lets a broker think about an answer.
const LOOK_EVERY: Duration = Duration::from_millis(250);
const PING_DEADLINE: Duration = Duration::from_secs(2);
/// How long records that an old client still holds may take, when it is replaced.
const REPLACED_FLUSH: Duration = Duration::from_secs(10);

type Client = FutureProducer<Watched>;

/// Appends to Kafka. A cheap handle, to be cloned; all clones share one client.
#[derive(Clone)]
pub struct KafkaWriter(Arc<Shared>);

struct Shared {
    config: ClientConfig,
    /// Replaced as a whole after a fatal error. Held only for as long as a record takes to be
    /// queued, which never blocks.
    client: RwLock<Client>,
    watch: Arc<ClientLog>,
    /// Whether the brokers answered when somebody last looked. While they do not, a record is
    /// refused at once, because one that waits in the queue may be written after its sender gave up.
    reachable: AtomicBool,
}

/// The context of each client: they come and go, what they have seen stays.
#[derive(Clone)]
struct Watched(Arc<ClientLog>);

impl rdkafka::ClientContext for Watched {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.0.log(level, facility, message);
    }

    fn stats(&self, statistics: rdkafka::Statistics) {
        self.0.stats(statistics);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.0.error(error, reason);
    }
}

impl KafkaWriter {
    pub(super) fn start(settings: &KafkaSettings) -> Result<Self, LogUnreachable> {
        let mut config = settings.producer();
        // That a broker hung up on us, as one does that expects TLS, is said no louder.
        config.set_log_level(RDKafkaLogLevel::Info);
        let watch = Arc::new(ClientLog::of(Role::Writer));
        let client = connect(&config, &watch)?;
        let shared = Arc::new(Shared {
            config,
            client: RwLock::new(client),
            watch,
            reachable: AtomicBool::new(true),
        });
        let weak = Arc::downgrade(&shared);
        std::thread::Builder::new()
            .name("kafka-writer".into())
            .spawn(move || supervise(&weak))
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

    /// Appends a copy of a poison record to the partition of the same number.
    pub(crate) fn append_copy(
        &self,
        topic: &str,
        poison: &PoisonRecord,
        with_value: bool,
    ) -> Result<KafkaAck, AppendError> {
        let (value, headers) = poison.copied_parts(with_value);
        self.send_message(FutureRecord {
            topic,
            partition: Some(poison.partition),
            payload: value,
            key: Some(poison.key.as_bytes()),
            timestamp: None,
            headers: Some(owned_headers(headers.into_iter())),
        })
    }

    fn send_message(&self, message: FutureRecord<'_, [u8], [u8]>) -> Result<KafkaAck, AppendError> {
        if !self.0.reachable.load(Ordering::Acquire) {
            return Err(AppendError::Unreachable("no broker answers".into()));
        }
        match self.0.client.read().send_result(message) {
            Ok(delivery) => Ok(KafkaAck { delivery, watch: Arc::clone(&self.0.watch) }),
            Err((error, _)) => {
                let error = refused(&error);
                if error != AppendError::Full {
                    self.0.watch.suspect();
                }
                Err(error)
            }
        }
    }

    /// Why the brokers turn us away, if they do.
    pub(super) fn refusal(&self) -> Option<Refusal> {
        self.0.watch.refusal()
    }

    pub(crate) async fn flush(&self, deadline: Duration) -> bool {
        let client = self.0.client.read().clone();
        // librdkafka's flush blocks its thread.
        let flushed = tokio::task::spawn_blocking(move || client.flush(deadline).is_ok());
        flushed.await.unwrap_or(false)
    }
}

fn owned_headers<'h>(headers: impl ExactSizeIterator<Item = (&'h str, &'h [u8])>) -> OwnedHeaders {
    let owned = OwnedHeaders::new_with_capacity(headers.len());
    headers.fold(owned, |owned, (key, value)| owned.insert(Header { key, value: Some(value) }))
}

fn connect(config: &ClientConfig, watch: &Arc<ClientLog>) -> Result<Client, LogUnreachable> {
    FutureProducer::from_config_and_context(config, Watched(Arc::clone(watch)))
        .map_err(|error| LogUnreachable(format!("Kafka producer: {error}")))
}

/// Finds out whether the brokers answer, whenever something looked wrong, and puts a new client
/// in the place of one that failed for good. Ends with the last handle.
fn supervise(shared: &Weak<Shared>) {
    loop {
        std::thread::sleep(LOOK_EVERY);
        let Some(shared) = shared.upgrade() else { return };
        let was_reachable = shared.reachable.load(Ordering::Acquire);
        if !shared.watch.take_suspicion() && was_reachable {
            continue;
        }
        let client = shared.client.read().clone();
        if let Some((code, reason)) = client.client().fatal_error() {
            tracing::error!(%code, reason, "the Kafka producer failed for good; making a new one");
            match connect(&shared.config, &shared.watch) {
                Ok(new) => {
                    let old = std::mem::replace(&mut *shared.client.write(), new);
                    // What it still held is answered with an error each, which frees its senders.
                    let _ = old.flush(REPLACED_FLUSH);
                }
                Err(error) => tracing::error!(%error, "no new Kafka producer"),
            }
            shared.watch.suspect();
            continue;
        }
        let answers =
            client.client().fetch_metadata(Some("__consumer_offsets"), PING_DEADLINE).is_ok();
        shared.reachable.store(answers, Ordering::Release);
        if answers {
            shared.watch.answered();
        }
        if answers != was_reachable {
            if answers {
                tracing::info!("Kafka is reachable again; records are accepted");
            } else {
                tracing::warn!("Kafka is not reachable; records are refused until it is");
            }
        }
    }
}

/// Resolves when all in-sync replicas have the record.
pub struct KafkaAck {
    delivery: DeliveryFuture,
    watch: Arc<ClientLog>,
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
            Ok(Ok(delivery)) => {
                Ok(Position { partition: delivery.partition, offset: delivery.offset })
            }
            Ok(Err((error, _))) => {
                self.watch.suspect();
                Err(undelivered(&error))
            }
            Err(_) => Err(AppendError::TimedOut("the Kafka client was closed".into())),
        })
    }
}

/// What it means when a record is not even queued.
fn refused(error: &KafkaError) -> AppendError {
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

/// What it means when a queued record was not acknowledged.
fn undelivered(error: &KafkaError) -> AppendError {
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
        // For anything else, a time-out above all, nobody can say whether a broker has the record.
        _ => AppendError::TimedOut(error.to_string()),
    }
}
