//! Bulk requests: NDJSON in, one send a line, and NDJSON out, one result a line, in order. `lines`
//! splits the body, this module parses lines and queues their records, `results` waits for the
//! acknowledgements and writes the results.
//!
//! Reads the body only as fast as records can be queued and the client reads the results: the number
//! and size of the lines between the two are bounded, for bodies of any length.

mod lines;
mod results;
#[cfg(test)]
mod fuzz;

use std::{sync::Arc, time::Duration};

use axum::{
    body::{Body, BodyDataStream},
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::{FutureExt as _, StreamExt as _};
use model::record::RecordEncoder;
use service::{
    auth::Caller, ops::trace::TraceParent, problem::Problem, server::budget::BudgetPermit,
};
use tokio::{
    sync::{Semaphore, mpsc},
    time::{Instant, sleep, timeout_at},
};

use crate::{
    access,
    directory::UserNames,
    send::{Sender, idempotency::IdempotencyKey, request::SendRequest},
};
use lines::{BulkLine, LineSplitter, LineTooLong, MAX_LINE_BYTES};
use results::{LineOutcome, LineResult};

/// The media type of request and response.
pub(crate) const MEDIA_TYPE: &str = "application/x-ndjson";

/// Maximum number of lines of one bulk request that are read and not answered: enough to keep the
/// log busy while acknowledgements are on their way.
const MAX_PENDING_LINES: usize = 4096;
/// Approximate maximum size of the records of those lines.
const MAX_PENDING_BYTES: u32 = 2 << 20;
/// Maximum number of lines, and approximate maximum size of their records, that are looked up and
/// queued together.
const MAX_BATCH_LINES: usize = 256;
const MAX_BATCH_BYTES: usize = 256 << 10;
/// Delay before retrying when the log's queue is full.
const QUEUE_FULL_DELAY: Duration = Duration::from_millis(2);

/// A bulk request without its body.
pub(crate) struct BulkRequest {
    pub(crate) sender: Sender,
    pub(crate) caller: Caller,
    /// The key of the request's header, for lines without a key.
    pub(crate) key: Option<IdempotencyKey>,
    pub(crate) trace: Option<TraceParent>,
    /// Counts the request as running until its last line is queued.
    pub(crate) _permit: BudgetPermit<Arc<str>>,
}

/// Starts to send the lines of the body, and returns a response that streams the results. The request
/// fails if no further line is complete within `read_timeout`.
pub(crate) async fn send_bulk(
    request: BulkRequest,
    body: Body,
    read_timeout: Duration,
) -> Response {
    let mut chunks = BodyChunks { body: body.into_data_stream(), read_timeout, first: None };
    // hyper answers `Expect: 100-continue` at the first read, which must precede the response.
    chunks.first = Some(chunks.next_chunk(Instant::now() + read_timeout).await);
    let (results, pending) = mpsc::channel(MAX_PENDING_LINES);
    let Sender { keys, metrics, .. } = &request.sender;
    let body = results::results_body(pending, keys.clone(), metrics.clone());
    let bulk = BulkReader {
        request,
        chunks,
        lines: LineSplitter::default(),
        results,
        byte_permits: Arc::new(Semaphore::new(MAX_PENDING_BYTES as usize)),
        encoder: RecordEncoder::default(),
    };
    tokio::spawn(bulk.send_until_closed());
    ([(header::CONTENT_TYPE, HeaderValue::from_static(MEDIA_TYPE))], body).into_response()
}

struct BodyChunks {
    body: BodyDataStream,
    read_timeout: Duration,
    first: Option<Result<Bytes, BodyEnd>>,
}

enum BodyEnd {
    Complete,
    /// No line was complete within the timeout.
    TimedOut,
    /// The client disconnected or violated HTTP.
    Broken,
}

impl BodyChunks {
    async fn next_chunk(&mut self, deadline: Instant) -> Result<Bytes, BodyEnd> {
        if let Some(chunk) = self.first.take() {
            return chunk;
        }
        let read = timeout_at(deadline, self.body.next()).await;
        read.map_or(Err(BodyEnd::TimedOut), chunk_or_end)
    }

    /// Returns the next chunk if it has arrived already.
    fn try_next_chunk(&mut self) -> Option<Result<Bytes, BodyEnd>> {
        self.first.take().or_else(|| self.body.next().now_or_never().map(chunk_or_end))
    }
}

fn chunk_or_end(read: Option<Result<Bytes, axum::Error>>) -> Result<Bytes, BodyEnd> {
    match read {
        Some(Ok(bytes)) => Ok(bytes),
        Some(Err(_)) => Err(BodyEnd::Broken),
        None => Err(BodyEnd::Complete),
    }
}

struct BulkReader {
    request: BulkRequest,
    chunks: BodyChunks,
    lines: LineSplitter,
    results: mpsc::Sender<LineResult>,
    /// One permit for each byte of pending records.
    byte_permits: Arc<Semaphore>,
    encoder: RecordEncoder,
}

struct ParsedLine {
    number: u64,
    /// Approximate size of the line's records together: a line with many recipients makes many.
    bytes: usize,
    send: Result<(SendRequest, Option<IdempotencyKey>), Problem>,
}

/// The client no longer reads the results.
struct ClientGone;

impl BulkReader {
    async fn send_until_closed(mut self) {
        let results = self.results.clone();
        tokio::select! {
            _ = self.send_all() => {}
            () = results.closed() => tracing::debug!("the client of a bulk request disconnected"),
        }
    }

    async fn send_all(&mut self) -> Result<(), ClientGone> {
        loop {
            let (batch, end) = self.read_batch().await;
            self.send_batch(batch).await?;
            match end {
                None => {}
                Some(BodyEnd::TimedOut) => {
                    let seconds = self.chunks.read_timeout.as_secs_f64();
                    let message =
                        format!("No line of the request body was complete within {seconds} s");
                    let problem = Problem::new(StatusCode::REQUEST_TIMEOUT, message);
                    let (line, outcome) = (self.lines.line_number(), LineOutcome::Refused(problem));
                    let result = LineResult { line, outcome, permit: None };
                    return self.results.send(result).await.map_err(|_| ClientGone);
                }
                Some(_) => return Ok(()),
            }
        }
    }

    /// Waits for a line and returns it with those that have arrived by then, and how the body ended
    /// if it did. If the client disconnected, its unfinished last line is dropped.
    async fn read_batch(&mut self) -> (Vec<ParsedLine>, Option<BodyEnd>) {
        let (mut batch, mut batch_bytes) = (Vec::with_capacity(MAX_BATCH_LINES), 0);
        // For a whole line: single bytes and blank lines would otherwise keep the request open.
        let deadline = Instant::now() + self.chunks.read_timeout;
        while batch.len() < MAX_BATCH_LINES && batch_bytes < MAX_BATCH_BYTES {
            if let Some(line) = self.lines.next_line() {
                let parsed = self.parse_line(&line);
                batch_bytes = parsed.bytes.saturating_add(batch_bytes);
                batch.push(parsed);
                continue;
            }
            let chunk = if batch.is_empty() {
                self.chunks.next_chunk(deadline).await
            } else if let Some(chunk) = self.chunks.try_next_chunk() {
                chunk
            } else {
                break;
            };
            match chunk {
                Ok(bytes) => self.lines.push_chunk(bytes),
                Err(end) => {
                    if matches!(end, BodyEnd::Complete) {
                        let last = self.lines.last_line();
                        batch.extend(last.map(|line| self.parse_line(&line)));
                    }
                    return (batch, Some(end));
                }
            }
        }
        (batch, None)
    }

    fn parse_line(&self, line: &BulkLine) -> ParsedLine {
        let number = line.number;
        let (bytes, send) = match &line.text {
            Ok(text) => (text.len(), SendRequest::parse_line(text)),
            Err(LineTooLong) => {
                let message = format!("The line must have at most {MAX_LINE_BYTES} bytes");
                let problem = Problem::new(StatusCode::PAYLOAD_TOO_LARGE, message);
                (0, Err(problem.with("limit", MAX_LINE_BYTES)))
            }
        };
        let header_key = || self.request.key.as_ref().map(|key| key.for_line(number));
        let send = send.and_then(|(send, key)| {
            self.request.caller.must_be_current()?;
            access::may_send_as(&self.request.caller, send.from)?;
            Ok((send, key.or_else(header_key)))
        });
        let records = send.as_ref().map_or(1, |(send, _)| send.to.len());
        ParsedLine { number, bytes: bytes.saturating_mul(records), send }
    }

    /// Looks up the users of all lines at once, waits for the permits of all records, then queues
    /// line by line.
    async fn send_batch(&mut self, batch: Vec<ParsedLine>) -> Result<(), ClientGone> {
        let sends = batch.iter().filter_map(|line| line.send.as_ref().ok());
        let ids = sends.flat_map(|(send, _)| send.users());
        let users = self.request.sender.users.look_up(ids).await;
        let bytes = batch.iter().fold(0, |sum: usize, line| sum.saturating_add(line.bytes));
        // A larger batch takes all permits, and so is pending alone.
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX).min(MAX_PENDING_BYTES);
        let permits = Arc::clone(&self.byte_permits).acquire_many_owned(bytes).await;
        let mut permits = Some(permits.map_err(|_| ClientGone)?);
        let slots = self.results.reserve_many(batch.len()).await.map_err(|_| ClientGone)?;
        let last = batch.last().map(|line| line.number);
        let mut next_users = users.split();
        for (line, slot) in batch.into_iter().zip(slots) {
            let outcome = match line.send {
                Ok((send, key)) => {
                    let users = next_users(send.users().count());
                    let encoder = &mut self.encoder;
                    self.request.queue_line(&send, key.as_ref(), &users, encoder).await
                }
                Err(problem) => LineOutcome::Refused(problem),
            };
            // The result of the batch's last line releases the permits.
            let permit = if Some(line.number) == last { permits.take() } else { None };
            slot.send(LineResult { line: line.number, outcome, permit });
        }
        Ok(())
    }
}

