//! A partition of the view on disk, so that the next process reads that and the records since then
//! instead of the whole log.
//!
//! A snapshot is a shortcut and never a source. It is used only if the log proves that it is of this
//! very log, and a damaged one costs time, not data.
//!
//! The modules, each of which imports only those above it:
//! - [`format`]: the file's layout, its key, header and footer;
//! - `bytes`: numbers, texts, ids and anchors;
//! - `items`: entries, inboxes and pending receipts;
//! - [`encode`] and [`decode`]: whole files;
//! - [`store`]: the folder, in which a file is complete or absent;
//! - [`writer`]: out of the view, at once or in steps while records are applied;
//! - [`manager`]: when snapshots are read and written.

pub mod format;
mod bytes;
mod items;
pub mod encode;
pub mod decode;
pub mod store;
pub mod writer;
pub mod manager;
#[cfg(test)]
mod fuzz;

pub use format::{SnapshotKey, SnapshotRejected};
pub use manager::SnapshotManager;
pub use store::SnapshotStore;
pub use writer::SnapshotWriter;
