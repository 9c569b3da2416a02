//! Sending: both users looked up, a record for each recipient, an answer once all are acknowledged.

pub mod request;
pub mod idempotency;
pub mod keys;
pub mod delivery;
#[cfg(test)]
mod fuzz;

use std::{borrow::Cow, time::Duration};

use axum::http::StatusCode;
use event_log::AppendError;
use jiff::Timestamp;
use model::{
    Category, Data, Headers, Link, Notification, NotificationId, User, headers::to_millisecond,
};
use serde::Serialize;
use service::{ops::trace::TraceParent, problem::Problem};
use tokio::time::Instant;

use crate::{
    directory::{Away, Names, People},
    metrics::Outcomes,
    publish::Publisher,
    rate::Rates,
};
use delivery::{AllSent, Delivery, Record, State};
use idempotency::{IdempotencyKey, fingerprint};
use keys::Keys;
use request::Send;

/// What a client that is to come again soon is told to wait.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// What an accepted send is answered with.
#[derive(Debug, Serialize)]
pub struct Accepted {
    message: &'static str,
    sent: AllSent,
}

/// What sending needs. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Sender {
    /// Who the users are.
    pub names: Names,
    /// The way into the log.
    pub publisher: Publisher,
    /// The Idempotency-Keys of late.
    pub keys: Keys,
    /// How much anybody may send.
    pub rates: Rates,
    /// How long an acknowledgement may take.
    pub deadline: Duration,
    /// What became of all of them.
    pub(crate) outcomes: Outcomes,
}

impl Sender {
    /// Sends to every recipient. Either all users exist, or nothing is sent; with a key, either all
    /// of it is new or the same as before, or nothing is sent.
    ///
    /// # Errors
    /// 404 for an unknown user, 422 for a key that was used for something else, 503 when the
    /// directory or the log is away, 504 when the log did not acknowledge in time; see DESIGN.md §6.
    pub async fn send(
        &self,
        send: &Send,
        key: Option<&IdempotencyKey>,
        trace: Option<TraceParent>,
    ) -> Result<Accepted, Problem> {
        let people = self.names.of(std::iter::once(send.from).chain(send.to.iter().copied())).await;
        let mut delivery = self.address(send, key, trace, &people)?;
        // All are queued before any is waited for: the order of one sender's notifications is the
        // order in which their requests came.
        while !self.queue(&mut delivery, send, &people) {
            delivery.give_up_next(&self.outcomes);
        }
        delivery.settle(&self.keys, &self.outcomes).await;
        match delivery.outcome() {
            Ok(sent) => Ok(Accepted { message: "Notification sent successfully!", sent }),
            Err(problem) => {
                if let Some(error) = delivery.error() {
                    tracing::warn!(%error, recipients = send.to.len(), "a send was not acknowledged");
                }
                Err(problem)
            }
        }
    }

    /// A delivery of which nothing is queued yet, but of which some may be in the log already.
    ///
    /// # Errors
    /// 404, 422 and 503, as [`send`](Self::send).
    pub(crate) fn address(
        &self,
        send: &Send,
        key: Option<&IdempotencyKey>,
        trace: Option<TraceParent>,
        people: &People,
    ) -> Result<Delivery, Problem> {
        let away = |Away| {
            Problem::unavailable("The user directory is not available; try again shortly", SOON)
        };
        let mut unknown = Vec::new();
        for &id in std::iter::once(&send.from).chain(&send.to) {
            if people.get(id).map_err(away)?.is_none() {
                unknown.push(id);
            }
        }
        if !unknown.is_empty() {
            return Err(Problem::not_found("User not found").with("unknown", unknown));
        }
        let id = |to| match key {
            Some(key) => key.id(send.from, to),
            None => NotificationId::generate(),
        };
        let unsent = |&to| Record { to, id: id(to), state: State::Unsent };
        let mut delivery = Delivery {
            records: send.to.iter().map(unsent).collect(),
            fingerprint: key.map(|_| fingerprint(send)),
            trace,
            queued: None,
            deadline: Instant::now() + self.deadline,
        };
        if let Some(fingerprint) = delivery.fingerprint {
            let ids = delivery.records.iter().map(|record| &record.id);
            let known = self.keys.claim(ids, fingerprint).map_err(|_| {
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "This Idempotency-Key was used for another notification; nothing was sent",
                )
            })?;
            for (record, known) in delivery.records.iter_mut().zip(known) {
                if let Some(position) = known {
                    self.outcomes.duplicate.increment(1);
                    record.state = State::Sent(position);
                }
            }
        }
        Ok(delivery)
    }

    /// Queues what is not queued yet, in order and without waiting; false when the queue is full
    /// before all of it is.
    pub(crate) fn queue(&self, delivery: &mut Delivery, send: &Send, people: &People) -> bool {
        let Ok(Some(from)) = people.get(send.from) else { return true };
        delivery.queued.get_or_insert_with(Instant::now);
        let sent_at = to_millisecond(Timestamp::now());
        for record in &mut delivery.records {
            if !matches!(record.state, State::Unsent) {
                continue;
            }
            let Ok(Some(to)) = people.get(record.to) else { continue };
            let headers = Headers {
                id: record.id.clone(),
                sent_at,
                traceparent: delivery.trace.map(|trace| trace.to_string()),
                fingerprint: delivery.fingerprint,
            };
            record.state = match self.publisher.publish(&notification(&from, to, send), &headers) {
                Ok(ack) => State::Waiting(ack),
                Err(AppendError::Full) => return false,
                Err(error) => {
                    self.outcomes.failed(&error);
                    State::Failed(error)
                }
            };
        }
        true
    }
}

/// With the names that the directory has now.
fn notification<'n>(from: &User<'n>, to: User<'n>, send: &'n Send) -> Notification<'n> {
    Notification {
        from: from.clone(),
        to,
        message: Cow::Borrowed(send.message.as_str()),
        category: send.category.as_ref().map(Category::as_str).map(Cow::Borrowed),
        link: send.link.as_ref().map(Link::as_str).map(Cow::Borrowed),
        data: send.data.as_ref().map(Data::as_json),
    }
}
