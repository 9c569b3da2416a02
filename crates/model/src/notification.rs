//! The value of a record: the JSON that the ancestor tutorial writes, field for field, and three
//! optional fields of ours.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::user::User;

/// One notification. Borrowed when it is decoded, so that reading a record copies nothing.
///
/// As JSON: `{"from":{"id":2,"name":"Bruno"},"to":{"id":1,"name":"Emma"},"message":"…"}`. Unknown
/// fields are ignored, so that other producers may add their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notification<'a> {
    /// The sender.
    #[serde(borrow)]
    pub from: User<'a>,
    /// The recipient, whose id is the record's key.
    #[serde(borrow)]
    pub to: User<'a>,
    /// What is said.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// What kind of notification this is, in the sender's own words; readers may filter by it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Cow<'a, str>>,
    /// Where a click leads.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Cow<'a, str>>,
    /// Anything else the sender wants to hand to the recipient's program, kept as it was written.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
}

/// A message that may be sent: not blank, at most [`Message::MAX_CHARS`] characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message(String);

/// Why a text is not a [`Message`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum InvalidMessage {
    /// Nothing but white space.
    #[error("must not be empty")]
    Empty,
    /// Longer than [`Message::MAX_CHARS`].
    #[error("must have at most {max} characters, but has {0}", max = Message::MAX_CHARS)]
    TooLong(usize),
}

impl Message {
    /// The longest message, in Unicode scalar values. A bound of ours: it keeps a full inbox of
    /// the default 1000 entries within some megabytes, and is ten times what a phone shows.
    pub const MAX_CHARS: usize = 4096;

    /// The text as a message.
    ///
    /// # Errors
    /// [`InvalidMessage`] when it is blank or too long.
    pub fn new(text: String) -> Result<Self, InvalidMessage> {
        if text.trim().is_empty() {
            return Err(InvalidMessage::Empty);
        }
        match text.chars().count() {
            n if n > Self::MAX_CHARS => Err(InvalidMessage::TooLong(n)),
            _ => Ok(Self(text)),
        }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_neither_blank_nor_too_long() {
        assert_eq!(Message::new(" \n".into()), Err(InvalidMessage::Empty));
        assert!(Message::new("é".repeat(Message::MAX_CHARS)).is_ok());
        assert_eq!(
            Message::new("é".repeat(Message::MAX_CHARS + 1)),
            Err(InvalidMessage::TooLong(Message::MAX_CHARS + 1))
        );
    }
}
