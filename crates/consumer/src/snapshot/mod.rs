//! A partition of the view on disk, so that the next process reads that and the records since then
//! instead of the whole log.
//!
//! A snapshot is a shortcut and never a source. It is used only if the log proves that it is of this
//! very log, and a damaged one costs time, not data.

pub mod format;
mod items;
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
