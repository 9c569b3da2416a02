//! The results of a bulk, in the order of its lines, as lines of JSON. It makes them only as fast as
//! the client reads them.

use std::{convert::Infallible, time::Duration};

use axum::body::Body;
use bytes::{BufMut as _, Bytes, BytesMut};
use futures_util::{FutureExt as _, stream};
use serde::Serialize;
use serde_json::{Map, Value};
use service::problem::Problem;
use tokio::{
    sync::{OwnedSemaphorePermit, mpsc},
    time::sleep,
};

use crate::{
    metrics::{BulkLineCounters, SendMetrics},
    send::{
        delivery::{AllSent, Delivery},
        keys::IdempotencyKeys,
    },
};

/// As many bytes of results as go out together, where that many are ready.
const TARGET_CHUNK_BYTES: usize = 16 << 10;
/// How long results that are ready wait for company. Acknowledgements come in crowds, one right after
/// the other: to follow each as it comes would cost a wake-up and a write to the network for each.
const LINGER_DELAY: Duration = Duration::from_millis(1);

/// The status of a line that was sent.
const OK: u16 = 200;

/// What became of one line.
pub(crate) struct LineResult {
    pub(crate) line: u64,
    pub(crate) outcome: LineOutcome,
    /// A part of the window, which is free again when this answer is made.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

pub(crate) enum LineOutcome {
    /// Its records are queued, or acknowledged even.
    Sending(Delivery),
    /// It was not sent.
    Refused(Problem),
}

/// What is known while the answers are made.
struct ResultStream {
    queue: mpsc::Receiver<LineResult>,
    /// One that was begun with and is not acknowledged yet.
    pending: Option<LineResult>,
    keys: IdempotencyKeys,
    outcomes: SendMetrics,
    lines: BulkLineCounters,
    /// Lines answered, and those of them that were not sent.
    count: u64,
    failed: u64,
}

/// The body of the response.
pub(crate) fn results_body(
    queue: mpsc::Receiver<LineResult>,
    keys: IdempotencyKeys,
    outcomes: SendMetrics,
) -> Body {
    let (lines, count, failed) = (BulkLineCounters::default(), 0, 0);
    let answers = ResultStream { queue, pending: None, keys, outcomes, lines, count, failed };
    Body::from_stream(stream::unfold(answers, async |mut answers| {
        let chunk = answers.next_chunk().await;
        chunk.map(|chunk| (Ok::<_, Infallible>(chunk), answers))
    }))
}

impl ResultStream {
    /// The next results: at least one, and those after it that are ready by now. None at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        let mut lingered = false;
        while chunk.len() < TARGET_CHUNK_BYTES {
            let mut answer = match self.pending.take() {
                Some(answer) => answer,
                None if chunk.is_empty() => match self.queue.recv().await {
                    Some(answer) => answer,
                    None => {
                        tracing::debug!(lines = self.count, failed = self.failed, "a bulk ended");
                        return None;
                    }
                },
                None => match self.queue.try_recv() {
                    Ok(answer) => answer,
                    Err(_) if lingered => break,
                    Err(_) => {
                        lingered = true;
                        sleep(LINGER_DELAY).await;
                        continue;
                    }
                },
            };
            if let LineOutcome::Sending(delivery) = &mut answer.outcome {
                if chunk.is_empty() {
                    delivery.await_acks(&self.keys, &self.outcomes).await;
                } else if delivery.await_acks(&self.keys, &self.outcomes).now_or_never().is_none() {
                    self.pending = Some(answer);
                    // What is ready must not wait any longer for what is not.
                    if lingered {
                        break;
                    }
                    lingered = true;
                    sleep(LINGER_DELAY).await;
                    continue;
                }
            }
            self.count += 1;
            let status = write_result(&answer, &mut chunk);
            self.lines.count_line(status);
            self.failed += u64::from(status != OK);
            drop(answer.permit);
        }
        Some(chunk.freeze())
    }
}

/// Writes the line's result; its status.
fn write_result(answer: &LineResult, to: &mut BytesMut) -> u16 {
    let outcome = match &answer.outcome {
        LineOutcome::Sending(delivery) => delivery.to_result(),
        LineOutcome::Refused(problem) => Err(problem.clone()),
    };
    let status = outcome.as_ref().map_or_else(|problem| problem.status().as_u16(), |_| OK);
    let result = match outcome {
        Ok(sent) => {
            serde_json::to_writer(to.writer(), &SentRow { line: answer.line, status, sent })
        }
        Err(problem) => serde_json::to_writer(to.writer(), &refused_row(answer.line, &problem)),
    };
    debug_assert!(result.is_ok(), "only text and numbers, into memory");
    to.put_u8(b'\n');
    status
}

#[derive(Serialize)]
struct SentRow {
    line: u64,
    status: u16,
    sent: AllSent,
}

/// The problem's members, without those that only repeat its status and its message.
#[derive(Serialize)]
struct RefusedRow<'p> {
    line: u64,
    status: u16,
    message: &'p str,
    #[serde(flatten)]
    more: Map<String, Value>,
}

fn refused_row(line: u64, problem: &Problem) -> RefusedRow<'_> {
    let more = match serde_json::to_value(problem) {
        Ok(Value::Object(mut members)) => {
            for repeated in ["type", "title", "status", "detail", "message"] {
                members.remove(repeated);
            }
            members
        }
        _ => Map::new(),
    };
    RefusedRow { line, status: problem.status().as_u16(), message: problem.message(), more }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_line_says_its_number_the_status_the_message_and_the_field() {
        let problem = Problem::bad_request("to_id", "is missing");
        assert_eq!(
            serde_json::to_string(&refused_row(2, &problem)).expect("JSON"),
            r#"{"line":2,"status":400,"message":"to_id: is missing","field":"to_id"}"#
        );
    }
}
