//! Cursors: the position of a record in the log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The position of a record: `partition-offset`, such as `3-1042`. A reader with this cursor has
/// seen every record up to and including this one. Cursors are the same on every instance and after
/// every restart. `3-start` is the position before the partition's first record.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor {
    /// The partition, from 0.
    pub partition: i32,
    /// The offset, from 0; −1 is the position before the first record.
    pub offset: i64,
}

/// Why a text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor such as 3-1042 (partition-offset)")]
pub struct InvalidCursor;

impl Cursor {
    /// The position `offset` ≥ −1 of `partition` ≥ 0.
    #[must_use]
    pub fn new(partition: i32, offset: i64) -> Self {
        debug_assert!(partition >= 0 && offset >= -1, "{partition}-{offset}");
        Self { partition, offset }
    }

    /// Appends the cursor's text. Cheaper than `format!`: a page writes one cursor for each entry.
    pub fn write_to(self, text: &mut impl fmt::Write) -> fmt::Result {
        let mut digits = itoa::Buffer::new();
        text.write_str(digits.format(self.partition))?;
        text.write_char('-')?;
        text.write_str(if self.offset >= 0 { digits.format(self.offset) } else { "start" })
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl FromStr for Cursor {
    type Err = InvalidCursor;

    /// Parses only the spelling that [`Display`](fmt::Display) writes.
    fn from_str(s: &str) -> Result<Self, InvalidCursor> {
        let (partition, offset) = s.split_once('-').ok_or(InvalidCursor)?;
        let partition = parse_canonical(partition).and_then(|n| i32::try_from(n).ok());
        let offset = if offset == "start" { Some(-1) } else { parse_canonical(offset) };
        partition.zip(offset).map(|(p, o)| Self::new(p, o)).ok_or(InvalidCursor)
    }
}

/// Parses a whole number from 0, without sign or leading zeros.
fn parse_canonical(digits: &str) -> Option<i64> {
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    let short = digits.len() == 1 || !digits.starts_with('0');
    if plain && short { digits.parse().ok() } else { None }
}

impl Serialize for Cursor {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Cursor {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = <std::borrow::Cow<'de, str>>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}
