//! The state that all handlers share.

use std::{sync::Arc, time::Duration};

use event_log::Log;

use super::streams::LiveStreams;
use crate::{cluster::ownership::OwnershipTable, receipts::ReceiptWriter, view::View};

/// One for all routes, behind an `Arc`.
pub struct App {
    /// Every inbox of this instance.
    pub view: Arc<View>,
    /// The owners of all partitions.
    pub ownership: OwnershipTable,
    /// Writes what recipients read, unread or dismiss.
    pub receipts: ReceiptWriter,
    /// The log, for its end offsets.
    pub log: Log,
    /// The notifications' topic.
    pub topic: Arc<str>,
    /// The live streams.
    pub streams: LiveStreams,
    /// How long a request waits for a partition that is not live, or not assigned yet.
    pub read_timeout: Duration,
}
