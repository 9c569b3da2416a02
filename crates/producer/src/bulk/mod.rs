//! Bulk: a line of JSON a send, a line of JSON for each result. Lines are read as fast as they can be
//! queued and their results be written, and no faster: what is between the two is bounded, whatever
//! the length of the body.
//!
//! `lines` cuts, this module parses, looks up and queues, `answers` waits for acknowledgements.

mod lines;
mod results;
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
    directory::UserNames,
    send::{Sender, idempotency::IdempotencyKey, request::SendRequest},
};
use lines::{BulkLine, LineSplitter, MAX_LINE_BYTES};
use results::{LineOutcome, LineResult};

/// The media type of both bodies.
pub const MEDIA_TYPE: &str = "application/x-ndjson";

/// How many lines may be read and not answered yet: as many as it takes to keep the log busy while
/// acknowledgements are on their way.
const MAX_PENDING_LINES: usize = 4096;
/// How many bytes of records those lines may be, about.
const MAX_PENDING_BYTES: u32 = 16 << 20;
/// How many lines, and about how many bytes of records, are looked up and queued together.
const MAX_BATCH_LINES: usize = 256;
const MAX_BATCH_BYTES: usize = 256 << 10;
/// The pause before a queue that was full is tried again.
const QUEUE_FULL_DELAY: Duration = Duration::from_millis(2);

/// Who asks for a bulk, and what it needs.
pub(crate) struct BulkRequest {
    pub(crate) sender: Sender,
    pub(crate) caller: Caller,
    /// For lines without one.
    pub(crate) key: Option<IdempotencyKey>,
    /// The place of all of it in a trace.
    pub(crate) trace: Option<TraceParent>,
    /// Among the bulks under way; kept until the last line is queued.
    pub(crate) _permit: OwnedSemaphorePermit,
}

/// Sends the lines of this body, and answers at once with a body that has the results. `patience`
/// is how long more bytes may take to come.
pub(crate) async fn send_bulk(asked: BulkRequest, body: Body, patience: Duration) -> Response {
    let mut chunks = BodyChunks { body, patience, peeked: None };
    // A client that asks whether to go on (Expect: 100-continue) is told so by reading, which has to
    // come before the answer.
    chunks.peek().await;
    let (answers, queue) = mpsc::channel(MAX_PENDING_LINES);
    let Sender { keys, metrics: outcomes, .. } = &asked.sender;
    let results = results::results_body(queue, keys.clone(), outcomes.clone());
    let bulk = BulkReader {
        asked,
        chunks,
        lines: LineSplitter::default(),
        answers,
        room: Arc::new(Semaphore::new(MAX_PENDING_BYTES as usize)),
    };
    tokio::spawn(bulk.send_until_closed());
    let media_type = HeaderValue::from_static(MEDIA_TYPE);
    ([(header::CONTENT_TYPE, media_type)], results).into_response()
}

/// A body as it arrives.
struct BodyChunks {
    body: Body,
    patience: Duration,
    peeked: Option<BodyChunk>,
}

enum BodyChunk {
    Bytes(Bytes),
    End,
    /// Nothing came in time.
    Stalled,
    /// The client went away, or broke the protocol.
    Broken,
}

impl BodyChunks {
    /// Waits for the next chunk and leaves it where it is.
    async fn peek(&mut self) {
        if self.peeked.is_none() {
            self.peeked = Some(self.next_chunk().await);
        }
    }

    async fn next_chunk(&mut self) -> BodyChunk {
        match self.peeked.take() {
            Some(chunk) => chunk,
            None => timeout(self.patience, self.read_frame()).await.unwrap_or(BodyChunk::Stalled),
        }
    }

    /// The next chunk, if it is there already.
    fn try_next_chunk(&mut self) -> Option<BodyChunk> {
        self.peeked.take().or_else(|| self.read_frame().now_or_never())
    }

    async fn read_frame(&mut self) -> BodyChunk {
        loop {
            match self.body.frame().await {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) if !bytes.is_empty() => return BodyChunk::Bytes(bytes),
                    // Trailers, which say nothing to us.
                    _ => {}
                },
                Some(Err(_)) => return BodyChunk::Broken,
                None => return BodyChunk::End,
            }
        }
    }
}

/// One bulk, at the reading end.
struct BulkReader {
    asked: BulkRequest,
    chunks: BodyChunks,
    lines: LineSplitter,
    answers: mpsc::Sender<LineResult>,
    room: Arc<Semaphore>,
}

/// A line as it was understood.
struct ParsedLine {
    number: u64,
    /// Of all its records, about: a send to thousands is as many.
    bytes: usize,
    send: Result<(SendRequest, Option<IdempotencyKey>), Problem>,
}

/// Nobody reads the answers any more.
struct ClientGone;

impl BulkReader {
    async fn send_until_closed(mut self) {
        let nobody_reads = self.answers.clone();
        tokio::select! {
            _ = self.send_all() => {}
            () = nobody_reads.closed() => tracing::debug!("a bulk's client went away"),
        }
    }

