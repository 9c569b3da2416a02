//! A poison record, in the form in which both drivers copy it to the dead-letter queue.

use std::time::{SystemTime, UNIX_EPOCH};

use smallvec::SmallVec;

use crate::Record;

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

type CopiedParts<'a> = (Option<&'a [u8]>, SmallVec<[(&'a str, &'a [u8]); 16]>);

impl PoisonRecord {
    pub(crate) fn new(record: &Record<'_>, topic: &str, group: &str, reason: &str) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let (partition, offset) = (record.partition, record.offset);
        let own = record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
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
        let key = record.key.map(|key| ("dlq.key".to_owned(), key.to_vec()));
        Self {
            partition,
            offset,
            key: format!("{topic}/{partition}/{offset}"),
            value: record.value.map(<[u8]>::to_vec),
            headers: own.chain(origin).chain(key).collect(),
        }
    }

    /// The value and headers of a copy. Without its value, a copy has a header that says so.
    pub(crate) fn copied_parts(&self, with_value: bool) -> CopiedParts<'_> {
        let mut headers: SmallVec<_> =
            self.headers.iter().map(|(name, value)| (name.as_str(), value.as_slice())).collect();
        if with_value {
            return (self.value.as_deref(), headers);
        }
        headers.push(("dlq.value", b"left out: the record is larger than this topic allows"));
        (None, headers)
    }

    /// The memory that the record takes in the backlog.
    pub(crate) fn size_bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        self.key.len() + self.value.as_ref().map_or(0, Vec::len) + headers + 128
    }
}
