//! The value of a notification's record: the JSON of the original Go tutorial, field for field, and
//! three optional fields.

use std::borrow::Cow;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{object::deserialize_object, user::User};

/// A notification. Decoding borrows its texts from the record.
///
/// As JSON: `{"from":{"id":2,"name":"Bruno"},"to":{"id":1,"name":"Emma"},"message":"…"}`. Unknown
/// fields are ignored, so that other producers may add their own.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Notification<'a> {
    /// The sender.
    #[serde(borrow, deserialize_with = "deserialize_object")]
    pub from: User<'a>,
    /// The recipient, whose id is the record's key.
    #[serde(borrow, deserialize_with = "deserialize_object")]
    pub to: User<'a>,
    /// The text for the recipient.
    #[serde(borrow)]
    pub message: Cow<'a, str>,
    /// The kind of the notification, chosen by the sender; readers may filter by it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub category: Option<Cow<'a, str>>,
    /// The target of a click.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub link: Option<Cow<'a, str>>,
    /// JSON for the recipient's program, as the sender wrote it.
    #[serde(borrow, default, skip_serializing_if = "Option::is_none")]
    pub data: Option<&'a RawValue>,
}

impl<'a> Notification<'a> {
    /// A notification without category, link and data.
    pub fn new(from: User<'a>, to: User<'a>, message: impl Into<Cow<'a, str>>) -> Self {
        Self { from, to, message: message.into(), category: None, link: None, data: None }
    }
}
