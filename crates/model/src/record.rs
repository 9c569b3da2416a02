//! One notification, or one receipt, as a record of the log: key, value and headers together.

use std::borrow::Cow;

use jiff::Timestamp;

use crate::{
    content::{Data, InvalidData},
    cursor::Cursor,
    headers::{self, Headers},
    notification::Notification,
    receipt::{self, Receipt},
};

/// What is written: the three parts of a record, ready for any log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    /// The recipient's id in decimal ASCII.
    pub key: Vec<u8>,
    /// The notification as JSON.
    pub value: Vec<u8>,
    /// CloudEvents headers, see [`Headers`].
    pub headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// Why a record of the topic is not what the topic is for. Such a record is poison: it is counted and
/// set aside, and never stops what comes after it.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// A tombstone, which this topic has no use for.
    #[error("the record has no value")]
    Empty,
    /// Not JSON, or not of the right shape, or no recipient with a positive id.
    #[error("the value is not what this topic holds: {0}")]
    Shape(#[from] serde_json::Error),
    /// Its data would make its recipient's inbox unreadable to some programs.
    #[error("its data {0}")]
    Data(#[from] InvalidData),
}

/// About what surrounds a message in a record's value, in bytes; more than that costs one copy.
const ENVELOPE_BYTES: usize = 192;

/// The record of this notification.
///
/// # Errors
/// None in practice: serde's, should a value not be JSON.
pub fn encode_notification(
    notification: &Notification<'_>,
    headers: &Headers,
) -> Result<EncodedRecord, serde_json::Error> {
    let mut value = Vec::with_capacity(notification.message.len() + ENVELOPE_BYTES);
    serde_json::to_writer(&mut value, notification)?;
    Ok(EncodedRecord {
        key: notification.to.id.record_key().into_bytes(),
        value,
        headers: headers.encode(headers::NOTIFICATION_TYPE),
    })
}

/// What a canary's record has in place of a recipient: no user's key.
const CANARY_KEY: &[u8] = b"canary";
/// The value of a canary's `ce_type`.
const CANARY_TYPE: &str = "notification.canary";

/// The record by which a service tries whether what it writes is acknowledged, and read. It is for
/// nobody: every view passes it over.
#[must_use]
pub fn encode_canary(now: Timestamp) -> EncodedRecord {
    let headers = Headers {
        id: headers::NotificationId::generate(),
        sent_at: headers::to_millisecond(now),
        traceparent: None,
        fingerprint: None,
    };
    EncodedRecord {
        key: CANARY_KEY.into(),
        value: b"{}".into(),
        headers: headers.encode(CANARY_TYPE),
    }
}

/// Whether a record with this key and these headers is a [`canary`]'s.
#[must_use]
pub fn is_canary<'a>(
    key: Option<&[u8]>,
    mut headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> bool {
    // The key first, because it is there at hand; a foreign record may have any.
    key == Some(CANARY_KEY)
        && headers.any(|header| header == (headers::KIND, CANARY_TYPE.as_bytes()))
}

/// The notification in this record. The key is not looked at: to whom a notification goes is
/// said by its value, and the key is only how it came to its partition.
///
/// # Errors
/// [`Poison`], when this is no notification.
pub fn decode_notification<'a>(
    value: Option<&'a [u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    at: Cursor,
    timestamp: Timestamp,
) -> Result<(Notification<'a>, Headers), DecodeError> {
    let value = value.ok_or(DecodeError::Empty)?;
    let notification: Notification<'_> = serde_json::from_slice(value)?;
    // Its length is another producer's own affair, as that of its message is.
    notification.data.map_or(Ok(()), Data::check_json)?;
    Ok((notification, Headers::decode(headers, at, timestamp)))
}

/// The record of this receipt.
///
/// # Errors
/// As [`encode`].
pub fn encode_receipt(
    receipt: &Receipt,
    headers: &Headers,
) -> Result<EncodedRecord, serde_json::Error> {
    Ok(EncodedRecord {
        key: receipt.user_id.record_key().into_bytes(),
        value: serde_json::to_vec(receipt)?,
        headers: headers.encode(receipt::RECEIPT_TYPE),
    })
}

/// The receipt in this record.
///
/// # Errors
/// [`Poison`], when this is no receipt.
pub fn decode_receipt(value: Option<&[u8]>) -> Result<Receipt, DecodeError> {
    Ok(serde_json::from_slice(value.ok_or(DecodeError::Empty)?)?)
}
