//! Bulk: a line of JSON a send, a line of JSON for each result. Lines are read as fast as they can be
//! queued and their results be written, and no faster: what is between the two is bounded, whatever
//! the length of the body.
//!
//! `lines` cuts, this module parses, looks up and queues, `answers` waits for acknowledgements.

mod lines;
mod answers;
#[cfg(test)]
mod fuzz;

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http_body_util::BodyExt as _;
use service::{auth::Caller, ops::trace::TraceParent, problem::Problem};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, sleep, timeout},
};

use crate::{
    access,
    directory::People,
    send::{Sender, idempotency::IdempotencyKey, request::Send},
};
use answers::{Answer, Outcome};
use lines::{Line, Lines, MAX_LINE};

/// The media type of both bodies.
pub const MEDIA_TYPE: &str = "application/x-ndjson";

/// How many lines may be read and not answered yet: as many as it takes to keep the log busy while
/// acknowledgements are on their way.
const WINDOW_LINES: usize = 4096;
/// How many bytes of records those lines may be, about.
const WINDOW_BYTES: u32 = 16 << 20;
/// How many lines, and about how many bytes of records, are looked up and queued together.
const BATCH_LINES: usize = 256;
const BATCH_BYTES: usize = 256 << 10;
/// The pause before a queue that was full is tried again.
const FULL_PAUSE: Duration = Duration::from_millis(2);

/// Who asks for a bulk, and what it needs.
pub(crate) struct Asked {
    pub(crate) sender: Sender,
    pub(crate) caller: Caller,
    /// For lines without one.
    pub(crate) key: Option<IdempotencyKey>,
    /// The place of all of it in a trace.
    pub(crate) trace: Option<TraceParent>,
    /// Among the bulks under way; kept until the last line is queued.
    pub(crate) _place: OwnedSemaphorePermit,
}

/// Sends the lines of this body, and answers at once with a body that has the results. `patience`
/// is how long more bytes may take to come.
pub(crate) async fn send(asked: Asked, body: Body, patience: Duration) -> Response {
    let mut chunks = Chunks { body, patience, peeked: None };
    // A client that asks whether to go on (Expect: 100-continue) is told so by reading, which has to
    // come before the answer.
    chunks.peek().await;
    let (answers, queue) = mpsc::channel(WINDOW_LINES);
    let Sender { keys, outcomes, .. } = &asked.sender;
    let results = answers::body(queue, keys.clone(), outcomes.clone());
    let bulk = Bulk {
        asked,
        chunks,
        lines: Lines::default(),
        answers,
        room: Arc::new(Semaphore::new(WINDOW_BYTES as usize)),
    };
    tokio::spawn(bulk.run());
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    ([(header::CONTENT_TYPE, media_type)], results).into_response()
}

/// A body as it arrives.
struct Chunks {
    body: Body,
    patience: Duration,
    peeked: Option<Chunk>,
}

enum Chunk {
    Bytes(Bytes),
    End,
    /// Nothing came in time.
    Stalled,
    /// The client went away, or broke the protocol.
    Broken,
}

impl Chunks {
    /// Waits for the next chunk and leaves it where it is.
    async fn peek(&mut self) {
        if self.peeked.is_none() {
            self.peeked = Some(self.next().await);
        }
    }

    async fn next(&mut self) -> Chunk {
        match self.peeked.take() {
            Some(chunk) => chunk,
            None => timeout(self.patience, self.read()).await.unwrap_or(Chunk::Stalled),
        }
    }

    /// The next chunk, if it is there already.
    fn ready(&mut self) -> Option<Chunk> {
        self.peeked.take().or_else(|| self.read().now_or_never())
    }

    async fn read(&mut self) -> Chunk {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return Chunk::Bytes(bytes),
                    // Trailers, which say nothing to us.
                    _ => {}
                },
                Some(Err(_)) => return Chunk::Broken,
                None => return Chunk::End,
            }
        }
    }
}

/// One bulk, at the reading end.
struct Bulk {
    asked: Asked,
    chunks: Chunks,
    lines: Lines,
    answers: mpsc::Sender<Answer>,
    room: Arc<Semaphore>,
}

/// A line as it was understood.
struct Parsed {
    number: u64,
    /// Of all its records, about: a send to thousands is as many.
    bytes: usize,
    send: Result<(Send, Option<IdempotencyKey>), Problem>,
}

/// Nobody reads the answers any more.
struct Gone;

impl Bulk {
    async fn run(mut self) {
        let nobody_reads = self.answers.clone();
        tokio::select! {
            _ = self.send_all() => {}
            () = nobody_reads.closed() => tracing::debug!("a bulk's client went away"),
        }
    }

