//! The records of one send, one for each recipient, from the producer's queue to the response.

use axum::http::StatusCode;
use event_log::{Ack, AppendError, Position};
use futures_util::FutureExt as _;
use model::{Cursor, Fingerprint, NotificationId, UserId};
use serde::Serialize;
use service::{ops::trace::TraceParent, problem::Problem};
use smallvec::SmallVec;
use tokio::time::{Instant, timeout_at};
use utoipa::ToSchema;

use super::keys::IdempotencyKeys;
use crate::{metrics::SendMetrics, problems::RETRY_SOON};

/// One recipient's notification, in the log.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Delivery)]
pub(crate) struct SentNotification {
    #[schema(value_type = i64, minimum = 1, example = 1)]
    to_id: UserId,
    #[schema(value_type = String, example = "01a20397-68d9-7367-9612-d4f7597a900b")]
    id: NotificationId,
    /// Its position in the log. With it as `at_least`, a read waits until the inbox contains it.
    #[schema(value_type = String, example = "3-1042-5f3a9c01")]
    cursor: Cursor,
}

/// One recipient's notification that may not be in the log.
#[derive(Debug, Serialize)]
struct FailedNotification {
    to_id: UserId,
    status: u16,
    message: &'static str,
}

pub(crate) type AllSent = SmallVec<[SentNotification; 1]>;

/// The records of one send and their progress.
pub(crate) struct Delivery {
    pub(crate) records: SmallVec<[DeliveryRecord; 1]>,
    /// `None` if the send has no Idempotency-Key.
    pub(crate) fingerprint: Option<Fingerprint>,
    /// The trace of the request, which the records continue.
    pub(crate) trace: Option<TraceParent>,
    /// When its records were about to be appended.
    pub(crate) queued_at: Instant,
    /// When to stop waiting for acknowledgements.
    pub(crate) deadline: Instant,
}

pub(crate) struct DeliveryRecord {
    pub(crate) to: UserId,
    pub(crate) id: NotificationId,
    pub(crate) state: RecordState,
}

pub(crate) enum RecordState {
    Unsent,
    /// Queued, not acknowledged.
    Waiting(Ack),
    /// In the log, from this request or from an earlier one with the same key.
    Sent(Position),
    Failed(AppendError),
}

impl Delivery {
    /// Waits for every acknowledgement, until the deadline. Cancel safe.
    pub(crate) async fn await_acks(&mut self, keys: &IdempotencyKeys, metrics: &SendMetrics) {
        let (keyed, queued_at) = (self.fingerprint.is_some(), self.queued_at);
        let finish = |record: &mut DeliveryRecord, outcome: Result<Position, AppendError>| {
            record.state = match outcome {
                Ok(position) => {
                    metrics.count_acknowledged(queued_at.elapsed());
                    if keyed {
                        keys.record_position(&record.id, position);
                    }
                    RecordState::Sent(position)
                }
                Err(error) => {
                    metrics.count_failed(&error);
                    RecordState::Failed(error)
                }
            };
        };
        let all = async {
            for record in &mut self.records {
                if let RecordState::Waiting(ack) = &mut record.state {
                    let outcome = ack.await;
                    finish(record, outcome);
                }
            }
        };
        if timeout_at(self.deadline, all).await.is_ok() {
            return;
        }
        // Records behind the late one may be acknowledged all the same.
        for record in &mut self.records {
            if let RecordState::Waiting(ack) = &mut record.state {
                let late = || Err(AppendError::TimedOut("the deadline of the request".into()));
                let outcome = ack.now_or_never().unwrap_or_else(late);
                finish(record, outcome);
            }
        }
    }

    /// Gives up the first record that is not queued yet, because the queue is full.
    pub(crate) fn fail_next(&mut self, metrics: &SendMetrics) {
        let mut records = self.records.iter_mut();
        if let Some(record) = records.find(|record| matches!(record.state, RecordState::Unsent)) {
            metrics.count_failed(&AppendError::Full);
            record.state = RecordState::Failed(AppendError::Full);
        }
    }

    /// The result of the send, once [`await_acks`](Self::await_acks) has ended: a problem if at least
    /// one record was not acknowledged. It lists the recipients who were reached and those who were
    /// not, so that the client need not repeat the whole send.
    pub(crate) fn to_result(&self) -> Result<AllSent, Problem> {
        let mut sent = AllSent::with_capacity(self.records.len());
        let mut failed = Vec::new();
        for DeliveryRecord { to, id, state } in &self.records {
            let (status, message) = match state {
                RecordState::Sent(Position { partition, offset, epoch }) => {
                    let cursor = Cursor::new(*partition, *offset).with_epoch(*epoch);
                    sent.push(SentNotification { to_id: *to, id: id.clone(), cursor });
                    continue;
                }
                RecordState::Failed(error) => self.failure_reason(error),
                // Unreachable after `await_acks`.
                RecordState::Unsent | RecordState::Waiting(_) => self.outcome_unknown(),
            };
            failed.push(FailedNotification { to_id: *to, status: status.as_u16(), message });
        }
        // The whole send has the highest status: 504 (unknown) must not hide behind 503 (not sent).
        let Some(worst) = failed.iter().max_by_key(|failed| failed.status) else {
            return Ok(sent);
        };
        let problem = match StatusCode::from_u16(worst.status) {
            Ok(StatusCode::SERVICE_UNAVAILABLE) => Problem::unavailable(worst.message, RETRY_SOON),
            Ok(status) => Problem::new(status, worst.message),
            Err(_) => Problem::internal(),
        };
        if self.records.len() == 1 {
            return Err(problem);
        }
        Err(problem.with("sent", &sent).with("failed", failed))
    }

    /// The first error, for the log.
    pub(crate) fn first_error(&self) -> Option<&AppendError> {
        self.records.iter().find_map(|record| match &record.state {
            RecordState::Failed(error) => Some(error),
            RecordState::Unsent | RecordState::Waiting(_) | RecordState::Sent(_) => None,
        })
    }

    fn failure_reason(&self, error: &AppendError) -> (StatusCode, &'static str) {
        match error {
            AppendError::Full => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Too many notifications are being sent; try again shortly",
            ),
            AppendError::Unreachable(_) | AppendError::Refused(_) => (
                StatusCode::SERVICE_UNAVAILABLE,
                "Notifications cannot be published now; try again shortly",
            ),
            AppendError::TimedOut(_) => self.outcome_unknown(),
            AppendError::TooLarge => {
                (StatusCode::PAYLOAD_TOO_LARGE, "The notification is larger than the log allows")
            }
        }
    }

    fn outcome_unknown(&self) -> (StatusCode, &'static str) {
        let message = if self.fingerprint.is_some() {
            "The outcome is unknown: the notification was not acknowledged in time. Retry with the \
             same Idempotency-Key; it will be shown once"
        } else {
            "The outcome is unknown: the notification was not acknowledged in time. It may still be \
             delivered, and sending it again may show it twice; with an Idempotency-Key it is safe \
             to retry"
        };
        (StatusCode::GATEWAY_TIMEOUT, message)
    }
}
