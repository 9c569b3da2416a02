//! The HTTP server, from the listener to the response.
//!
//! - [`listen`]: binds addresses and refuses exposed ones;
//! - [`limits`]: the limits of connections and requests;
//! - [`http`]: connections, drain, and the layers around every router;
//! - [`detached`]: long-lived responses outside hyper;
//! - `request_log`: one line a request, without its path or query;
//! - [`admission`]: bounds concurrent requests;
//! - `gate`: a synchronous check in front of a router;
//! - [`origin`]: checks of the `Origin` and `Host` headers;
//! - [`fallback`]: problem bodies for errors of layers and the router.

pub mod listen;
pub mod limits;
pub mod http;
pub mod detached;
pub(crate) mod request_log;
pub mod admission;
pub(crate) mod gate;
pub mod origin;
pub mod fallback;
