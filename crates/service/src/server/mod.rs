//! The HTTP server: from an address to a response, with the limits on the way.
//!
//! - [`listen`]: which addresses may be listened on, and the error when one cannot;
//! - [`http`]: connections, limits, drain, and the layers around every router;
//! - [`detached`]: responses that may go on for ever, outside hyper;
//! - `request_log`: one line a request, never its path or query;
//! - [`admission`]: which requests are let in under load;
//! - `gate`: a check in front of a router's handlers;
//! - [`origin`]: which page made a browser ask;
//! - [`fallback`]: problem bodies for requests that no handler answered.

pub mod listen;
pub mod http;
pub mod detached;
pub(crate) mod request_log;
pub mod admission;
pub(crate) mod gate;
pub mod origin;
pub mod fallback;
