//! A message that is unique in a run and encodes its sender, its recipient and its number.

use std::{fmt, str::FromStr};

/// The `n`-th message from `from` to `to`, written as `from-to-n`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TestMessage {
    /// The sender.
    pub from: i64,
    /// The recipient.
    pub to: i64,
    /// Counted from 0 for each sender and recipient.
    pub n: u32,
}

impl fmt::Display for TestMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}-{}", self.from, self.to, self.n)
    }
}

impl FromStr for TestMessage {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.splitn(3, '-');
        let mut part = || parts.next().ok_or(());
        let from = part()?.parse().map_err(drop)?;
        let to = part()?.parse().map_err(drop)?;
        let n = part()?.parse().map_err(drop)?;
        Ok(Self { from, to, n })
    }
}
