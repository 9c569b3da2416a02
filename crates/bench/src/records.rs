//! The notifications that a run writes: encoded once, as the producer would.

use std::borrow::Cow;

use jiff::Timestamp;
use model::{
    Headers, Notification, NotificationId, User, UserId,
    headers::to_millisecond,
    record::{self, EncodedRecord},
};

use crate::Result;

/// A notification for this user with this message, sent now.
pub(crate) fn notification(to: &User<'_>, message: &str) -> Result<EncodedRecord> {
    let from = User { id: UserId::new(2)?, name: Cow::Borrowed("Bruno") };
    let notification = Notification {
        from,
        to: to.clone(),
        message: Cow::Borrowed(message),
        category: None,
        link: None,
        data: None,
    };
    let sent_at = to_millisecond(Timestamp::now());
    let headers =
        Headers { id: NotificationId::generate(), sent_at, traceparent: None, fingerprint: None };
    Ok(record::encode_notification(&notification, &headers)?)
}

/// The same, with a message as long as it takes to make the value `bytes` long (or the shortest
/// that there is, if that is longer).
pub(crate) fn of_size(to: &User<'_>, bytes: usize) -> Result<EncodedRecord> {
    let shortest = notification(to, "")?.value.len();
    notification(to, &"x".repeat(bytes.saturating_sub(shortest).max(1)))
}

/// User number `index` of a made-up crowd. All names and ids are of the same length, so that all
/// records are.
pub(crate) fn somebody(index: u64) -> Result<User<'static>> {
    let id = 1_000_000 + i64::try_from(index)?;
    Ok(User { id: UserId::new(id)?, name: Cow::Owned(format!("User {id}")) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_is_as_long_as_asked_for() {
        for index in [0, 99_999] {
            let record = of_size(&somebody(index).expect("a user"), 200).expect("a record");
            assert_eq!(record.value.len(), 200);
        }
    }
}
