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
    directory::{LookupFailed, UserLookup, UserNames},
    metrics::SendMetrics,
    publish::Publisher,
    rate::SenderLimits,
};
use delivery::{AllSent, Delivery, DeliveryRecord, RecordState};
use idempotency::{IdempotencyKey, fingerprint};
use keys::IdempotencyKeys;
use request::SendRequest;

/// What a client that is to come again soon is told to wait.
pub(crate) const SOON: Duration = Duration::from_secs(1);

/// What an accepted send is answered with.
#[derive(Debug, Serialize)]
pub struct SendResponse {
    message: &'static str,
    sent: AllSent,
}

/// What sending needs. A cheap handle, to be cloned.
#[derive(Clone)]
pub struct Sender {
    /// Who the users are.
    pub users: UserLookup,
    /// The way into the log.
    pub publisher: Publisher,
    /// The Idempotency-Keys of late.
    pub keys: IdempotencyKeys,
    /// How much anybody may send.
    pub limits: SenderLimits,
    /// How long an acknowledgement may take.
    pub timeout: Duration,
    /// What became of all of them.
    pub(crate) metrics: SendMetrics,
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
        send: &SendRequest,
        key: Option<&IdempotencyKey>,
        trace: Option<TraceParent>,
    ) -> Result<SendResponse, Problem> {
        let people =
            self.users.look_up(std::iter::once(send.from).chain(send.to.iter().copied())).await;
        let mut delivery = self.prepare_delivery(send, key, trace, &people)?;
        // All are queued before any is waited for: the order of one sender's notifications is the
        // order in which their requests came.
        while !self.queue_records(&mut delivery, send, &people) {
            delivery.fail_next(&self.metrics);
        }
        delivery.await_acks(&self.keys, &self.metrics).await;
        match delivery.to_result() {
            Ok(sent) => Ok(SendResponse { message: "Notification sent successfully!", sent }),
            Err(problem) => {
                if let Some(error) = delivery.first_error() {
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
    pub(crate) fn prepare_delivery(
        &self,
        send: &SendRequest,
        key: Option<&IdempotencyKey>,
        trace: Option<TraceParent>,
        people: &UserNames,
    ) -> Result<Delivery, Problem> {
        let away = |LookupFailed| {
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
            Some(key) => key.notification_id(send.from, to),
            None => NotificationId::generate(),
        };
        let unsent = |&to| DeliveryRecord { to, id: id(to), state: RecordState::Unsent };
        let mut delivery = Delivery {
            records: send.to.iter().map(unsent).collect(),
            fingerprint: key.map(|_| fingerprint(send)),
            trace,
            queued: None,
            deadline: Instant::now() + self.timeout,
        };
        if let Some(fingerprint) = delivery.fingerprint {
            let ids = delivery.records.iter().map(|record| &record.id);
            let known = self.keys.claim_ids(ids, fingerprint).map_err(|_| {
                Problem::new(
                    StatusCode::UNPROCESSABLE_ENTITY,
                    "This Idempotency-Key was used for another notification; nothing was sent",
                )
            })?;
            for (record, known) in delivery.records.iter_mut().zip(known) {
                if let Some(position) = known {
                    self.metrics.duplicate.increment(1);
                    record.state = RecordState::Sent(position);
                }
            }
        }
        Ok(delivery)
    }

    /// Queues what is not queued yet, in order and without waiting; false when the queue is full
    /// before all of it is.
    pub(crate) fn queue_records(
        &self,
        delivery: &mut Delivery,
        send: &SendRequest,
        people: &UserNames,
    ) -> bool {
        let Ok(Some(from)) = people.get(send.from) else { return true };
        delivery.queued.get_or_insert_with(Instant::now);
        let sent_at = to_millisecond(Timestamp::now());
        for record in &mut delivery.records {
            if !matches!(record.state, RecordState::Unsent) {
                continue;
            }
            let Ok(Some(to)) = people.get(record.to) else { continue };
            let headers = Headers {
                id: record.id.clone(),
                sent_at,
                traceparent: delivery.trace.map(|trace| trace.to_string()),
                fingerprint: delivery.fingerprint,
            };
            record.state =
                match self.publisher.publish(&build_notification(&from, to, send), &headers) {
                    Ok(ack) => RecordState::Waiting(ack),
                    Err(AppendError::Full) => return false,
                    Err(error) => {
                        self.metrics.count_failed(&error);
                        RecordState::Failed(error)
                    }
                };
        }
        true
    }
}

/// With the names that the directory has now.
fn build_notification<'n>(
    from: &User<'n>,
    to: User<'n>,
    send: &'n SendRequest,
) -> Notification<'n> {
    Notification {
        from: from.clone(),
        to,
        message: Cow::Borrowed(send.message.as_str()),
        category: send.category.as_ref().map(Category::as_str).map(Cow::Borrowed),
        link: send.link.as_ref().map(Link::as_str).map(Cow::Borrowed),
        data: send.data.as_ref().map(Data::as_json),
    }
}
