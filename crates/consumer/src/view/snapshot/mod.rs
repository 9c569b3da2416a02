//! A partition of the view on a disk, so that the next process reads that and what came since
//! instead of the whole log. A snapshot is a shortcut and never a source: it is used only where
//! the log proves that it is of this very log, and anything wrong with it costs time, not truth.
//!
//! The modules in the order in which a partition meets them:
//! - [`taking`]: out of the view, all at once or in small steps while records are folded;
//! - [`encode`]: into bytes; `format`: what both directions agree on; [`decode`]: back;
//! - `overlap`: what of the records that follow a snapshot has already;
//! - [`store`]: the folder, and files that are there whole or not at all;
//! - [`keeping`]: when all of this happens.

pub mod taking;
pub mod encode;
mod format;
pub mod decode;
mod overlap;
pub mod store;
pub mod keeping;
#[cfg(test)]
mod fuzz;

use event_log::RecordAnchor;
use model::Partitioner;

use super::{inbox::Limits, inboxes::Inboxes};
pub use decode::Refused;
pub use keeping::SnapshotManager;
pub(super) use overlap::Overlap;
pub use store::Store;

/// What must be the same for a snapshot to be of use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotKey {
    /// The notifications' topic.
    pub notifications: String,
    /// The receipts' topic.
    pub receipts: String,
    /// The group, whose progress says which dead letters are copied.
    pub group: String,
    /// How many partitions the topics have.
    pub partitions: u32,
    /// How a recipient's id becomes one of them.
    pub partitioner: Partitioner,
    /// The bounds of every inbox.
    pub limits: Limits,
}

/// Where a snapshot begins: what follows from there is to be read. The values of the two topics,
/// notifications first.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Begin {
    /// The last offset that was folded; −1 before any.
    last: [i64; 2],
    /// That record; none where nothing was folded.
    marks: [Option<RecordAnchor>; 2],
}

/// What is known at a snapshot's end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct End {
    /// The last record that may be in it. Where records were folded meanwhile, this is beyond the
    /// beginning, and the log has to show it too.
    marks: [Option<RecordAnchor>; 2],
    /// The first offset from which on the notifications are complete.
    low: i64,
    /// The notifications since the beginning that reused a key.
    conflicts: Vec<i64>,
}

/// A partition as a snapshot had it.
#[derive(Debug)]
pub struct Restored {
    pub(super) inboxes: Inboxes,
    /// Notifications in it, dismissed ones too.
    pub entries: u64,
    /// Whether some are for users whose home is elsewhere.
    pub(super) strays: bool,
}
