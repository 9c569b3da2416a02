//! The JSON body of a send, and OpenAPI schemas of other bodies that the producer parses by hand. A
//! fuzzing client tests that the parsers accept what the schemas allow.
#![allow(dead_code, reason = "most fields are only described")]

use serde::Deserialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

/// One message to one or several users.
// The values are unparsed, so that a problem can name the field. `null` counts as missing.
#[derive(Deserialize, ToSchema)]
#[schema(as = Send)]
pub(crate) struct SendBody<'b> {
    #[serde(borrow)]
    #[schema(value_type = i64, minimum = 1, example = 2)]
    pub(crate) from_id: Option<&'b RawValue>,
    #[serde(borrow)]
    #[schema(value_type = Recipients)]
    pub(crate) to_id: Option<&'b RawValue>,
    #[serde(borrow)]
    #[schema(value_type = String, min_length = 1, max_length = 4096,
             example = "Bruno started following you.")]
    pub(crate) message: Option<&'b RawValue>,
    /// The kind of the notification, of your choice; readers may filter by it.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, required = false, min_length = 1, max_length = 64,
             example = "follow")]
    pub(crate) category: Option<&'b RawValue>,
    /// The target of a click: `http://…`, `https://…`, or a path on your site, `/…`.
    #[serde(borrow)]
    #[schema(value_type = Option<String>, required = false, max_length = 2048, example = "/users/2")]
    pub(crate) link: Option<&'b RawValue>,
    /// Any JSON for the recipient's program, at most 16 KiB and 32 levels.
    #[serde(borrow)]
    #[schema(value_type = Option<serde_json::Value>, required = false)]
    pub(crate) data: Option<&'b RawValue>,
    #[serde(borrow)]
    #[schema(ignore)]
    pub(crate) idempotency_key: Option<&'b RawValue>,
}

/// The same as a form; repeat `to_id` for several recipients.
#[derive(Deserialize, ToSchema)]
pub(crate) struct SendForm {
    #[schema(minimum = 1, example = 2)]
    from_id: i64,
    #[schema(minimum = 1, example = 1)]
    to_id: i64,
    #[schema(min_length = 1, max_length = 4096, example = "Bruno started following you.")]
    message: String,
    #[schema(required = false, nullable = false, min_length = 1, max_length = 64)]
    category: Option<String>,
    #[schema(required = false, nullable = false, max_length = 2048)]
    link: Option<String>,
    /// JSON as text.
    #[schema(required = false, nullable = false)]
    data: Option<String>,
}

/// One user, or a list of at most 10,000.
#[derive(Deserialize, ToSchema)]
#[serde(untagged)]
pub(crate) enum Recipients {
    One(i64),
    Several(Vec<i64>),
}

/// A user.
#[derive(ToSchema)]
pub(crate) struct User {
    #[schema(minimum = 1, example = 2)]
    id: i64,
    #[schema(example = "Bruno")]
    name: String,
}

/// A user's name.
#[derive(Deserialize, ToSchema)]
pub(crate) struct Name {
    /// Not blank, no control characters.
    #[schema(min_length = 1, max_length = 100, example = "Nora")]
    name: String,
}
