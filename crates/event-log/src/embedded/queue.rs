//! The queue between those who append and the writer: bounded, never waited for.

use std::{
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
    progress::ProgressRequest,
    topics::{EmbeddedPartition, Topics},
};
use crate::{AppendError, NewRecord, Position, Topic, TopicError, poison::PoisonRecord};

/// How much may be unacknowledged: as much as librdkafka's default number of records, and as many
/// bytes as a small machine can spare.
const MOST_RECORDS: usize = 100_000;
const MOST_BYTES: usize = 64 << 20;

/// Kafka's own default for `message.max.bytes`, so that a record which works here works there.
const LARGEST_RECORD: usize = 1_048_576;

/// What the writer is asked for, in order.
pub(super) enum Item {
    Append(Append),
    Progress(ProgressRequest),
    Ensure(Vec<Topic>, oneshot::Sender<Result<(), TopicError>>),
    Ping(oneshot::Sender<Result<(), String>>),
    /// Answered when everything before it is settled.
    Flush(oneshot::Sender<()>),
    Close(oneshot::Sender<()>),
}

/// A record on its way.
pub(super) struct Append {
    pub(super) partition: Arc<EmbeddedPartition>,
    pub(super) key: Vec<u8>,
    pub(super) value: Option<Vec<u8>>,
    /// Encoded by `headers`.
    pub(super) headers: Vec<u8>,
    pub(super) ack: oneshot::Sender<Result<Position, AppendError>>,
    /// Gives its room in the queue back when the record is settled.
    room: Room,
}

impl Append {
    pub(super) fn bytes(&self) -> usize {
        self.room.bytes
    }
}

/// What is unacknowledged at the moment.
#[derive(Default)]
struct Load {
    records: AtomicUsize,
    bytes: AtomicUsize,
}

struct Room {
    load: Arc<Load>,
    bytes: usize,
}

impl Room {
    fn take(load: &Arc<Load>, bytes: usize) -> Option<Self> {
        let records = load.records.fetch_add(1, Ordering::AcqRel) + 1;
        let all_bytes = load.bytes.fetch_add(bytes, Ordering::AcqRel) + bytes;
        // Dropped, and so given back, when it was too much.
        let room = Self { load: Arc::clone(load), bytes };
        (records <= MOST_RECORDS && all_bytes <= MOST_BYTES).then_some(room)
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.load.records.fetch_sub(1, Ordering::AcqRel);
        self.load.bytes.fetch_sub(self.bytes, Ordering::AcqRel);
    }
}

/// Appends to an embedded log. A cheap handle, to be cloned; all clones share one queue.
#[derive(Clone)]
pub struct EmbeddedWriter {
    topics: Arc<Topics>,
    load: Arc<Load>,
    /// Its length is bounded by `load`.
    queue: mpsc::UnboundedSender<Item>,
}

impl EmbeddedWriter {
    pub(super) fn new(topics: Arc<Topics>) -> (Self, mpsc::UnboundedReceiver<Item>) {
        let (queue, items) = mpsc::unbounded_channel();
        (Self { topics, load: Arc::default(), queue }, items)
    }

    /// Puts the record in the queue, at once and without waiting. Records of one partition are
    /// written in the order of these calls.
    ///
    /// # Errors
    /// [`AppendError::Refused`], when there is no such topic or partition;
    /// [`AppendError::TooLarge`] above 1 MiB (key, value and headers together);
    /// [`AppendError::Full`], when 100,000 records or 64 MiB are unacknowledged;
    /// [`AppendError::Unreachable`], when the log was closed.
    pub fn append(&self, topic: &str, record: NewRecord) -> Result<EmbeddedAck, AppendError> {
        let NewRecord { partition, key, value, headers } = record;
        self.append_parts(topic, partition, key, Some(value), &headers)
    }

    /// Appends a copy of a poison record to the partition of the same number.
    pub(crate) fn append_copy(
        &self,
        topic: &str,
        poison: &PoisonRecord,
        with_value: bool,
    ) -> Result<EmbeddedAck, AppendError> {
        let (value, headers) = poison.copied_parts(with_value);
        let (key, value) = (poison.key.clone().into_bytes(), value.map(<[u8]>::to_vec));
        self.append_parts(topic, poison.partition, key, value, &headers)
    }

    fn append_parts(
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
        if bytes > LARGEST_RECORD {
            return Err(AppendError::TooLarge);
        }
        let room = Room::take(&self.load, bytes).ok_or(AppendError::Full)?;
        let (ack, answer) = oneshot::channel();
        self.ask(Item::Append(Append {
            partition,
            key,
            value,
            headers: headers::encode(headers),
            ack,
            room,
        }))
        .map_err(AppendError::Unreachable)?;
        Ok(EmbeddedAck(answer))
    }

    /// Waits for every record in the queue, for at most `deadline`. True: all were acknowledged
    /// or refused.
    pub async fn flush(&self, deadline: Duration) -> bool {
        let (done, answer) = oneshot::channel();
        match self.ask(Item::Flush(done)) {
            Ok(()) => matches!(tokio::time::timeout(deadline, answer).await, Ok(Ok(()))),
            // Closing has settled every record already.
            Err(_) => true,
        }
    }

    /// Asks the writer for something, after everything that was asked before.
    pub(super) fn ask(&self, item: Item) -> Result<(), String> {
        self.queue.send(item).map_err(|_| "the log was closed".to_owned())
    }
}

/// Resolves to the record's position when it is on the disk. Dropping it does not take the record
/// back.
#[derive(Debug)]
pub struct EmbeddedAck(oneshot::Receiver<Result<Position, AppendError>>);

impl Future for EmbeddedAck {
    type Output = Result<Position, AppendError>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(cx));
        // The writer answers every record; it is silent only when it was ended in the middle.
        let silent = |_| Err(AppendError::TimedOut("the log's writer has ended".into()));
        Poll::Ready(answer.unwrap_or_else(silent))
    }
}
