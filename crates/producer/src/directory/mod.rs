//! The user directory: a table in PostgreSQL, or in SQLite when embedded. `/users` reads and changes
//! it through [`Directory`]; sends look names up through [`UserLookup`], which caches them.

mod error;
#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
mod table;
#[cfg_attr(
    not(all(feature = "postgres", feature = "sqlite")),
    allow(dead_code, reason = "each directory trusts the cache in its own way")
)]
mod cache;
#[cfg(feature = "postgres")]
mod listener;
mod lookup;

pub use error::{DirectoryError, DirectoryOpenError, MigrateError};
pub use lookup::{LookupFailed, UserLookup, UserNames};
pub use table::{Directory, PutOutcome};