    async fn send_all(&mut self) -> Result<(), Gone> {
        loop {
            let (batch, end) = self.batch().await;
            self.send_batch(batch).await?;
            match end {
                None => {}
                Some(Chunk::Stalled) => {
                    let message = format!(
                        "No more of the request body arrived within {} s",
                        self.chunks.patience.as_secs_f64()
                    );
                    let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, message);
                    return self.answer(self.lines.number(), Outcome::Refused(problem)).await;
                }
                Some(_) => return Ok(()),
            }
        }
    }

    /// The lines that are there, at least one if there is one more; and how the body ended, if it
    /// did. A line that was not finished when the body broke off is not one.
    async fn batch(&mut self) -> (Vec<Parsed>, Option<Chunk>) {
        let (mut batch, mut bytes) = (Vec::with_capacity(BATCH_LINES), 0);
        while batch.len() < BATCH_LINES && bytes < BATCH_BYTES {
            if let Some(line) = self.lines.next() {
                let parsed = self.parse(&line);
                bytes = bytes.saturating_add(parsed.bytes);
                batch.push(parsed);
                continue;
            }
            let chunk = if batch.is_empty() {
                self.chunks.next().await
            } else if let Some(chunk) = self.chunks.ready() {
                chunk
            } else {
                break;
            };
            match chunk {
                Chunk::Bytes(bytes) => self.lines.feed(bytes),
                Chunk::End => {
                    let last = self.lines.last();
                    batch.extend(last.map(|line| self.parse(&line)));
                    return (batch, Some(Chunk::End));
                }
                ended @ (Chunk::Stalled | Chunk::Broken) => return (batch, Some(ended)),
            }
        }
        (batch, None)
    }

    fn parse(&self, line: &Line) -> Parsed {
        let number = line.number;
        let (bytes, send) = match &line.text {
            Ok(text) => (text.len(), Send::parse_line(text)),
            Err(lines::TooLong) => {
                let message = format!("The line must have at most {MAX_LINE} bytes");
                let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message);
                (0, Err(problem.with("limit", MAX_LINE)))
            }
        };
        let of_header = || self.asked.key.as_ref().map(|key| key.of_line(number));
        let send = send.and_then(|(send, key)| {
            self.asked.caller.must_be_current()?;
            access::may_send_as(&self.asked.caller, send.from)?;
            Ok((send, key.or_else(of_header)))
        });
        let records = send.as_ref().map_or(1, |(send, _)| send.to.len());
        let bytes = bytes.saturating_mul(records);
        Parsed { number, bytes, send }
    }

    /// Looks everybody up at once, waits for room in the window for all, then queues line by line.
    async fn send_batch(&mut self, batch: Vec<Parsed>) -> Result<(), Gone> {
        let sends = batch.iter().filter_map(|line| line.send.as_ref().ok());
        let everybody =
            sends.flat_map(|(send, _)| std::iter::once(send.from).chain(send.to.iter().copied()));
        let people = self.asked.sender.names.of(everybody).await;
        let bytes = batch.iter().fold(0, |sum: usize, line| sum.saturating_add(line.bytes));
        // One that is larger than the window has it alone.
        let room = u32::try_from(bytes).unwrap_or(u32::MAX).min(WINDOW_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| Gone)?;
        let places = self.answers.reserve_many(batch.len()).await.map_err(|_| Gone)?;
        // The window has room again when the last of the batch is answered.
        let (last, mut room) = (batch.last().map(|line| line.number), Some(room));
        for (line, place) in batch.into_iter().zip(places) {
            let outcome = match line.send {
                Ok((send, key)) => {
                    queued(&self.asked.sender, &send, key.as_ref(), self.asked.trace, &people).await
                }
                Err(problem) => Outcome::Refused(problem),
            };
            let room = if Some(line.number) == last { room.take() } else { None };
            place.send(Answer { line: line.number, outcome, room });
        }
        Ok(())
    }

    async fn answer(&mut self, line: u64, outcome: Outcome) -> Result<(), Gone> {
        let answer = Answer { line, outcome, room: None };
        self.answers.send(answer).await.map_err(|_| Gone)
    }
}

/// Queues a send, and waits for room in the log's queue until the deadline.
async fn queued(
    sender: &Sender,
    send: &Send,
    key: Option<&IdempotencyKey>,
    trace: Option<TraceParent>,
    people: &People,
) -> Outcome {
    // A bulk is slowed down to what its sender may send, rather than refused line by line.
    let deadline = Instant::now() + sender.deadline;
    while let Err(refused) = sender.rates.take(send.from, send.to.len()) {
        match refused.retry_after {
            Some(wait) if Instant::now() + wait < deadline => sleep(wait).await,
            _ => return Outcome::Refused(refused.into()),
        }
    }
    let mut delivery = match sender.address(send, key, trace, people) {
        Ok(delivery) => delivery,
        Err(problem) => return Outcome::Refused(problem),
    };
    while !sender.queue(&mut delivery, send, people) {
        if Instant::now() >= delivery.deadline {
            delivery.give_up_next(&sender.outcomes);
        } else {
            sleep(FULL_PAUSE).await;
        }
    }
    Outcome::Sending(delivery)
}
