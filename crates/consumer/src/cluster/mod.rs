//! The other instances of the group. Any instance answers for any user: it forwards a request to
//! the instance that owns the user's partition, in at most one hop.

pub(crate) mod peers;
pub(crate) mod claims;
pub(crate) mod ownership;
pub(crate) mod resolver;
pub(crate) mod proxy;
