//! A record that is set aside: what both drivers write to the dead-letter topic.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::Record;

/// A copy of a record that a fold did not understand, with the headers that say so.
#[derive(Debug)]
pub(crate) struct PoisonRecord {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) value: Option<Vec<u8>>,
    /// The record's own, then those that begin with `dlq.`: where it was, why it is here, whose
    /// reader says so and when (in milliseconds since 1970).
    pub(crate) headers: Vec<(String, Vec<u8>)>,
}

impl PoisonRecord {
    pub(crate) fn of(record: &Record<'_>, topic: &str, group: &str, reason: &str) -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let own = record.headers.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec()));
        let why = [
            ("dlq.topic", topic.to_owned()),
            ("dlq.partition", record.partition.to_string()),
            ("dlq.offset", record.offset.to_string()),
            ("dlq.reason", reason.to_owned()),
            ("dlq.group", group.to_owned()),
            ("dlq.time", since.as_millis().to_string()),
        ];
        let why = why.into_iter().map(|(name, value)| (name.to_owned(), value.into_bytes()));
        Self {
            partition: record.partition,
            offset: record.offset,
            key: record.key.map(<[u8]>::to_vec),
            value: record.value.map(<[u8]>::to_vec),
            headers: own.chain(why).collect(),
        }
    }

    /// What it takes of memory, and so of a queue's room.
    pub(crate) fn bytes(&self) -> usize {
        let headers: usize =
            self.headers.iter().map(|(name, value)| name.len() + value.len() + 64).sum();
        let body = |body: &Option<Vec<u8>>| body.as_ref().map_or(0, Vec::len);
        body(&self.key) + body(&self.value) + headers + 128
    }
}
