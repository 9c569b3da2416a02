//! What the API's description says of the bodies that are parsed by hand, so that what is wrong with
//! them can be said in our words. A fuzzing client holds the two against each other.

use serde::{Deserialize, Serialize};
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
    /// What kind it is, in your words; readers may filter by it.
    #[schema(required = false, min_length = 1, max_length = 64, example = "follow")]
    category: Option<String>,
    /// Where a click leads: `http://…`, `https://…`, or a path of your own site, `/…`.
    #[schema(required = false, max_length = 2048, example = "/users/2")]
    link: Option<String>,
    /// Any JSON, at most 16 KiB and 32 levels, for the recipient's program.
    #[schema(required = false)]
    data: Option<Value>,
}

/// The same as a form; repeat `to_id` to reach several.
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

/// What was sent.
#[derive(Serialize, ToSchema)]
pub(crate) struct Sent {
    #[schema(example = "Notification sent successfully!")]
    message: String,
    sent: Vec<Delivery>,
}

/// One recipient's notification, in the log.
#[derive(Serialize, ToSchema)]
pub(crate) struct Delivery {
    #[schema(minimum = 1, example = 1)]
    to_id: i64,
    #[schema(example = "01a20397-68d9-7367-9612-d4f7597a900b")]
    id: String,
    /// Its place in the log. Given as `at_least`, a read waits until the inbox contains it.
    #[schema(example = "3-1042")]
    cursor: String,
}

/// A user.
#[derive(Serialize, ToSchema)]
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

/// Some of the users, by id.
#[derive(Serialize, ToSchema)]
pub(crate) struct Users {
    users: Vec<User>,
    /// To be given as `after` for the next page; missing on the last.
    #[schema(required = false, nullable = false)]
    next: Option<i64>,
}
