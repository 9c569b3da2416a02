//! Cursors: the position of a record in the log.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// The position of a record: partition, offset, and the epoch of the log that it is in, such as
/// `3-1042-5f3a9c01`. A reader with this cursor has seen every record of that log up to and
/// including this one. Cursors are the same on every instance and after every restart.
/// `3-start-5f3a9c01` is the position before the partition's first record.
///
/// A topic that was deleted and created again is another log with another epoch. A log without an
/// epoch, such as that of a broker without topic ids (KIP-516), has cursors without the third part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Cursor {
    /// The partition, from 0.
    pub partition: i32,
    /// The offset, from 0; −1 is the position before the first record.
    pub offset: i64,
    /// The epoch of the log, `None` if it is not known.
    pub epoch: Option<u32>,
}

/// Why a text is not a [`Cursor`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a cursor such as 3-1042-5f3a9c01 (partition-offset-epoch)")]
pub struct InvalidCursor;

impl Cursor {
    /// The position `offset` ≥ −1 of `partition` ≥ 0, in a log whose epoch is not known.
    #[must_use]
    pub fn new(partition: i32, offset: i64) -> Self {
        debug_assert!(partition >= 0 && offset >= -1, "{partition}-{offset}");
        Self { partition, offset, epoch: None }
    }

    /// The same position in the log of this epoch.
    #[must_use]
    pub fn with_epoch(self, epoch: Option<u32>) -> Self {
        Self { epoch, ..self }
    }

    /// Returns true if the cursor is known to be a position of the log of this epoch. A cursor
    /// without an epoch may be of an earlier log, unless it is the position before the first record.
    #[must_use]
    pub fn is_of_log(self, epoch: Option<u32>) -> bool {
        self.epoch == epoch || (self.epoch.is_none() && self.offset < 0)
    }

    /// Appends the cursor's text. Cheaper than `format!`: a page writes one cursor for each entry.
    pub fn write_to(self, text: &mut impl fmt::Write) -> fmt::Result {
        let mut digits = itoa::Buffer::new();
        text.write_str(digits.format(self.partition))?;
        text.write_char('-')?;
        text.write_str(if self.offset >= 0 { digits.format(self.offset) } else { "start" })?;
        let Some(epoch) = self.epoch else { return Ok(()) };
        text.write_char('-')?;
        let mut digits =
            (0..8).rev().filter_map(|place| char::from_digit(epoch >> (4 * place) & 15, 16));
        digits.try_for_each(|digit| text.write_char(digit))
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
        let (partition, rest) = s.split_once('-').ok_or(InvalidCursor)?;
        let (offset, epoch) = match rest.split_once('-') {
            Some((offset, epoch)) => (offset, Some(parse_epoch(epoch).ok_or(InvalidCursor)?)),
            None => (rest, None),
        };
        let partition = parse_canonical(partition).and_then(|n| i32::try_from(n).ok());
        let offset = if offset == "start" { Some(-1) } else { parse_canonical(offset) };
        let position = partition.zip(offset).map(|(p, o)| Self::new(p, o)).ok_or(InvalidCursor)?;
        Ok(position.with_epoch(epoch))
    }
}

/// Parses exactly 8 lower-case hexadecimal digits.
fn parse_epoch(digits: &str) -> Option<u32> {
    let is_digit = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    let plain = digits.len() == 8 && digits.bytes().all(is_digit);
    if plain { u32::from_str_radix(digits, 16).ok() } else { None }
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
