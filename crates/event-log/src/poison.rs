//! A poison record, in the form in which both drivers copy it to the dead-letter queue, and what a
//! copy says of its original.

use std::time::{SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use crate::Record;

/// The most bytes of a value, and of all headers with the key, that are copied. A compressed batch may
/// hold far more than a broker accepts of an uncompressed one.
const MAX_VALUE_BYTES: usize = 1 << 20;
const MAX_HEADER_BYTES: usize = 64 << 10;

/// The headers that each copy has after the original's own, in this order.
const ORIGIN_HEADERS: [&str; 6] =
    ["dlq.topic", "dlq.partition", "dlq.offset", "dlq.reason", "dlq.group", "dlq.time"];
/// After those: the original's key, if it had one.
const KEY_HEADER: &str = "dlq.key";
/// The last headers of a copy: what was left out, because it is too large.
const VALUE_HEADER: &str = "dlq.value";
const HEADERS_HEADER: &str = "dlq.headers";

fn copy_key(topic: &str, partition: i32, offset: i64) -> String {
    format!("{topic}/{partition}/{offset}")
}

/// What a copy in the dead-letter queue says of its original. The original may have had headers of
/// the same names, so only those count that the copying added at the end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoisonOrigin {
    /// The original's topic.
    pub topic: String,
    /// The original's partition.
    pub partition: i32,
    /// The original's offset.
    pub offset: i64,
    /// Why the record is poison.
    pub reason: String,
    /// The original's key.
    pub key: Option<Vec<u8>>,
    /// Number of headers of the copy that are the original's own: the first ones.
    pub own_headers: usize,
}

impl PoisonOrigin {
    /// Reads a record of the dead-letter queue. `None` if it is not a copy that a consumer wrote.
    #[must_use]
    pub fn from_copy(record: &Record<'_>) -> Option<Self> {
        let named =
            |headers: &[(&str, &[u8])]| headers.iter().map(|(name, _)| *name).eq(ORIGIN_HEADERS);
        let own_headers = record.headers.windows(ORIGIN_HEADERS.len()).rposition(named)?;
        let (origin, rest) = record.headers[own_headers..].split_at(ORIGIN_HEADERS.len());
        let text = |index: usize| std::str::from_utf8(origin[index].1).ok();
        let (key, left_out) = match rest {
            [(KEY_HEADER, key), left_out @ ..] => (Some(key.to_vec()), left_out),
            left_out => (None, left_out),
        };
        let names: SmallVec<[_; 2]> = left_out.iter().map(|(name, _)| *name).collect();
        if !matches!(
            names[..],
            [] | [VALUE_HEADER] | [HEADERS_HEADER] | [VALUE_HEADER, HEADERS_HEADER]
        ) {
            return None;
        }
        let (topic, partition, offset) =
            (text(0)?.to_owned(), text(1)?.parse().ok()?, text(2)?.parse().ok()?);
        let is_ours = record.key == Some(copy_key(&topic, partition, offset).as_bytes());
        let reason = text(3)?.to_owned();
        is_ours.then_some(Self { topic, partition, offset, reason, key, own_headers })
    }
}

/// The copy of a record that the partition handler cannot decode.
#[derive(Debug, Default)]
pub(crate) struct PoisonRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    /// `topic/partition/offset` of the original. A second copy of the same record has the same key.
    pub(crate) key: String,
    pub(crate) value: Option<Vec<u8>>,
    /// The original's own headers, then those that begin with `dlq.`.
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl PoisonRecord {
    pub(crate) fn new(record: &Record<'_>, topic: &str, group: &str, reason: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (partition, offset) = (record.partition, record.offset);
        let header_bytes: usize =
            record.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        let has_headers = header_bytes + record.key.map_or(0, <[u8]>::len) <= MAX_HEADER_BYTES;
        let value = record.value.filter(|value| value.len() <= MAX_VALUE_BYTES);
        let own = record.headers.iter().filter(|_| has_headers);
        let own = own.map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let values = [
            topic.to_owned(),
            partition.to_string(),
            offset.to_string(),
            reason.to_owned(),
            group.to_owned(),
            // Milliseconds since 1970.
            now.as_millis().to_string(),
        ];
        let origin = ORIGIN_HEADERS.into_iter().zip(values);
        let origin = origin.map(|(name, value)| (name.to_owned(), value.into_bytes()));
        let key = record.key.filter(|_| has_headers);
        let key = key.map(|key| (KEY_HEADER.to_owned(), key.to_vec()));
        let left_out = [
            (VALUE_HEADER, value.is_none() && record.value.is_some()),
            (HEADERS_HEADER, !has_headers),
        ];
        let left_out = left_out.into_iter().filter(|(_, is_left_out)| *is_left_out);
        let left_out = left_out.map(|(name, _)| (name.to_owned(), b"left out: too large".to_vec()));
        Self {
            partition,
            offset,
            key: copy_key(topic, partition, offset),
            value: value.map(<[u8]>::to_vec),
            headers: own.chain(origin).chain(key).chain(left_out).collect(),
        }
    }

    /// The same record with a header in place of its value.
    pub(crate) fn without_value(&self) -> Self {
        let said = b"left out: the record is larger than this topic allows".to_vec();
        let headers = self.headers.iter().cloned().chain([(VALUE_HEADER.to_owned(), said)]);
        Self { key: self.key.clone(), value: None, headers: headers.collect(), ..*self }
    }

    /// The memory that the record takes in the backlog.
    pub(crate) fn size_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers + 128
    }
}

