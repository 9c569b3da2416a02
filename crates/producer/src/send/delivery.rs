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

use super::{SOON, keys::Keys};
use crate::metrics::Outcomes;

/// One recipient's notification, in the log.
#[derive(Debug, Serialize)]
pub struct Sent {
    to_id: UserId,
    id: NotificationId,
    cursor: Cursor,
}

/// One recipient's notification that is not certain to be in the log.
#[derive(Debug, Serialize)]
struct Failed {
    to_id: UserId,
    status: u16,
    message: &'static str,
}

/// What a send came to, for those whom it reached.
pub type AllSent = SmallVec<[Sent; 1]>;

/// One send on its way.
pub(crate) struct Delivery {
    pub(crate) records: SmallVec<[Record; 1]>,
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
pub(crate) struct Record {
    pub(crate) to: UserId,
    pub(crate) id: NotificationId,
    pub(crate) state: State,
}

/// How far it is.
pub(crate) enum State {
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
    pub(crate) async fn settle(&mut self, keys: &Keys, outcomes: &Outcomes) {
        let keyed = self.fingerprint.is_some();
        let settled = |record: &mut Record, outcome: Result<Position, AppendError>| {
            match &outcome {
                Ok(_) => outcomes
                    .acknowledged(self.queued.map_or_else(Default::default, |at| at.elapsed())),
                Err(error) => outcomes.failed(error),
            }
            record.settled(outcome, keyed, keys);
        };
        let records = &mut self.records;
        let all = async {
            for record in records.iter_mut() {
                if let State::Waiting(ack) = &mut record.state {
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
            if let State::Waiting(ack) = &mut record.state {
                let late = || Err(AppendError::TimedOut("the deadline of the request".into()));
                let outcome = ack.now_or_never().unwrap_or_else(late);
                settled(record, outcome);
            }
        }
    }

    /// Does without the first record that is not queued yet, because the queue is full.
    pub(crate) fn give_up_next(&mut self, outcomes: &Outcomes) {
        let mut unsent = self.records.iter_mut().filter(|r| matches!(r.state, State::Unsent));
        if let Some(record) = unsent.next() {
            outcomes.failed(&AppendError::Full);
            record.state = State::Failed(AppendError::Full);
        }
    }

    /// What it came to. To be asked when it is settled.
    ///
    /// # Errors
    /// The problem of a send of which at least one record was not acknowledged. It names what was
    /// sent and what was not, so that the client need not repeat everything.
    pub(crate) fn outcome(&self) -> Result<AllSent, Problem> {
        let mut sent = AllSent::with_capacity(self.records.len());
        let mut failed = Vec::new();
        for Record { to, id, state } in &self.records {
            match state {
                State::Sent(Position { partition, offset }) => sent.push(Sent {
                    to_id: *to,
                    id: id.clone(),
                    cursor: Cursor::new(*partition, *offset),
                }),
                State::Failed(error) => failed.push((*to, self.reason(error))),
                // Nobody asks before; and if somebody did, this is what they would have to know.
                State::Unsent | State::Waiting(_) => failed.push((*to, self.unknown())),
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
            .map(|(to_id, reason)| Failed {
                to_id: *to_id,
                status: reason.status.as_u16(),
                message: reason.message,
            })
            .collect();
        Err(problem.with("sent", &sent).with("failed", failed))
    }

    /// The first error, for the log.
    pub(crate) fn error(&self) -> Option<&AppendError> {
        self.records.iter().find_map(|record| match &record.state {
            State::Failed(error) => Some(error),
            State::Unsent | State::Waiting(_) | State::Sent(_) => None,
        })
    }

    fn reason(&self, error: &AppendError) -> Reason {
        let unavailable = |message| Reason { status: StatusCode::SERVICE_UNAVAILABLE, message };
        match error {
            AppendError::Full => {
                unavailable("Too many notifications are being sent; try again shortly")
            }
            AppendError::Unreachable(_) | AppendError::Refused(_) => {
                unavailable("Notifications cannot be published now; try again shortly")
            }
            AppendError::TimedOut(_) => self.unknown(),
            AppendError::TooLarge => Reason {
                status: StatusCode::PAYLOAD_TOO_LARGE,
                message: "The notification is larger than the log allows",
            },
        }
    }

    fn unknown(&self) -> Reason {
        let message = if self.fingerprint.is_some() {
            "The outcome is unknown: the notification was not acknowledged in time. Retry with the \
             same Idempotency-Key; it will be shown once"
        } else {
            "The outcome is unknown: the notification was not acknowledged in time. It may still be \
             delivered, and sending it again may show it twice; with an Idempotency-Key a retry is \
             safe"
        };
        Reason { status: StatusCode::GATEWAY_TIMEOUT, message }
    }
}

/// What a client is told of one recipient.
struct Reason {
    status: StatusCode,
    message: &'static str,
}

impl Record {
    fn settled(&mut self, outcome: Result<Position, AppendError>, keyed: bool, keys: &Keys) {
        self.state = match outcome {
            Ok(position) => {
                if keyed {
                    keys.acknowledged(&self.id, position);
                }
                State::Sent(position)
            }
            Err(error) => State::Failed(error),
        };
    }
}
