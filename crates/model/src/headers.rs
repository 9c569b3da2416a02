//! The headers of a record: CloudEvents 1.0, Kafka protocol binding, binary content mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>),
//! plus W3C `traceparent`.

use std::{
    borrow::Cow,
    fmt::{self, Write as _},
    num::NonZeroU64,
    str::FromStr,
};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use smallvec::SmallVec;
use uuid::Uuid;

use crate::cursor::Cursor;

/// `ce_type` of a notification's record.
pub(crate) const NOTIFICATION_TYPE: &str = "notification.sent";

const SPEC_VERSION: &str = "ce_specversion";
/// The header with the record's id.
pub const CE_ID: &str = "ce_id";
const CE_SOURCE: &str = "ce_source";
pub(crate) const CE_TYPE: &str = "ce_type";
const CE_TIME: &str = "ce_time";
const CONTENT_TYPE: &str = "content-type";
const TRACEPARENT: &str = "traceparent";
const FINGERPRINT: &str = "ce_fingerprint";

/// All header names that these services read or write.
const NAMES: [&str; 8] =
    [SPEC_VERSION, CE_ID, CE_SOURCE, CE_TYPE, CE_TIME, CONTENT_TYPE, TRACEPARENT, FINGERPRINT];

/// Returns the static spelling of a header name that these services know.
#[must_use]
pub fn find_name(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

/// Maximum length in bytes of an id in another producer's `ce_id`. A longer id counts as absent,
/// because the view keeps ids in bounded memory.
pub const MAX_ID_BYTES: usize = 128;

/// A notification's permanent id.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum NotificationId {
    /// An id of this producer: a UUIDv7, or a UUIDv8 derived from an Idempotency-Key. Written in
    /// lower case with hyphens.
    Uuid(Uuid),
    /// The id of a record without `ce_id`: its partition and offset, without an epoch.
    Position(Cursor),
    /// An id that another producer chose, at most [`MAX_ID_BYTES`] bytes.
    Other(Box<str>),
}

impl NotificationId {
    /// Generates an id. Ids generated later sort later.
    #[must_use]
    pub fn generate() -> Self {
        Self::Uuid(Uuid::now_v7())
    }

    /// Parses an id and keeps its spelling: `id.to_string() == text`. `None` if it is empty or
    /// longer than [`MAX_ID_BYTES`].
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_ID_BYTES {
            return None;
        }
        // Ids are equal if their spelling is, so only the canonical spelling becomes a `Uuid`.
        if let Ok(uuid) = Uuid::try_parse(text)
            && uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
        {
            return Some(Self::Uuid(uuid));
        }
        Some(match text.parse::<Cursor>() {
            Ok(position) if position.epoch.is_none() => Self::Position(position),
            Ok(_) | Err(_) => Self::Other(text.into()),
        })
    }
}

impl fmt::Display for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Uuid(uuid) => uuid.hyphenated().fmt(f),
            Self::Position(cursor) => cursor.fmt(f),
            Self::Other(text) => f.write_str(text),
        }
    }
}

impl serde::Serialize for NotificationId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // The common case: avoids the cost of `Display`.
            Self::Uuid(uuid) => {
                serializer.serialize_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
            Self::Position(_) | Self::Other(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> serde::Deserialize<'de> for NotificationId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_text(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("an id has 1 to {MAX_ID_BYTES} bytes")))
    }
}

/// A 64-bit hash of a notification's content. Two records with the same id and different fingerprints
/// mean that an Idempotency-Key was reused for other content. As text: 16 lower-case hexadecimal
/// digits, not all 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(NonZeroU64); // Makes `Option<Fingerprint>` 8 bytes.

impl Fingerprint {
    /// Makes a fingerprint from these bits; 0 becomes 1.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match NonZeroU64::new(bits) {
            Some(bits) => Self(bits),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// The bits; [`from_bits`](Self::from_bits) makes the same fingerprint from them.
    #[must_use]
    pub const fn to_bits(self) -> u64 {
        self.0.get()
    }
}

/// Why a text is not a [`Fingerprint`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be 16 lower-case hexadecimal digits, not all 0")]
pub struct InvalidFingerprint;

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// Parses only the spelling that [`Display`](fmt::Display) writes.
    fn from_str(s: &str) -> Result<Self, InvalidFingerprint> {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if s.len() != 16 || !s.bytes().all(digit) {
            return Err(InvalidFingerprint);
        }
        let bits = u64::from_str_radix(s, 16).ok().and_then(NonZeroU64::new);
        bits.map(Self).ok_or(InvalidFingerprint)
    }
}

/// The header values that these services read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// `ce_id`.
    pub id: NotificationId,
    /// `ce_time`, to the millisecond: when the producer accepted the notification.
    pub sent_at: Timestamp,
    /// `traceparent` of the sender's request; the consumer continues this trace.
    pub traceparent: Option<String>,
    /// `ce_fingerprint`, an extension attribute. Present if the id was derived from an
    /// Idempotency-Key; reveals that the key was reused for other content.
    pub fingerprint: Option<Fingerprint>,
}

