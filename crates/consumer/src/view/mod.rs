//! The view: every inbox of the partitions that this instance owns, in memory. It is a pure
//! function of the log, so it can be dropped and rebuilt at any time.
//!
//! [`apply`](crate::apply) writes it, on the log's own threads; HTTP handlers read it. It names no
//! Kafka driver, no SQL, no web framework and no snapshot file.

pub mod rebuild;
pub mod status;
pub mod entry;
pub mod inbox;
pub mod page;
pub mod inboxes;
mod query;
mod watchers;
pub mod partition;
pub mod partitions;
pub mod feed;

pub use entry::EntryState;
pub use feed::Feed;
pub use inbox::Limits;
pub use inboxes::Inboxes;
pub use page::{Page, PageQuery, Selector, Since};
pub use partition::{PartitionTotals, PartitionView};
pub use partitions::View;
pub use query::WouldChange;
pub use status::{BehindSince, NotLive, PartitionStatus};
