//! The notifications that a run writes, encoded as the producer encodes them.

use std::borrow::Cow;

use jiff::Timestamp;
use model::{
    Headers, Notification, NotificationId, User, UserId,
    headers::to_millisecond,
    record::{self, EncodedRecord},
};

use crate::{Result, http::send_request};

pub(crate) const MESSAGE: &str = "Bruno commented on your photo: “What a view! Where did you take it, and may I come along next time?”";
/// The users that the migration creates: the recipients.
pub(crate) const USERS: [(i64, &str); 4] = [(1, "Emma"), (2, "Bruno"), (3, "Rick"), (4, "Lena")];

/// A notification for this user with this message, sent now by user 2.
pub(crate) fn encode_notification(to: &User<'_>, message: &str) -> Result<EncodedRecord> {
    let notification = Notification::new(migrated_user(1)?, to.clone(), message);
    let sent_at = to_millisecond(Timestamp::now());
    let headers =
        Headers { id: NotificationId::generate(), sent_at, traceparent: None, fingerprint: None };
    Ok(record::encode_notification(&notification, &headers)?)
}

/// A notification whose value has this length, or the shortest possible one if that is longer.
pub(crate) fn encode_with_size(to: &User<'_>, bytes: usize) -> Result<EncodedRecord> {
    let shortest = encode_notification(to, "")?.value.len();
    encode_notification(to, &"x".repeat(bytes.saturating_sub(shortest).max(1)))
}

/// How many different users receive what is sent, in turns: the migration's four, or a crowd.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Recipients(pub(crate) u64);

impl Recipients {
    /// Recipient number `index`.
    pub(crate) fn user(self, index: u64) -> Result<User<'static>> {
        match self.0 {
            count if count <= 4 => migrated_user(usize::try_from(index % count)?),
            count => generated_user(index % count),
        }
    }

    /// A notification with [`MESSAGE`] for each.
    pub(crate) fn encode_records(self) -> Result<Vec<EncodedRecord>> {
        (0..self.0).map(|index| encode_notification(&self.user(index)?, MESSAGE)).collect()
    }

    /// A POST /send for each.
    pub(crate) fn send_requests(self, headers: &str) -> Result<Vec<Vec<u8>>> {
        let request = |index| Ok(send_request(self.user(index)?.id.get(), MESSAGE, headers));
        (0..self.0).map(request).collect()
    }
}

/// Number `index` of [`USERS`].
pub(crate) fn migrated_user(index: usize) -> Result<User<'static>> {
    let (id, name) = USERS[index];
    Ok(User { id: UserId::new(id)?, name: Cow::Borrowed(name) })
}

/// Number `index` of a generated crowd. All names and ids have the same length, so that all records
/// have.
pub(crate) fn generated_user(index: u64) -> Result<User<'static>> {
    let id = 1_000_000 + i64::try_from(index)?;
    Ok(User { id: UserId::new(id)?, name: Cow::Owned(format!("User {id}")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_asked_for() {
        for index in [0, 99_999] {
            let user = generated_user(index).expect("a user");
            let record = encode_with_size(&user, 200).expect("a record");
            assert_eq!(record.value.len(), 200);
        }
    }
}
