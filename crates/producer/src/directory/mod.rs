//! The user directory: a table in PostgreSQL, or in SQLite when embedded. `/users` reads and changes
//! it through [`Directory`]; sends look names up through [`UserLookup`], which caches them.

mod error;
mod postgres;
mod sqlite;
mod table;
mod cache;
mod listener;
mod lookup;

pub use error::{DirectoryError, DirectoryOpenError, MigrateError};
pub use lookup::{LookupFailed, UserLookup, UserNames};
pub use table::{Directory, PutOutcome};