    async fn send_all(&mut self) -> Result<(), ClientGone> {
        loop {
            let (batch, end) = self.read_batch().await;
            self.send_batch(batch).await?;
            match end {
                None => {}
                Some(BodyChunk::Stalled) => {
                    let message = format!(
                        "No more of the request body arrived within {} s",
                        self.chunks.patience.as_secs_f64()
                    );
                    let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, message);
                    return self
                        .send_result(self.lines.line_number(), LineOutcome::Refused(problem))
                        .await;
                }
                Some(_) => return Ok(()),
            }
        }
    }

    /// The lines that are there, at least one if there is one more; and how the body ended, if it
    /// did. A line that was not finished when the body broke off is not one.
    async fn read_batch(&mut self) -> (Vec<ParsedLine>, Option<BodyChunk>) {
        let (mut batch, mut bytes) = (Vec::with_capacity(MAX_BATCH_LINES), 0);
        while batch.len() < MAX_BATCH_LINES && bytes < MAX_BATCH_BYTES {
            if let Some(line) = self.lines.next_line() {
                let parsed = self.parse_line(&line);
                bytes = bytes.saturating_add(parsed.bytes);
                batch.push(parsed);
                continue;
            }
            let chunk = if batch.is_empty() {
                self.chunks.next_chunk().await
            } else if let Some(chunk) = self.chunks.try_next_chunk() {
                chunk
            } else {
                break;
            };
            match chunk {
                BodyChunk::Bytes(bytes) => self.lines.push_chunk(bytes),
                BodyChunk::End => {
                    let last = self.lines.last_line();
                    batch.extend(last.map(|line| self.parse_line(&line)));
                    return (batch, Some(BodyChunk::End));
                }
                ended @ (BodyChunk::Stalled | BodyChunk::Broken) => return (batch, Some(ended)),
            }
        }
        (batch, None)
    }

    fn parse_line(&self, line: &BulkLine) -> ParsedLine {
        let number = line.number;
        let (bytes, send) = match &line.text {
            Ok(text) => (text.len(), SendRequest::parse_line(text)),
            Err(lines::LineTooLong) => {
                let message = format!("The line must have at most {MAX_LINE_BYTES} bytes");
                let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message);
                (0, Err(problem.with("limit", MAX_LINE_BYTES)))
            }
        };
        let of_header = || self.asked.key.as_ref().map(|key| key.for_line(number));
        let send = send.and_then(|(send, key)| {
            self.asked.caller.must_be_current()?;
            access::may_send_as(&self.asked.caller, send.from)?;
            Ok((send, key.or_else(of_header)))
        });
        let records = send.as_ref().map_or(1, |(send, _)| send.to.len());
        let bytes = bytes.saturating_mul(records);
        ParsedLine { number, bytes, send }
    }

    /// Looks everybody up at once, waits for room in the window for all, then queues line by line.
    async fn send_batch(&mut self, batch: Vec<ParsedLine>) -> Result<(), ClientGone> {
        let sends = batch.iter().filter_map(|line| line.send.as_ref().ok());
        let everybody =
            sends.flat_map(|(send, _)| std::iter::once(send.from).chain(send.to.iter().copied()));
        let people = self.asked.sender.users.look_up(everybody).await;
        let bytes = batch.iter().fold(0, |sum: usize, line| sum.saturating_add(line.bytes));
        // One that is larger than the window has it alone.
        let room = u32::try_from(bytes).unwrap_or(u32::MAX).min(MAX_PENDING_BYTES);
        let room = Arc::clone(&self.room).acquire_many_owned(room).await.map_err(|_| ClientGone)?;
        let places = self.answers.reserve_many(batch.len()).await.map_err(|_| ClientGone)?;
        // The window has room again when the last of the batch is answered.
        let (last, mut room) = (batch.last().map(|line| line.number), Some(room));
        for (line, place) in batch.into_iter().zip(places) {
            let outcome = match line.send {
                Ok((send, key)) => {
                    queue_line(&self.asked.sender, &send, key.as_ref(), self.asked.trace, &people)
                        .await
                }
                Err(problem) => LineOutcome::Refused(problem),
            };
            let room = if Some(line.number) == last { room.take() } else { None };
            place.send(LineResult { line: line.number, outcome, permit: room });
        }
        Ok(())
    }

    async fn send_result(&mut self, line: u64, outcome: LineOutcome) -> Result<(), ClientGone> {
        let answer = LineResult { line, outcome, permit: None };
        self.answers.send(answer).await.map_err(|_| ClientGone)
    }
}

/// Queues a send, and waits for room in the log's queue until the deadline.
async fn queue_line(
    sender: &Sender,
    send: &SendRequest,
    key: Option<&IdempotencyKey>,
    trace: Option<TraceParent>,
    people: &UserNames,
) -> LineOutcome {
    // A bulk is slowed down to what its sender may send, rather than refused line by line.
    let deadline = Instant::now() + sender.timeout;
    while let Err(refused) = sender.limits.take_tokens(send.from, send.to.len()) {
        match refused.retry_after {
            Some(wait) if Instant::now() + wait < deadline => sleep(wait).await,
            _ => return LineOutcome::Refused(refused.into()),
        }
    }
    let mut delivery = match sender.prepare_delivery(send, key, trace, people) {
        Ok(delivery) => delivery,
        Err(problem) => return LineOutcome::Refused(problem),
    };
    while !sender.queue_records(&mut delivery, send, people) {
        if Instant::now() >= delivery.deadline {
            delivery.fail_next(&sender.metrics);
        } else {
            sleep(QUEUE_FULL_DELAY).await;
        }
    }
    LineOutcome::Sending(delivery)
}
