//! The state that all handlers share.

use std::{sync::Arc, time::Duration};

use event_log::Log;

use super::streams::LiveStreams;
use crate::{cluster::ownership::OwnershipTable, receipts::ReceiptWriter, view::View};

/// One for all routes, behind an `Arc`.
pub(crate) struct App {
    pub(crate) view: Arc<View>,
    pub(crate) ownership: OwnershipTable,
    pub(crate) receipts: ReceiptWriter,
    pub(crate) log: Log,
    /// The notifications' topic.
    pub(crate) topic: Arc<str>,
    pub(crate) streams: LiveStreams,
    /// How long a request waits for a partition that is not live, or not assigned yet.
    pub(crate) read_timeout: Duration,
}
