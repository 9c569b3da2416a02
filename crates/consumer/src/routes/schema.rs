//! What the API's description says of the bodies. They are written by hand elsewhere, as text,
//! because an inbox is kept as ready-to-send JSON; a fuzzing client holds the two against each
//! other.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// Which notifications are meant: some, all up to and with a place, or all.
#[derive(Deserialize, ToSchema)]
#[allow(dead_code)] // Only described.
pub(super) struct Chosen {
    #[schema(required = false, max_items = 1000)]
    ids: Option<Vec<String>>,
    #[schema(required = false, example = "3-1042")]
    through: Option<String>,
}

/// What came of it. The view shows it already.
#[derive(Serialize, ToSchema)]
pub(super) struct Done {
    /// How many notifications it changed.
    changed: u64,
    /// How many are not read now.
    unread: u64,
    cursor: String,
}
