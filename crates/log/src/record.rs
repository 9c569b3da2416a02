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