#[cfg(test)]
mod tests {
    use smallvec::smallvec;

    use super::*;

    #[test]
    fn a_copy_leaves_out_a_value_or_headers_that_are_too_large_and_says_so() {
        let copy = |value: usize, header: usize| {
            let (value, header) = (vec![b'x'; value], vec![b'x'; header]);
            let record = Record {
                partition: 0,
                offset: 7,
                timestamp_ms: 0,
                key: Some(b"k"),
                value: Some(&value),
                headers: smallvec![("own", &*header)],
            };
            let copy = PoisonRecord::new(&record, "t", "g", "too large");
            let has = |name: &str| copy.headers.iter().any(|(known, _)| known == name);
            let names = ["own", "dlq.key", "dlq.value", "dlq.headers", "dlq.reason"].map(has);
            (copy.value.is_some(), names, copy.size_bytes())
        };
        let (value, names, _) = copy(MAX_VALUE_BYTES, 1000);
        assert_eq!((value, names), (true, [true, true, false, false, true]));
        let (value, names, bytes) = copy(100 << 20, MAX_HEADER_BYTES);
        assert_eq!((value, names), (false, [false, false, true, true, true]));
        assert!(bytes < 2000, "{bytes}");
    }

    /// What is read of the copy of a record with these headers and this key.
    fn read_copy(key: Option<&[u8]>, headers: &[(&'static str, &'static [u8])]) -> PoisonOrigin {
        let record = Record {
            partition: 3,
            offset: 7,
            timestamp_ms: 1,
            key,
            value: Some(b"x"),
            headers: headers.into(),
        };
        let copy = PoisonRecord::new(&record, "notifications", "group", "it is poison");
        from_record(&copy.key, &copy.headers).expect("a copy of ours")
    }

    fn from_record(key: &str, headers: &[(String, Vec<u8>)]) -> Option<PoisonOrigin> {
        let headers = headers.iter().map(|(name, value)| (name.as_str(), value.as_slice()));
        PoisonOrigin::from_copy(&Record {
            partition: 3,
            offset: 0,
            timestamp_ms: 1,
            key: Some(key.as_bytes()),
            value: Some(b"x"),
            headers: headers.collect(),
        })
    }

    #[test]
    fn a_copy_tells_its_origin_whatever_headers_the_original_had() {
        let forged: [(&str, &[u8]); 9] = [
            ("dlq.topic", b"payments"),
            ("dlq.partition", b"0"),
            ("dlq.offset", b"0"),
            ("dlq.reason", b"harmless"),
            ("dlq.group", b"g"),
            ("dlq.time", b"0"),
            ("dlq.key", b"2"),
            ("dlq.value", b""),
            ("ce_id", b"a"),
        ];
        for (key, headers) in [
            (None, &forged[..]),
            (None, &forged[..7]),
            (Some(&b"1"[..]), &forged),
            (Some(b""), &[]),
        ] {
            let expected = PoisonOrigin {
                topic: "notifications".into(),
                partition: 3,
                offset: 7,
                reason: "it is poison".into(),
                key: key.map(<[u8]>::to_vec),
                own_headers: headers.len(),
            };
            assert_eq!(read_copy(key, headers), expected);
        }
    }

    #[test]
    fn a_record_that_no_consumer_copied_has_no_origin() {
        let record = Record {
            partition: 3,
            offset: 7,
            timestamp_ms: 1,
            key: Some(b"1"),
            value: None,
            headers: smallvec::SmallVec::new(),
        };
        let copy = PoisonRecord::new(&record, "notifications", "group", "why");
        let whole = copy.without_value();
        assert!(from_record(&whole.key, &whole.headers).is_some());
        assert_eq!(from_record("notifications/3/8", &whole.headers), None);
        assert_eq!(from_record(&whole.key, &whole.headers[1..]), None);
        let mut more = copy.headers.clone();
        more.push(("x".into(), Vec::new()));
        assert_eq!(from_record(&copy.key, &more), None);
        assert_eq!(from_record("1", &[]), None);
    }
}
