//! The headers of a record: CloudEvents 1.0, Kafka protocol binding, binary content mode
//! (<https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/kafka-protocol-binding.md>),
//! plus W3C `traceparent`.

use std::{borrow::Cow, fmt, num::NonZeroU64, str::FromStr};

use jiff::{Timestamp, fmt::temporal::DateTimePrinter};
use uuid::Uuid;

use crate::cursor::Cursor;

/// The value of `ce_type` that our producer writes.
pub const NOTIFICATION_TYPE: &str = "notification.sent";
/// The value of `ce_source` that we write.
pub const SOURCE: &str = "/notifications";

const SPEC_VERSION: &str = "ce_specversion";
const CE_ID: &str = "ce_id";
const CE_SOURCE: &str = "ce_source";
const CE_TYPE: &str = "ce_type";
const CE_TIME: &str = "ce_time";
const CONTENT_TYPE: &str = "content-type";
const TRACEPARENT: &str = "traceparent";
const FINGERPRINT: &str = "ce_fingerprint";

/// Every name that means something to us.
const NAMES: [&str; 8] =
    [SPEC_VERSION, CE_ID, CE_SOURCE, CE_TYPE, CE_TIME, CONTENT_TYPE, TRACEPARENT, FINGERPRINT];

/// The header that says what a record is.
pub(crate) const KIND: &str = CE_TYPE;

/// The header that holds a record's id.
pub const ID_HEADER: &str = CE_ID;

/// This name, if it is one that means something to us.
#[must_use]
pub fn find_name(name: &str) -> Option<&'static str> {
    NAMES.into_iter().find(|known| *known == name)
}

/// The longest id that is taken from a foreign producer's `ce_id`, in bytes. A longer one is
/// treated as absent: ids are kept in memory, and memory is bounded.
pub const MAX_ID_BYTES: usize = 128;

/// What identifies a notification, everywhere and for ever.
#[derive(Clone, PartialEq, Eq, Hash)]
pub enum NotificationId {
    /// As our producer makes it: UUIDv7, shown in lower case with hyphens.
    Uuid(Uuid),
    /// Of a record without `ce_id`: its place in the log.
    Position(Cursor),
    /// As another producer chose it, at most [`MAX_ID_LEN`] bytes.
    Other(Box<str>),
}

impl NotificationId {
    /// A new id; ids made later sort later.
    #[must_use]
    pub fn generate() -> Self {
        Self::Uuid(Uuid::now_v7())
    }

    /// The id with this spelling; none where it is empty or longer than [`MAX_ID_LEN`].
    /// The spelling is kept: `id.to_string() == text`.
    #[must_use]
    pub fn from_text(text: &str) -> Option<Self> {
        if text.is_empty() || text.len() > MAX_ID_BYTES {
            return None;
        }
        // Two ids are the same when their spelling is; so only the canonical spelling may become
        // the short form.
        if let Ok(uuid) = Uuid::try_parse(text)
            && uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()) == text
        {
            return Some(Self::Uuid(uuid));
        }
        if let Ok(cursor) = text.parse::<Cursor>() {
            return Some(Self::Position(cursor));
        }
        Some(Self::Other(text.into()))
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

impl fmt::Debug for NotificationId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "NotificationId({self})")
    }
}

impl serde::Serialize for NotificationId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            // As in each record of ours: without the machinery of `Display`.
            Self::Uuid(uuid) => {
                serializer.serialize_str(uuid.hyphenated().encode_lower(&mut Uuid::encode_buffer()))
            }
            Self::Position(_) | Self::Other(_) => serializer.collect_str(self),
        }
    }
}

impl<'de> serde::Deserialize<'de> for NotificationId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        Self::from_text(&text)
            .ok_or_else(|| serde::de::Error::custom(format!("an id has 1 to {MAX_ID_BYTES} bytes")))
    }
}

/// What a notification says, in 64 bits: two records of one id that have different ones are a reused
/// Idempotency-Key. As text: 16 lower-case hexadecimal digits, not all 0.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint(NonZeroU64); // So that an entry without one is no larger.

