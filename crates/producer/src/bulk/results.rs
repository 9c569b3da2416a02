//! The response of a bulk request: the results as NDJSON, in the order of the lines. Awaits
//! acknowledgements only as fast as the client reads.

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

/// A chunk of the response is sent once it has this size, even if more results are ready.
const TARGET_CHUNK_BYTES: usize = 16 << 10;
/// How long ready results wait for more. Acknowledgements arrive in bursts; a chunk for each would
/// cost a wake-up and a network write each.
const LINGER_DELAY: Duration = Duration::from_millis(1);

const OK: u16 = 200;

pub(crate) struct LineResult {
    pub(crate) line: u64,
    pub(crate) outcome: LineOutcome,
    /// Permits for pending bytes, released when this result is written.
    pub(crate) permit: Option<OwnedSemaphorePermit>,
}

pub(crate) enum LineOutcome {
    /// Its records are queued, and perhaps acknowledged.
    Sending(Delivery),
    Refused(Problem),
}

struct ResultStream {
    pending: mpsc::Receiver<LineResult>,
    /// The next result, if its acknowledgements were late for the last chunk.
    next: Option<LineResult>,
    keys: IdempotencyKeys,
    metrics: SendMetrics,
    line_counters: BulkLineCounters,
    /// Number of lines answered, and how many of them failed.
    count: u64,
    failed: u64,
}

pub(crate) fn results_body(
    pending: mpsc::Receiver<LineResult>,
    keys: IdempotencyKeys,
    metrics: SendMetrics,
) -> Body {
    let line_counters = BulkLineCounters::default();
    let results =
        ResultStream { pending, next: None, keys, metrics, line_counters, count: 0, failed: 0 };
    Body::from_stream(stream::unfold(results, async |mut results| {
        let chunk = results.next_chunk().await;
        chunk.map(|chunk| (Ok::<_, Infallible>(chunk), results))
    }))
}

impl ResultStream {
    /// Waits for a result and returns it with those that are ready by then. `None` at the end.
    async fn next_chunk(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        let mut lingered = false;
        while chunk.len() < TARGET_CHUNK_BYTES {
            let mut result = match self.next.take() {
                Some(result) => result,
                None if chunk.is_empty() => match self.pending.recv().await {
                    Some(result) => result,
                    None => {
                        tracing::debug!(
                            lines = self.count,
                            failed = self.failed,
                            "a bulk request ended"
                        );
                        return None;
                    }
                },
                None => match self.pending.try_recv() {
                    Ok(result) => result,
                    Err(_) if lingered => break,
                    Err(_) => {
                        lingered = true;
                        sleep(LINGER_DELAY).await;
                        continue;
                    }
                },
            };
            if let LineOutcome::Sending(delivery) = &mut result.outcome {
                let acks = delivery.await_acks(&self.keys, &self.metrics);
                if chunk.is_empty() {
                    acks.await;
                } else if acks.now_or_never().is_none() {
                    self.next = Some(result);
                    if lingered {
                        break;
                    }
                    lingered = true;
                    sleep(LINGER_DELAY).await;
                    continue;
                }
            }
            self.count += 1;
            let status = write_result(&result, &mut chunk);
            self.line_counters.count_line(status);
            self.failed += u64::from(status != OK);
            drop(result.permit);
        }
        Some(chunk.freeze())
    }
}

/// Writes a line's result and returns its status.
fn write_result(result: &LineResult, to: &mut BytesMut) -> u16 {
    let outcome = match &result.outcome {
        LineOutcome::Sending(delivery) => delivery.to_result(),
        LineOutcome::Refused(problem) => Err(problem.clone()),
    };
    let line = result.line;
    let (status, written) = match outcome {
        Ok(sent) => (OK, serde_json::to_writer(to.writer(), &SentRow { line, status: OK, sent })),
        Err(problem) => {
            let row = refused_row(line, &problem);
            (row.status, serde_json::to_writer(to.writer(), &row))
        }
    };
    debug_assert!(written.is_ok(), "rows are serializable, and writing to memory does not fail");
    to.put_u8(b'\n');
    status
}

#[derive(Serialize)]
struct SentRow {
    line: u64,
    status: u16,
    sent: AllSent,
}

/// A problem without the members that repeat its status and message.
#[derive(Serialize)]
struct RefusedRow<'p> {
    line: u64,
    status: u16,
    message: &'p str,
    #[serde(flatten)]
    more: Map<String, Value>,
}

fn refused_row(line: u64, problem: &Problem) -> RefusedRow<'_> {
    let mut more = match serde_json::to_value(problem) {
        Ok(Value::Object(members)) => members,
        _ => Map::new(),
    };
    let repeated = ["type", "title", "status", "detail", "message"];
    more.retain(|name, _| !repeated.contains(&name.as_str()));
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
