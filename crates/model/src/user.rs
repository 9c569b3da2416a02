//! Users: an id, which is a positive whole number, and a name.

use std::{borrow::Cow, fmt, str::FromStr};

use serde::{Deserialize, Serialize, de::Error as _};

use crate::text::{InvalidText, check_line};

/// A user's id: a whole number from 1 to 2⁶³−1, as PostgreSQL's `bigint` holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct UserId(i64);

/// Why something is not a [`UserId`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("must be a positive whole number")]
pub struct InvalidUserId;

impl UserId {
    /// Validates an id.
    pub fn new(id: i64) -> Result<Self, InvalidUserId> {
        if id >= 1 { Ok(Self(id)) } else { Err(InvalidUserId) }
    }

    /// The id as a number, at least 1.
    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }

    /// The key of the Kafka records for this recipient: the id in decimal ASCII.
    #[must_use]
    pub fn record_key(self) -> String {
        self.0.to_string()
    }
}

impl fmt::Display for UserId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for UserId {
    type Err = InvalidUserId;

    /// Parses decimal digits. Rejects `+1`, ` 1` and `01`, so that each id has one spelling.
    fn from_str(s: &str) -> Result<Self, InvalidUserId> {
        if s.is_empty() || s.starts_with('0') || !s.bytes().all(|b| b.is_ascii_digit()) {
            return Err(InvalidUserId);
        }
        s.parse().map_err(|_| InvalidUserId).and_then(Self::new)
    }
}

impl<'de> Deserialize<'de> for UserId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(i64::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// A user as a notification holds them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct User<'a> {
    /// The user's id.
    pub id: UserId,
    /// The user's name when the notification was sent.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
}

/// A user's name in the directory: one line of 1 to [`UserName::MAX_CHARS`] characters, trimmed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserName(String);

impl UserName {
    /// Maximum length in Unicode scalar values.
    pub const MAX_CHARS: usize = 100;

    /// Trims and validates a name.
    pub fn new(text: &str) -> Result<Self, InvalidText> {
        let text = text.trim();
        check_line(text, Self::MAX_CHARS)?;
        Ok(Self(text.to_owned()))
    }

    /// The name's text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_a_positive_whole_number_in_its_only_spelling() {
        assert_eq!("1".parse(), UserId::new(1));
        assert_eq!("9223372036854775807".parse(), UserId::new(i64::MAX));
        for bad in ["", "0", "-1", "+1", " 1", "1 ", "01", "1.0", "1e3", "x", "9223372036854775808"]
        {
            assert_eq!(bad.parse::<UserId>(), Err(InvalidUserId), "{bad:?}");
        }
    }

    #[test]
    fn json_holds_the_bare_number() {
        let id: UserId = serde_json::from_str("7").expect("a positive number");
        assert_eq!(serde_json::to_string(&id).expect("a number"), "7");
        assert!(serde_json::from_str::<UserId>("0").is_err());
        assert!(serde_json::from_str::<UserId>("\"7\"").is_err());
    }

    #[test]
    fn a_name_is_one_line_without_space_around_it() {
        assert_eq!(UserName::new(" Emma Stone\n").map(|name| name.0), Ok("Emma Stone".into()));
        assert!(UserName::new(&"é".repeat(100)).is_ok());
        assert_eq!(
            UserName::new(&"é".repeat(101)),
            Err(InvalidText::TooLong { max: 100, found: 101 })
        );
        assert_eq!(UserName::new("  "), Err(InvalidText::Empty));
        assert_eq!(UserName::new("a\0b"), Err(InvalidText::Control));
        assert_eq!(UserName::new("a\nb"), Err(InvalidText::Control));
    }
}
