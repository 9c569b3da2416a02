//! The records of one send, from the queue to the answer: one for each recipient, each with a fate of
//! its own.

use axum::http::StatusCode;
use event_log::{Ack, AppendError, Position};
use futures_util::FutureExt as _;
use model::{Cursor, Fingerprint, NotificationId, UserId};
use serde::Serialize;
use service::{ops::trace::TraceParent, problem::Problem};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};

use super::{SOON, keys::IdempotencyKeys};
use crate::metrics::SendMetrics;

/// One recipient's notification, in the log.
#[derive(Debug, Serialize)]
pub struct SentNotification {
    to_id: UserId,
    id: NotificationId,
    cursor: Cursor,
}

/// One recipient's notification that is not certain to be in the log.
#[derive(Debug, Serialize)]
struct FailedNotification {
    to_id: UserId,
    status: u16,
    message: &'static str,
}

/// What a send came to, for those whom it reached.
pub type AllSent = SmallVec<[SentNotification; 1]>;

/// One send on its way.
pub(crate) struct Delivery {
    pub(crate) records: SmallVec<[DeliveryRecord; 1]>,
    /// There where the send has an Idempotency-Key.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// Its place in a trace, which the records carry on.
    pub(crate) trace: Option<TraceParent>,
    /// When the first of its records was appended.
    pub(crate) queued: Option<Instant>,
    /// When to give up waiting.
    pub(crate) deadline: Instant,
}

/// One recipient's record.
pub(crate) struct DeliveryRecord {
    pub(crate) to: UserId,
    pub(crate) id: NotificationId,
    pub(crate) state: RecordState,
}

/// How far it is.
pub(crate) enum RecordState {
    /// Not queued yet.
    Unsent,
    /// Queued, not acknowledged.
    Waiting(Ack),
    /// In the log, now or since an earlier attempt.
    Sent(Position),
    /// Given up.
    Failed(AppendError),
}

impl Delivery {
    /// Waits for every acknowledgement, until the deadline. May be dropped and called again.
    pub(crate) async fn await_acks(&mut self, keys: &IdempotencyKeys, outcomes: &SendMetrics) {
        let keyed = self.fingerprint.is_some();
        let settled = |record: &mut DeliveryRecord, outcome: Result<Position, AppendError>| {
            match &outcome {
                Ok(_) => outcomes.count_acknowledged(
                    self.queued.map_or_else(Default::default, |at| at.elapsed()),
                ),
                Err(error) => outcomes.count_failed(error),
            }
            record.set_outcome(outcome, keyed, keys);
        };
        let records = &mut self.records;
        let all = async {
            for record in records.iter_mut() {
                if let RecordState::Waiting(ack) = &mut record.state {
                    let outcome = ack.await;
                    settled(record, outcome);
                }
            }
        };
        if timeout_at(self.deadline, all).await.is_ok() {
            return;
        }
        // Those behind the one that is late may be in the log all the same.
        for record in &mut self.records {
            if let RecordState::Waiting(ack) = &mut record.state {
                let late = || Err(AppendError::TimedOut("the deadline of the request".into()));
                let outcome = ack.now_or_never().unwrap_or_else(late);
                settled(record, outcome);
            }
        }
    }

    /// Does without the first record that is not queued yet, because the queue is full.
    pub(crate) fn fail_next(&mut self, outcomes: &SendMetrics) {
        let mut unsent = self.records.iter_mut().filter(|r| matches!(r.state, RecordState::Unsent));
        if let Some(record) = unsent.next() {
            outcomes.count_failed(&AppendError::Full);
            record.state = RecordState::Failed(AppendError::Full);
        }
    }

    /// What it came to. To be asked when it is settled.
    ///
    /// # Errors
    /// The problem of a send of which at least one record was not acknowledged. It names what was
    /// sent and what was not, so that the client need not repeat everything.
    pub(crate) fn to_result(&self) -> Result<AllSent, Problem> {
        let mut sent = AllSent::with_capacity(self.records.len());
        let mut failed = Vec::new();
        for DeliveryRecord { to, id, state } in &self.records {
            match state {
                RecordState::Sent(Position { partition, offset }) => sent.push(SentNotification {
                    to_id: *to,
                    id: id.clone(),
                    cursor: Cursor::new(*partition, *offset),
                }),
                RecordState::Failed(error) => failed.push((*to, self.failure_reason(error))),
                // Nobody asks before; and if somebody did, this is what they would have to know.
                RecordState::Unsent | RecordState::Waiting(_) => {
                    failed.push((*to, self.outcome_unknown()))
                }
            }
        }
        // What is unknown of one recipient must not be hidden by what is certain of another.
        // 504 is the highest status here.
        let Some((_, worst)) = failed.iter().max_by_key(|(_, reason)| reason.status) else {
            return Ok(sent);
        };
        let problem = match worst.status {
            StatusCode::SERVICE_UNAVAILABLE => Problem::unavailable(worst.message, SOON),
            status => Problem::new(status, worst.message),
        };
        if self.records.len() == 1 {
            return Err(problem);
        }
        let failed: Vec<_> = failed
            .iter()
            .map(|(to_id, reason)| FailedNotification {
                to_id: *to_id,
                status: reason.status.as_u16(),
                message: reason.message,
            })
            .collect();
        Err(problem.with("sent", &sent).with("failed", failed))
    }

    /// The first error, for the log.
    pub(crate) fn first_error(&self) -> Option<&AppendError> {
        self.records.iter().find_map(|record| match &record.state {
            RecordState::Failed(error) => Some(error),
            RecordState::Unsent | RecordState::Waiting(_) | RecordState::Sent(_) => None,
        })
    }

    fn failure_reason(&self, error: &AppendError) -> FailureReason {
        let unavailable =
            |message| FailureReason { status: StatusCode::SERVICE_UNAVAILABLE, message };
        match error {
            AppendError::Full => {
                unavailable("Too many notifications are being sent; try again shortly")
            }
            AppendError::Unreachable(_) | AppendError::Refused(_) => {
                unavailable("Notifications cannot be published now; try again shortly")
            }
            AppendError::TimedOut(_) => self.outcome_unknown(),
            AppendError::TooLarge => FailureReason {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                message: "The notification is larger than the log allows",
            },
        }
    }

    fn outcome_unknown(&self) -> FailureReason {
        let message = if self.fingerprint.is_some() {
            "The outcome is unknown: the notification was not acknowledged in time. Retry with the \
             same Idempotency-Key; it will be shown once"
        } else {
            "The outcome is unknown: the notification was not acknowledged in time. It may still be \
             delivered, and sending it again may show it twice; with an Idempotency-Key a retry is \
             safe"
        };
        FailureReason { status: StatusCode::GATEWAY_TIMEOUT, message }
    }
}

/// What a client is told of one recipient.
struct FailureReason {
    status: StatusCode,
    message: &'static str,
}

impl DeliveryRecord {
    fn set_outcome(
        &mut self,
        outcome: Result<Position, AppendError>,
        keyed: bool,
        keys: &IdempotencyKeys,
    ) {
        self.state = match outcome {
            Ok(position) => {
                if keyed {
                    keys.record_position(&self.id, position);
                }
                RecordState::Sent(position)
            }
            Err(error) => RecordState::Failed(error),
        };
    }
}
