//! The other instances of the group. Any instance answers for any user: it forwards a request to
//! the instance that owns the user's partition, in at most one hop.
//!
//! - [`ownership`]: the table of owners, read from and announced in a topic;
//! - [`resolver`]: which instance must answer for a partition now;
//! - [`proxy`]: one request to one peer, over HTTP.
//!
//! The layer that applies this to the routes is in [`routes`](crate::routes).

pub mod ownership;
pub(crate) mod resolver;
pub(crate) mod proxy;
