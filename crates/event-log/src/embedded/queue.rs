//! The bounded queue of the writer's thread. Callers never wait for it: a full queue rejects
//! appends.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::sync::{mpsc, oneshot};

use super::{
    headers,
    topics::{EmbeddedPartition, Topics},
};
use crate::{
    AppendError, NewRecord, Position, Topic, TopicError, dlq::AppendCopy, poison::PoisonRecord,
};

/// Bounds of the unacknowledged records: as many as librdkafka's default, and the bytes that a small
/// machine can spare.
const MAX_QUEUED_RECORDS: usize = 100_000;
const MAX_QUEUED_BYTES: usize = 64 << 20;

/// Kafka's default of `message.max.bytes`, so that Kafka accepts the same records.
const MAX_RECORD_BYTES: usize = 1_048_576;

/// Requests to the writer, in the order in which it answers them.
pub(super) enum WriterRequest {
    Append(QueuedAppend),
    /// Advances the committed offsets of a group, then answers with all of them, by partition id.
    Progress {
        group: String,
        /// May be empty.
        offsets: Vec<(i64, i64)>,
        answer: oneshot::Sender<Result<HashMap<i64, i64>, String>>,
    },
    Ensure(Vec<Topic>, oneshot::Sender<Result<(), TopicError>>),
    Ping(oneshot::Sender<Result<(), String>>),
    /// Answered when all requests before it are.
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A record to append.
pub(super) struct QueuedAppend {
    pub(super) partition: Arc<EmbeddedPartition>,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    /// Encoded by `headers`.
    pub(super) headers: Vec<u8>,
    pub(super) ack: oneshot::Sender<Result<Position, AppendError>>,
    /// Held until the record is acknowledged or refused.
    permit: QueuePermit,
}

impl QueuedAppend {
    pub(super) fn size_bytes(&self) -> usize {
        self.permit.bytes
    }
}

/// The unacknowledged records.
#[derive(Default)]
struct QueueLoad {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

struct QueuePermit {
    load: Arc<QueueLoad>,
    bytes: usize,
}

impl QueuePermit {
    fn acquire_from(load: &Arc<QueueLoad>, bytes: usize) -> Option<Self> {
        let records = load.records.fetch_add(1, Ordering::AcqRel) + 1;
        let all_bytes = load.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // Dropped if the queue is full, which undoes the additions.
        let permit = Self { load: Arc::clone(load), bytes };
        (records <= MAX_QUEUED_RECORDS && all_bytes <= MAX_QUEUED_BYTES).then_some(permit)
    }
}

impl Drop for QueuePermit {
    fn drop(&mut self) {
        self.load.records.fetch_sub(1, Ordering::AcqRel);
        self.load.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Appends to an embedded log. A cheap handle, to be cloned; all clones share one queue.
#[derive(Clone)]
pub struct EmbeddedWriter {
    topics: Arc<Topics>,
    load: Arc<QueueLoad>,
    /// Bounded by `load`.
    queue: mpsc::UnboundedSender<WriterRequest>,
}

impl EmbeddedWriter {
    pub(super) fn new(topics: Arc<Topics>) -> (Self, mpsc::UnboundedReceiver<WriterRequest>) {
        let (queue, items) = mpsc::unbounded_channel();
        (Self { topics, load: Arc::default(), queue }, items)
    }

    /// See [`Writer::append`](crate::Writer::append). [`AppendError::Refused`] if there is no such topic or partition; [`AppendError::TooLarge`] above
    /// 1 MiB (key, value and headers together); [`AppendError::Full`] while 100,000 records or 64 MiB
    /// are unacknowledged; [`AppendError::Unreachable`] after the log was closed.
    pub fn append(&self, topic: &str, record: NewRecord) -> Result<EmbeddedAck, AppendError> {
        let NewRecord { partition, key, value, headers } = record;
        self.append_parts(topic, partition, key, Some(value), &headers)
    }

    pub(crate) fn append_parts(
        &self,
        topic: &str,
        partition: i32,
        key: Vec<u8>,
        value: Option<Vec<u8>>,
        headers: &[(impl AsRef<str>, impl AsRef<[u8]>)],
    ) -> Result<EmbeddedAck, AppendError> {
        let partition =
            self.topics.find_partition(topic, partition).map_err(AppendError::Refused)?;
        let lengths =
            headers.iter().map(|(name, value)| name.as_ref().len() + value.as_ref().len());
        let bytes = key.len() + value.as_ref().map_or(0, Vec::len) + lengths.sum::<usize>();
        if bytes > MAX_RECORD_BYTES {
            return Err(AppendError::TooLarge);
        }
        let permit = QueuePermit::acquire_from(&self.load, bytes).ok_or(AppendError::Full)?;
        let (ack, answer) = oneshot::channel();
        self.send_request(WriterRequest::Append(QueuedAppend {
            partition,
            key,
            value,
            headers: headers::encode_headers(headers),
            ack,
            permit,
        }))
        .map_err(AppendError::Unreachable)?;
        Ok(EmbeddedAck(answer))
    }

    /// See [`Writer::flush`](crate::Writer::flush).
    pub async fn flush(&self, deadline: Duration) -> bool {
        let (done, answer) = oneshot::channel();
        match self.send_request(WriterRequest::Flush(done)) {
            Ok(()) => matches!(tokio::time::timeout(deadline, answer).await, Ok(Ok(()))),
            // Closing has answered all records.
            Err(_) => true,
        }
    }

    pub(super) fn send_request(&self, request: WriterRequest) -> Result<(), String> {
        self.queue.send(request).map_err(|_| "the log was closed".to_owned())
    }
}

impl AppendCopy for EmbeddedWriter {
    type Ack = EmbeddedAck;

    fn append_copy(&self, topic: &str, poison: &PoisonRecord) -> Result<EmbeddedAck, AppendError> {
        let PoisonRecord { partition, key, value, headers, .. } = poison;
        self.append_parts(topic, *partition, key.clone().into_bytes(), value.clone(), headers)
    }
}

/// Resolves to the record's position once the record is on the disk. Dropping it does not cancel the
/// append.
#[derive(Debug)]
pub struct EmbeddedAck(oneshot::Receiver<Result<Position, AppendError>>);

impl Future for EmbeddedAck {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        // The writer answers all records, unless its thread has panicked.
        let silent = |_| Err(AppendError::TimedOut("the log's writer has ended".into()));
        Poll::Ready(answer.unwrap_or_else(silent))
    }
}
