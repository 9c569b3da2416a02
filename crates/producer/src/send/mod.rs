//! Sends a notification: looks up its users, queues a record for each recipient, and responds once
//! the log has acknowledged all of them.

pub(crate) mod idempotency;
pub(crate) mod request;
pub(crate) mod keys;
pub(crate) mod delivery;
#[cfg(test)]
mod fuzz;

use std::{borrow::Cow, time::Duration};

use axum::http::StatusCode;
use event_log::AppendError;
use jiff::Timestamp;
use model::{
    Category, Data, Headers, Link, Notification, NotificationId, headers::to_millisecond,
    record::RecordEncoder,
};
use serde::Serialize;
use service::{ops::trace::TraceParent, problem::Problem};
use tokio::time::Instant;
use utoipa::ToSchema;

use crate::{
    directory::{UserLookup, UserNames},
    metrics::SendMetrics,
    problems::{directory_unavailable, user_not_found},
    publish::Publisher,
    rate::SenderLimits,
};
use delivery::{AllSent, Delivery, DeliveryRecord, RecordState, SentNotification};
use idempotency::IdempotencyKey;
use keys::IdempotencyKeys;
use request::SendRequest;

/// The acknowledged notifications.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sent)]
pub(crate) struct SendResponse {
    #[schema(example = "Notification sent successfully!")]
    message: &'static str,
    #[schema(value_type = Vec<SentNotification>)]
    sent: AllSent,
}

/// Sends notifications. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Sender {
    pub users: UserLookup,
    pub publisher: Publisher,
    pub keys: IdempotencyKeys,
    pub limits: SenderLimits,
    /// How long to wait for acknowledgements.
    pub timeout: Duration,
    pub(crate) metrics: SendMetrics,
}

impl Sender {
    /// Sends to every recipient. Sends nothing if a user does not exist, or if the key was used for
    /// other content.
    ///
    /// 404 for an unknown user, 422 for a reused key, 503 if the directory or the log is not
    /// available, 504 if the log did not acknowledge in time.
    pub(crate) async fn send(
        &self,
        send: &SendRequest,
        key: Option<&IdempotencyKey>,
        trace: Option<TraceParent>,
    ) -> Result<SendResponse, Problem> {
        let users = self.users.look_up(send.users()).await;
        let mut delivery = self.prepare_delivery(send, key, trace, &users)?;
        // Queues all records before it waits for any, so that one sender's notifications keep the
        // order of their requests.
        let mut encoder = RecordEncoder::default();
        while !self.queue_records(&mut delivery, send, &users, &mut encoder) {
            delivery.fail_next(&self.metrics);
        }
        drop(encoder);
        delivery.await_acks(&self.keys, &self.metrics).await;
        let result = delivery.to_result();
        if result.is_err()
            && let Some(error) = delivery.first_error()
        {
            tracing::warn!(%error, recipients = send.to.len(), "a send was not acknowledged");
        }
        Ok(SendResponse { message: "Notification sent successfully!", sent: result? })
    }

    /// Makes the delivery of a send whose [`users`](SendRequest::users) these are. Records that an earlier request with the same key wrote are
    /// [`RecordState::Sent`] already, all others are not queued yet.
    pub(crate) fn prepare_delivery(
        &self,
        send: &SendRequest,
        key: Option<&IdempotencyKey>,
        trace: Option<TraceParent>,
        users: &UserNames,
    ) -> Result<Delivery, Problem> {
        let mut unknown = Vec::new();
        for (index, id) in send.users().enumerate() {
            if users.get_at(index).map_err(|_| directory_unavailable())?.is_none() {
                unknown.push(id);
            }
        }
        if !unknown.is_empty() {
            return Err(user_not_found().with("unknown", unknown));
        }
        let now = Instant::now();
        let id = |to| match key {
            Some(key) => key.notification_id(send.from, to),
            None => NotificationId::generate(),
        };
        let unsent = |&to| DeliveryRecord { to, id: id(to), state: RecordState::Unsent };
        let mut delivery = Delivery {
            records: send.to.iter().map(unsent).collect(),
            fingerprint: key.map(|_| send.fingerprint()),
            trace,
            queued_at: now,
            deadline: now + self.timeout,
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

    /// Queues all unsent records in order, without waiting. Returns false if the queue is full
    /// before the last one.
    pub(crate) fn queue_records(
        &self,
        delivery: &mut Delivery,
        send: &SendRequest,
        users: &UserNames,
        encoder: &mut RecordEncoder,
    ) -> bool {
        let Ok(Some(from)) = users.get_at(0) else { return true };
        let sent_at = to_millisecond(Timestamp::now());
        let traceparent = delivery.trace.map(|trace| trace.to_string());
        for (index, record) in (1..).zip(&mut delivery.records) {
            if !matches!(record.state, RecordState::Unsent) {
                continue;
            }
            let Ok(Some(to)) = users.get_at(index) else { continue };
            let headers = Headers {
                id: record.id.clone(),
                sent_at,
                traceparent: traceparent.clone(),
                fingerprint: delivery.fingerprint,
            };
            let notification = Notification {
                from: from.clone(),
                to,
                message: send.message.as_str().into(),
                category: send.category.as_ref().map(Category::as_str).map(Cow::Borrowed),
                link: send.link.as_ref().map(Link::as_str).map(Cow::Borrowed),
                data: send.data.as_ref().map(Data::as_json),
            };
            record.state = match self.publisher.publish(&notification, &headers, encoder) {
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
