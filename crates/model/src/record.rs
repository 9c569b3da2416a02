//! Records: a notification, a receipt or a canary probe as key, value and headers.

use std::borrow::Cow;

use jiff::Timestamp;
use smallvec::SmallVec;

use crate::{
    content::{Data, InvalidData, Link},
    cursor::Cursor,
    headers::{self, Headers},
    notification::Notification,
    object::{JsonError, parse_object},
    receipt::{self, Receipt},
};

/// A record to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EncodedRecord {
    /// The recipient's id in decimal ASCII.
    pub key: Vec<u8>,
    /// JSON.
    pub value: Vec<u8>,
    /// CloudEvents headers, see [`Headers`].
    pub headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// The most bytes of a record's value that is decoded: what brokers accept by default in one batch.
/// Compressed, a batch may hold far more.
pub const MAX_VALUE_BYTES: usize = 1 << 20;

/// Why a record cannot be decoded. Such a poison record is counted and copied to the dead-letter
/// queue; the consumer goes on with the next record.
#[derive(Debug, thiserror::Error)]
pub enum DecodeError {
    /// It has no value: a tombstone.
    #[error("the record has no value")]
    Empty,
    /// Its value has this many bytes, more than [`MAX_VALUE_BYTES`].
    #[error("the value has {0} bytes, more than {max}", max = MAX_VALUE_BYTES)]
    TooLarge(usize),
    /// It is not JSON, has the wrong shape or no recipient with a positive id.
    #[error("the value is not what this topic holds: {0}")]
    Shape(#[from] JsonError),
    /// Its data is not I-JSON or nests too deep; some clients could not parse the inbox.
    #[error("its data {0}")]
    Data(#[from] InvalidData),
}

/// Encodes a notification's record.
pub fn encode_notification(
    notification: &Notification<'_>,
    headers: &Headers,
) -> Result<EncodedRecord, serde_json::Error> {
    let mut encoder = RecordEncoder::default();
    let record = encoder.encode_notification(notification, headers)?;
    let owned = |&(name, value): &(_, &[u8])| (name, Cow::Owned(value.to_vec()));
    Ok(EncodedRecord {
        key: record.key.into(),
        value: record.value.into(),
        headers: record.headers.iter().map(owned).collect(),
    })
}

/// Encodes one record after the other into the same memory.
#[derive(Default)]
pub struct RecordEncoder {
    key: itoa::Buffer,
    value: Vec<u8>,
    header_text: String,
}

/// A record in the memory of its [`RecordEncoder`]; see [`EncodedRecord`].
#[derive(Debug)]
pub struct BorrowedRecord<'e> {
    /// The recipient's id in decimal ASCII.
    pub key: &'e [u8],
    /// JSON.
    pub value: &'e [u8],
    /// CloudEvents headers.
    pub headers: SmallVec<[(&'static str, &'e [u8]); 8]>,
}

impl RecordEncoder {
    /// Encodes a notification's record.
    pub fn encode_notification(
        &mut self,
        notification: &Notification<'_>,
        headers: &Headers,
    ) -> Result<BorrowedRecord<'_>, serde_json::Error> {
        self.value.clear();
        // 192 bytes are typical of the JSON around the message; more cost a reallocation.
        self.value.reserve(notification.message.len() + 192);
        serde_json::to_writer(&mut self.value, notification)?;
        Ok(BorrowedRecord {
            key: self.key.format(notification.to.id.get()).as_bytes(),
            value: &self.value,
            headers: headers.write(headers::NOTIFICATION_TYPE, &mut self.header_text),
        })
    }
}

/// The key of a canary probe's record. No user has this key.
const CANARY_KEY: &[u8] = b"canary";
/// `ce_type` of a canary probe's record.
const CANARY_TYPE: &str = "notification.canary";

/// Encodes a canary probe's record. A service writes it to check that the log acknowledges and
/// delivers records; the view ignores it.
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

/// Returns true if this is the key and the headers of a canary probe's record.
#[must_use]
pub fn is_canary<'a>(
    key: Option<&[u8]>,
    mut headers: impl Iterator<Item = (&'a str, &'a [u8])>,
) -> bool {
    // The key alone is not enough: another producer's record may have any key.
    key == Some(CANARY_KEY)
        && headers.any(|header| header == (headers::CE_TYPE, CANARY_TYPE.as_bytes()))
}

/// Decodes a notification's record. Ignores the key: the recipient is in the value, and the key only
/// chooses the partition.
pub fn decode_notification<'a>(
    value: Option<&'a [u8]>,
    headers: impl Iterator<Item = (&'a str, &'a [u8])>,
    at: Cursor,
    timestamp: Timestamp,
) -> Result<(Notification<'a>, Headers), DecodeError> {
    let value = bounded_value(value)?;
    let mut notification: Notification<'_> = parse_object(value).map_err(JsonError::from)?;
    // Other producers may exceed this producer's limits on the length of data and messages.
    notification.data.map_or(Ok(()), Data::check_json)?;
    // A page may put the link into an `href`. One that this producer would refuse is left out.
    notification.link = notification.link.filter(|link| Link::check_text(link).is_ok());
    Ok((notification, Headers::decode(headers, at, timestamp)))
}

/// Encodes a receipt's record.
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

/// Decodes a receipt's record.
pub fn decode_receipt(value: Option<&[u8]>) -> Result<Receipt, DecodeError> {
    Ok(parse_object(bounded_value(value)?).map_err(JsonError::from)?)
}

fn bounded_value(value: Option<&[u8]>) -> Result<&[u8], DecodeError> {
    match value.ok_or(DecodeError::Empty)? {
        value if value.len() <= MAX_VALUE_BYTES => Ok(value),
        value => Err(DecodeError::TooLarge(value.len())),
    }
}
