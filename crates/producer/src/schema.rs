//! OpenAPI schemas of bodies that the producer parses by hand, and of `model`'s types. A fuzzing client
//! tests that the parsers accept what the schemas allow.

use serde::Deserialize;
use serde_json::Value;
use utoipa::ToSchema;

/// One message to one or several users.
#[derive(Deserialize, ToSchema)]
#[schema(as = Send)]
#[allow(dead_code)] // Only described.
pub(crate) struct SendBody {
    #[schema(minimum = 1, example = 2)]
    from_id: i64,
    to_id: Recipients,
    #[schema(min_length = 1, max_length = 4096, example = "Bruno started following you.")]
    message: String,
    /// The kind of the notification, of your choice; readers may filter by it.
    #[schema(required = false, min_length = 1, max_length = 64, example = "follow")]
    category: Option<String>,
    /// The target of a click: `http://…`, `https://…`, or a path on your site, `/…`.
    #[schema(required = false, max_length = 2048, example = "/users/2")]
    link: Option<String>,
    /// Any JSON for the recipient's program, at most 16 KiB and 32 levels.
    #[schema(required = false)]
    data: Option<Value>,
}

/// The same as a form; repeat `to_id` for several recipients.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code)] // Only described.
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
#[allow(dead_code)] // Only described.
pub(crate) enum Recipients {
    One(i64),
    Several(Vec<i64>),
}

/// A user.
#[derive(ToSchema)]
#[allow(dead_code)] // Only described.
pub(crate) struct User {
    #[schema(minimum = 1, example = 2)]
    id: i64,
    #[schema(example = "Bruno")]
    name: String,
}

/// A user's name.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code)] // Only described.
pub(crate) struct Name {
    /// Not blank, no control characters.
    #[schema(min_length = 1, max_length = 100, example = "Nora")]
    name: String,
}
