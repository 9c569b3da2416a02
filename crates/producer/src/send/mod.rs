//! Sending: both users looked up, a record for each recipient, an answer once all are acknowledged.

pub mod request;

use std::{borrow::Cow, time::Duration};

use axum::http::StatusCode;
use jiff::Timestamp;
use log::{Ack, AppendError, Position};
use model::{Cursor, Headers, Notification, NotificationId, UserId, headers::to_millisecond};
use serde::Serialize;
use service::problem::Problem;

use crate::{directory::Directory, publish::Publisher};
use request::Send;

/// What a client that is to come again soon is told to wait.
const SOON: Duration = Duration::from_secs(1);

/// What an accepted send is answered with.
#[derive(Debug, Serialize)]
pub struct Sent {
    message: &'static str,
    sent: Vec<Delivery>,
}

/// One recipient's notification, in the log.
#[derive(Debug, Serialize)]
pub struct Delivery {
    to_id: UserId,
    id: NotificationId,
    cursor: Cursor,
}

/// What sending needs.
#[derive(Clone)]
pub struct Sender {
    /// Who the users are.
    pub directory: Directory,
    /// The way into the log.
    pub publisher: Publisher,
    /// How long an acknowledgement may take.
    pub deadline: Duration,
}

impl Sender {
    /// Sends to every recipient. Either all users exist, or nothing is sent.
    ///
    /// # Errors
    /// 404 for an unknown user, 503 when the directory or the log is away, 504 when the log did
    /// not acknowledge in time; see DESIGN.md §6.
    pub async fn send(&self, send: &Send) -> Result<Sent, Problem> {
        let notifications = self.address(send).await?;
        // All are queued before any is waited for: the order of one sender's notifications is the
        // order in which their requests came.
        let queued: Vec<_> = notifications
            .iter()
            .map(|(notification, headers)| {
                (notification.to.id, &headers.id, self.publisher.publish(notification, headers))
            })
            .collect();
        let deadline = tokio::time::Instant::now() + self.deadline;
        let mut sent = Vec::with_capacity(queued.len());
        let mut failed: Vec<(UserId, AppendError)> = Vec::new();
        for (to_id, id, ack) in queued {
            match acknowledged(ack, deadline).await {
                Ok(Position { partition, offset }) => {
                    sent.push(Delivery {
                        to_id,
                        id: id.clone(),
                        cursor: Cursor::new(partition, offset),
                    });
                }
                Err(error) => failed.push((to_id, error)),
            }
        }
        // What is unknown of one recipient must not be hidden by what is certain of another.
        let unknown = |error: &AppendError| matches!(error, AppendError::TimedOut(_));
        match failed.iter().max_by_key(|(_, error)| unknown(error)) {
            None => Ok(Sent { message: "Notification sent successfully!", sent }),
            Some((_, error)) => Err(not_sent(error, &sent, &failed)),
        }
    }

    /// The notifications of a send, with the names that the directory has now.
    async fn address<'s>(
        &self,
        send: &'s Send,
    ) -> Result<Vec<(Notification<'s>, Headers)>, Problem> {
        let everybody: Vec<_> = std::iter::once(send.from).chain(send.to.iter().copied()).collect();
        let users = self.directory.users(&everybody).await.map_err(|error| {
            tracing::warn!(%error, "a send was refused");
            Problem::unavailable("The user directory is not available; try again shortly", SOON)
        })?;
        let unknown: Vec<_> = everybody.iter().filter(|id| !users.contains_key(id)).collect();
        let Some(from) = users.get(&send.from).filter(|_| unknown.is_empty()) else {
            return Err(Problem::not_found("User not found").with("unknown", unknown));
        };
        let sent_at = to_millisecond(Timestamp::now());
        let recipients = send.to.iter().filter_map(|id| users.get(id));
        Ok(recipients
            .map(|to| {
                let notification = Notification {
                    from: from.clone(),
                    to: to.clone(),
                    message: Cow::Borrowed(send.message.as_str()),
                    category: None,
                    link: None,
                    data: None,
                };
                let headers =
                    Headers { id: NotificationId::generate(), sent_at, traceparent: None, fingerprint: None };
                (notification, headers)
            })
            .collect())
    }
}

async fn acknowledged(
    ack: Result<Ack, AppendError>,
    deadline: tokio::time::Instant,
) -> Result<Position, AppendError> {
    let late = |_| Err(AppendError::TimedOut("the deadline of the request".into()));
    tokio::time::timeout_at(deadline, ack?).await.unwrap_or_else(late)
}

/// The problem of a send of which at least one record was not acknowledged. It names what was
/// sent and what was not, so that the client need not repeat everything.
fn not_sent(error: &AppendError, sent: &[Delivery], failed: &[(UserId, AppendError)]) -> Problem {
    tracing::warn!(%error, sent = sent.len(), failed = failed.len(), "a send was not acknowledged");
    let problem = match error {
        AppendError::Full => {
            Problem::unavailable("Too many notifications are being sent; try again shortly", SOON)
        }
        AppendError::Unreachable(_) | AppendError::Refused(_) => {
            Problem::unavailable("Notifications cannot be published now; try again shortly", SOON)
        }
        AppendError::TimedOut(_) => Problem::new(
            StatusCode::GATEWAY_TIMEOUT,
            "The outcome is unknown: the notification was not acknowledged in time. It may still be \
             delivered, and sending it again may show it twice",
        ),
        AppendError::TooLarge => Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "The notification is larger than the log allows",
        ),
    };
    if sent.is_empty() && failed.len() == 1 {
        return problem;
    }
    let failed: Vec<_> = failed.iter().map(|(to_id, _)| to_id).collect();
    problem.with("sent", sent).with("failed", failed)
}