impl BulkRequest {
    /// Queues the records of a line. Waits for the sender's rate limit and for space in the log's
    /// queue, until the deadline: a bulk request is slowed down rather than refused line by line.
    async fn queue_line(
        &self,
        send: &SendRequest,
        key: Option<&IdempotencyKey>,
        users: &UserNames,
        encoder: &mut RecordEncoder,
    ) -> LineOutcome {
        let sender = &self.sender;
        let (count, bytes) = (send.to.len(), send.record_bytes());
        let mut deadline = None;
        while let Err(limited) = sender.limits.take_tokens(send.from, count, bytes) {
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + sender.timeout);
            match limited.retry_after {
                Some(wait) if Instant::now() + wait < deadline => sleep(wait).await,
                _ => return LineOutcome::Refused(limited.into()),
            }
        }
        let mut delivery = match sender.prepare_delivery(send, key, self.trace, users) {
            Ok(delivery) => delivery,
            Err(problem) => return LineOutcome::Refused(problem),
        };
        while !sender.queue_records(&mut delivery, send, users, encoder) {
            if Instant::now() >= delivery.deadline {
                delivery.fail_next(&sender.metrics);
            } else {
                sleep(QUEUE_FULL_DELAY).await;
            }
        }
        LineOutcome::Sending(delivery)
    }
}
