//! Records to append, and records that are read.

use std::borrow::Cow;

use smallvec::SmallVec;

/// A record to append. The caller chooses the partition, because readers must compute the same one
/// from the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// From 0, below the topic's partition count.
    pub partition: i32,
    /// Records of one key keep their order.
    pub key: Vec<u8>,
    /// The payload.
    pub value: Vec<u8>,
    /// Names and values; the log keeps their order.
    pub headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// The place of a record in its topic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 0.
    pub partition: i32,
    /// From 0, counted by partition.
    pub offset: i64,
    /// The topic's epoch; `None` if it is not known, or not certain to be that of the topic which has
    /// the record, because the topic was created again at about that time.
    pub epoch: Option<u32>,
}

/// Why a record was not acknowledged.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AppendError {
    /// The queue is full. The record was not written; retry soon.
    #[error("the queue of unacknowledged records is full")]
    Full,
    /// The log is away. The record was not written; retry when it is back.
    #[error("the log is not reachable: {0}")]
    Unreachable(String),
    /// The log did not answer in time. The record may or may not be written.
    #[error("no acknowledgement in time: {0}")]
    TimedOut(String),
    /// The record is larger than the log allows. A retry does not help.
    #[error("the record is larger than the log allows")]
    TooLarge,
    /// The log rejected the record for another reason. It was not written.
    #[error("the log refused the record: {0}")]
    Refused(String),
}

/// Offset and checksum of a record. A log with the same record at this offset is the same log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAnchor {
    /// The record's offset.
    pub offset: i64,
    /// The record's [`checksum`](Record::checksum).
    pub checksum: u32,
}

/// A record that was read, borrowed from the driver for one call.
#[derive(Debug)]
pub struct Record<'a> {
    /// From 0.
    pub partition: i32,
    /// From 0, counted by partition; grows, and may leave gaps.
    pub offset: i64,
    /// Milliseconds since 1970, set by the producer or the broker; 0 if the record has no time.
    pub timestamp_ms: i64,
    /// `None` if the record has no key.
    pub key: Option<&'a [u8]>,
    /// `None` if the record is a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the order in which they were written, without those that have a null value.
    pub headers: SmallVec<[(&'a str, &'a [u8]); 8]>,
}

impl Record<'_> {
    /// The CRC-32 of timestamp, key, value and headers.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        // Lengths are hashed too, so bytes cannot move from one part to the next unnoticed. Each is
        // one too large, so an empty part differs from a missing one.
        let mut part = |bytes: Option<&[u8]>| {
            let length = bytes.map_or(0, |bytes| bytes.len() as u64 + 1);
            hash.update(&length.to_le_bytes());
            hash.update(bytes.unwrap_or_default());
        };
        part(Some(&self.timestamp_ms.to_le_bytes()));
        part(self.key);
        part(self.value);
        for (name, value) in &self.headers {
            part(Some(name.as_bytes()));
            part(Some(value));
        }
        hash.finalize()
    }

    /// The anchor by which this record is recognised later.
    #[must_use]
    pub fn anchor(&self) -> RecordAnchor {
        RecordAnchor { offset: self.offset, checksum: self.checksum() }
    }
}
