//! The view: every inbox of the partitions that this instance owns, in memory. It is a pure
//! function of the log, so it can be dropped and rebuilt at any time.
//!
//! [`apply`](crate::apply) writes it, on the log's own threads; HTTP handlers read it. It names no
//! Kafka driver, no SQL, no web framework and no snapshot file.
//!
//! The modules, each of which imports only those above it:
//! - [`rebuild`]: progress of a partition that is not live yet;
//! - [`entry`]: one notification, kept as ready-to-send JSON, and its state;
//! - [`inbox`]: one user's entries, bounded;
//! - [`page`]: a read request and its answer;
//! - `replay`: which of the coming records a restored partition has applied already;
//! - [`inboxes`]: all inboxes of one partition;
//! - `query`: reads from these inboxes;
//! - `watchers`: readers that wait for one user's changes;
//! - [`partition`]: the inboxes of one partition behind one lock;
//! - [`partitions`]: the [`View`], all partitions of the topic;
//! - [`feed`]: the events of a live stream.

pub mod rebuild;
pub mod entry;
pub mod inbox;
pub mod page;
mod replay;
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
pub use partition::{NotLive, PartitionStatus, PartitionTotals, PartitionView};
pub use partitions::{Counters, View};
pub(crate) use replay::ReplayFilter;
