//! One notification as it is kept: ready-to-send JSON beside what must be compared.

use std::sync::Arc;

use model::{Fingerprint, Headers, Notification, NotificationId, headers::write_time};
use serde::ser::Error as _;

/// About what surrounds a message in an entry's JSON, in bytes; more than that costs one copy.
const AROUND_MESSAGE: usize = 256;

/// A notification in an inbox.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its place in the partition.
    pub offset: i64,
    /// When it was sent, in milliseconds since 1970.
    pub sent_at_ms: i64,
    /// Its identity; an inbox holds no two of the same.
    pub id: NotificationId,
    /// Of its content, if its sender gave an Idempotency-Key: another content under the same id is
    /// another notification, under a key that was used before.
    pub fingerprint: Option<Fingerprint>,
    /// What readers may filter by.
    pub category: Option<Arc<str>>,
    /// Whether its recipient has seen it.
    pub read: bool,
    /// The beginning of its JSON object, up to and with `sent_at`, on one line. What may change
    /// (`read`) and what follows from its place (`cursor`) is added on the way out, see
    /// [`Item::write`](super::page::Item::write). None: it was dismissed. It keeps its place until
    /// it is evicted, so that what an inbox holds does not depend on when a receipt was folded.
    pub json: Option<Arc<str>>,
}

impl Entry {
    /// The entry of this notification, not read yet.
    ///
    /// # Errors
    /// None in practice: serde's, should a field not be JSON.
    pub fn new(
        offset: i64,
        notification: &Notification<'_>,
        headers: Headers,
    ) -> Result<Self, serde_json::Error> {
        let mut json = Vec::with_capacity(notification.message.len() + AROUND_MESSAGE);
        serde_json::to_writer(&mut json, notification)?;
        // `data` is kept as its sender wrote it, perhaps on several lines; a line break in JSON
        // can only stand between tokens, where a space does as well.
        if notification.data.is_some() {
            json.iter_mut()
                .filter(|byte| matches!(byte, b'\n' | b'\r'))
                .for_each(|byte| *byte = b' ');
        }
        json.pop();
        json.extend_from_slice(b",\"id\":");
        serde_json::to_writer(&mut json, &headers.id)?;
        json.extend_from_slice(b",\"sent_at\":\"");
        let mut json = String::from_utf8(json).map_err(serde_json::Error::custom)?;
        write_time(&mut json, headers.sent_at);
        json.push('"');
        Ok(Self {
            offset,
            sent_at_ms: headers.sent_at.as_millisecond(),
            id: headers.id,
            fingerprint: headers.fingerprint,
            category: notification.category.as_deref().map(Arc::from),
            read: false,
            json: Some(json.into()),
        })
    }
}