impl Fingerprint {
    /// Of these bits; 0 counts as 1.
    #[must_use]
    pub const fn from_bits(bits: u64) -> Self {
        match NonZeroU64::new(bits) {
            Some(bits) => Self(bits),
            None => Self(NonZeroU64::MIN),
        }
    }

    /// Its bits, of which [`new`](Self::new) makes the same again.
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

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = InvalidFingerprint;

    /// The exact spelling of [`Display`](fmt::Display), nothing else.
    fn from_str(s: &str) -> Result<Self, InvalidFingerprint> {
        let digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
        if s.len() != 16 || !s.bytes().all(digit) {
            return Err(InvalidFingerprint);
        }
        let bits = u64::from_str_radix(s, 16).ok().and_then(NonZeroU64::new);
        bits.map(Self).ok_or(InvalidFingerprint)
    }
}

/// The headers that mean something to us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Headers {
    /// `ce_id`.
    pub id: NotificationId,
    /// `ce_time`, to the millisecond: when the producer accepted the notification.
    pub sent_at: Timestamp,
    /// `traceparent`, where the sender gave one: the trace that goes on at the consumer.
    pub traceparent: Option<String>,
    /// `ce_fingerprint`, an extension attribute of ours: there when the id was derived from an
    /// Idempotency-Key, to find out whether another notification has taken the same one.
    pub fingerprint: Option<Fingerprint>,
}

impl Headers {
    /// All headers of a record of this `ce_type`, as names and values.
    #[must_use]
    pub fn encode(&self, kind: &'static str) -> Vec<(&'static str, Cow<'static, [u8]>)> {
        let fixed = |value: &'static str| Cow::Borrowed(value.as_bytes());
        let own = |value: String| Cow::Owned(value.into_bytes());
        let mut headers = Vec::with_capacity(NAMES.len());
        headers.extend([
            (SPEC_VERSION, fixed("1.0")),
            (CE_ID, own(self.id.to_string())),
            (CE_SOURCE, fixed(SOURCE)),
            (CE_TYPE, fixed(kind)),
            (CE_TIME, own(format_time(self.sent_at))),
            (CONTENT_TYPE, fixed("application/json")),
        ]);
        if let Some(traceparent) = &self.traceparent {
            headers.push((TRACEPARENT, own(traceparent.clone())));
        }
        if let Some(fingerprint) = self.fingerprint {
            headers.push((FINGERPRINT, own(fingerprint.to_string())));
        }
        headers
    }

    /// What the headers of a record say. A record without them, or with unusable ones, is just
    /// as welcome: its id is then its place in the log and its time the record's own.
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
            id: id.unwrap_or(NotificationId::Position(at)),
            sent_at: sent_at.unwrap_or(timestamp),
            traceparent,
            fingerprint,
        }
    }
}

/// The time without what is finer than a millisecond, which is what a record's timestamp holds.
#[must_use]
pub fn to_millisecond(time: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(time.as_millisecond()).unwrap_or(time)
}

/// Appends this time as RFC 3339 in UTC, always with milliseconds, so that times also sort as
/// texts.
pub fn write_time(text: &mut String, time: Timestamp) {
    // jiff's own printer, without the machinery of `format!`: each record has a time.
    const PRINTER: DateTimePrinter = DateTimePrinter::new().precision(Some(3));
    // A String takes everything.
    let _ = PRINTER.print_timestamp(&time, text);
}

fn format_time(time: Timestamp) -> String {
    let mut text = String::with_capacity("2026-01-31T12:00:00.000Z".len());
    write_time(&mut text, time);
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fingerprint_is_16_lower_case_hexadecimal_digits_and_nothing_else() {
        assert_eq!("00000000000000ff".parse(), Ok(Fingerprint::from_bits(255)));
        assert_eq!(Fingerprint::from_bits(255).to_string(), "00000000000000ff");
        let zero = "0".repeat(16); // As no fingerprint is written.
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
