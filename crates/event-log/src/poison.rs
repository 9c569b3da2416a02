//! A poison record, in the form in which both drivers copy it to the dead-letter queue.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Record;

/// The most bytes of a value, and of all headers with the key, that are copied. A compressed batch may
/// hold far more than a broker accepts of an uncompressed one.
const MAX_VALUE_BYTES: usize = 1 << 20;
const MAX_HEADER_BYTES: usize = 64 << 10;

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
        let origin = [
            ("dlq.topic", topic.to_owned()),
            ("dlq.partition", partition.to_string()),
            ("dlq.offset", offset.to_string()),
            ("dlq.reason", reason.to_owned()),
            ("dlq.group", group.to_owned()),
            // Milliseconds since 1970.
            ("dlq.time", now.as_millis().to_string()),
        ];
        let origin = origin.map(|(name, value)| (name.to_owned(), value.into_bytes()));
        let key = record.key.filter(|_| has_headers);
        let key = key.map(|key| ("dlq.key".to_owned(), key.to_vec()));
        let left_out = [
            ("dlq.value", value.is_none() && record.value.is_some()),
            ("dlq.headers", !has_headers),
        ];
        let left_out = left_out.into_iter().filter(|(_, is_left_out)| *is_left_out);
        let left_out = left_out.map(|(name, _)| (name.to_owned(), b"left out: too large".to_vec()));
        Self {
            partition,
            offset,
            key: format!("{topic}/{partition}/{offset}"),
            value: value.map(<[u8]>::to_vec),
            headers: own.chain(origin).chain(key).chain(left_out).collect(),
        }
    }

    /// The same record with a header in place of its value.
    pub(crate) fn without_value(&self) -> Self {
        let said = b"left out: the record is larger than this topic allows".to_vec();
        let headers = self.headers.iter().cloned().chain([("dlq.value".to_owned(), said)]);
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
}
