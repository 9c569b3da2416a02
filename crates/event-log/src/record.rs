//! What is appended, and what is read back.

use std::borrow::Cow;

use smallvec::SmallVec;

/// A record to be appended. Its partition is the caller's choice, because the one who looks for
/// it later must come to the same.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewRecord {
    /// From 0, below the topic's partition count.
    pub partition: i32,
    /// Records of one key keep their order.
    pub key: Vec<u8>,
    /// What is said.
    pub value: Vec<u8>,
    /// Names and values, kept in this order.
    pub headers: Vec<(&'static str, Cow<'static, [u8]>)>,
}

/// Where a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// From 0.
    pub partition: i32,
    /// From 0, counted by partition.
    pub offset: i64,
}

/// A record of a partition, and what it said: enough to find out later whether the log that has a
/// record of this offset is the same log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RecordAnchor {
    /// Its offset.
    pub offset: i64,
    /// Its [`Record::checksum`].
    pub checksum: u32,
}

/// A record as it is read: borrowed from the driver, for the length of one call.
#[derive(Debug)]
pub struct Record<'a> {
    /// From 0.
    pub partition: i32,
    /// From 0, counted by partition; grows, and may leave gaps.
    pub offset: i64,
    /// Milliseconds since 1970, as the producer or the broker set it; 0 where there is none.
    pub timestamp_ms: i64,
    /// None: a record without a key.
    pub key: Option<&'a [u8]>,
    /// None: a tombstone.
    pub value: Option<&'a [u8]>,
    /// In the order in which they were written. Those with a null value are left out.
    pub headers: SmallVec<[(&'a str, &'a [u8]); 8]>,
}

impl Record<'_> {
    /// The CRC-32 of all that was said, when included.
    #[must_use]
    pub fn checksum(&self) -> u32 {
        let mut hash = crc32fast::Hasher::new();
        // Lengths too, so that nothing can move from one part to the next unseen. One more than
        // there is, so that an empty part is not the same as none.
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

    /// This record, as it is to be known again.
    #[must_use]
    pub fn anchor(&self) -> RecordAnchor {
        RecordAnchor { offset: self.offset, checksum: self.checksum() }
    }
}
