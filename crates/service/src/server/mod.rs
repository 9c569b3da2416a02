//! The HTTP server, from the listener to the response.

pub mod listen;
pub mod limits;
pub mod http;
pub mod detached;
pub mod layer;
pub(crate) mod request_log;
mod request_rules;
pub mod admission;
pub mod budget;
pub mod rate;
pub(crate) mod replies;
pub(crate) mod connections;
pub(crate) mod gate;
pub mod origin;
pub(crate) mod fallback;