impl Headers {
    /// Encodes the headers of a record with this `ce_type`.
    #[must_use]
    pub fn encode(&self, ce_type: &'static str) -> Vec<(&'static str, Cow<'static, [u8]>)> {
        let mut text = String::new();
        let headers = self.write(ce_type, &mut text);
        headers.iter().map(|&(name, value)| (name, Cow::Owned(value.to_vec()))).collect()
    }

    /// The same with values in `text`, which is emptied first.
    pub(crate) fn write<'t>(
        &self,
        ce_type: &'static str,
        text: &'t mut String,
    ) -> SmallVec<[(&'static str, &'t [u8]); NAMES.len()]> {
        text.clear();
        match &self.id {
            NotificationId::Uuid(uuid) => {
                text.push_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()));
            }
            // Writing to a String does not fail.
            other => _ = write!(text, "{other}"),
        }
        let id_end = text.len();
        write_time(text, self.sent_at);
        let time_end = text.len();
        text.push_str(self.traceparent.as_deref().unwrap_or_default());
        let trace_end = text.len();
        if let Some(fingerprint) = self.fingerprint {
            _ = write!(text, "{fingerprint}");
        }
        let text: &'t [u8] = text.as_bytes();
        let mut headers = SmallVec::new();
        headers.extend([
            (SPEC_VERSION, &b"1.0"[..]),
            (CE_ID, &text[..id_end]),
            (CE_SOURCE, b"/notifications"),
            (CE_TYPE, ce_type.as_bytes()),
            (CE_TIME, &text[id_end..time_end]),
            (CONTENT_TYPE, b"application/json"),
        ]);
        if self.traceparent.is_some() {
            headers.push((TRACEPARENT, &text[time_end..trace_end]));
        }
        if self.fingerprint.is_some() {
            headers.push((FINGERPRINT, &text[trace_end..]));
        }
        headers
    }

    /// Decodes a record's headers. If the id or the time is missing or invalid, the id is the
    /// record's position and the time its Kafka timestamp.
    #[must_use]
    pub fn decode<'a>(
        headers: impl Iterator<Item = (&'a str, &'a [u8])>,
        at: Cursor,
        timestamp: Timestamp,
    ) -> Self {
        let (mut id, mut sent_at, mut traceparent, mut fingerprint) = (None, None, None, None);
        for (name, value) in headers {
            let Ok(value) = std::str::from_utf8(value) else { continue };
            match name {
                CE_ID => id = NotificationId::from_text(value),
                CE_TIME => sent_at = value.parse().ok().map(to_millisecond),
                TRACEPARENT if value.len() <= MAX_ID_BYTES => traceparent = Some(value.to_owned()),
                FINGERPRINT => fingerprint = value.parse().ok(),
                _ => {}
            }
        }
        Self {
            id: id.unwrap_or(NotificationId::Position(at.with_epoch(None))),
            sent_at: sent_at.unwrap_or(timestamp),
            traceparent,
            fingerprint,
        }
    }
}

/// Rounds a time to milliseconds, the resolution of Kafka timestamps.
#[must_use]
pub fn to_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// Appends a time as RFC 3339 in UTC, always with milliseconds, so that times sort as texts.
pub fn write_time(text: &mut String, time: Timestamp) {
    // jiff's printer is cheaper than `format!`, and every record has a time.
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    // Writing to a String does not fail.
    let _ = PRINTER.print_timestamp(&time, text);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_16_lower_case_hexadecimal_digits_and_nothing_else() {
        assert_eq!("00000000000000ff".parse(), Ok(Fingerprint::from_bits(255)));
        assert_eq!(Fingerprint::from_bits(255).to_string(), "00000000000000ff");
        let zero = "0".repeat(16); // Never written.
        for bad in ["", "ff", "00000000000000FF", "+0000000000000ff", "00000000000000ff0", &zero] {
            assert_eq!(bad.parse::<Fingerprint>(), Err(InvalidFingerprint), "{bad:?}");
        }
    }

    #[test]
    fn only_a_notification_with_a_key_carries_a_fingerprint_and_its_name_is_known() {
        let mut headers = Headers {
            id: NotificationId::generate(),
            sent_at: Timestamp::UNIX_EPOCH,
            traceparent: None,
            fingerprint: None,
        };
        let names = |headers: &Headers| {
            headers.encode(NOTIFICATION_TYPE).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
        };
        assert!(!names(&headers).contains(&"ce_fingerprint"));
        headers.fingerprint = Some(Fingerprint::from_bits(7));
        assert!(names(&headers).contains(&"ce_fingerprint"));
        assert!(names(&headers).into_iter().all(|name| find_name(name) == Some(name)));
    }
}
