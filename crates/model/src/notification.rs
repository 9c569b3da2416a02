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
