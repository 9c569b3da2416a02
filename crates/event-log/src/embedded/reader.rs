//! Readers: each has a thread and a runtime of its own until it is stopped.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use tokio::sync::mpsc::UnboundedReceiver;

use super::{
    driver::EmbeddedDriver,
    open::FileLock,
    progress::FileOffsets,
    topics::{TopicState, Topics},
};
use crate::{
    PartitionHandler,
    assigned_partitions::AssignedPartitions,
    commits,
    dlq::DlqWriter,
    offset_tracker::OffsetTracker,
    reader::{Follower, FollowerCommand, Reader, ReaderStatus},
};

/// How often a reader looks for a topic that does not exist.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(50);
/// How long a stop waits for the last copies and commits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// See [`Log::join_group`](crate::Log::join_group).
pub(super) fn join_group<H: PartitionHandler>(
    source: TopicSource,
    membership: Membership,
    handler: H,
) -> Reader {
    let Membership { tracker, offsets, dlq, status } = membership;
    Reader::spawn("embedded-reader", &status, move |stop| {
        if let Err(error) = commits::start_workers(&tracker, offsets, dlq) {
            tracing::error!(%error, "cannot start the threads that commit offsets and copy poison records");
        }
        source.run_driver(handler, ReaderRole::Member(Arc::clone(&tracker)), stop);
        tracker.close(CLOSE_TIMEOUT);
    })
}

/// See [`Log::follow_topic`](crate::Log::follow_topic).
pub(super) fn follow_topic<H: PartitionHandler>(source: TopicSource, handler: H) -> Follower {
    Follower::spawn("embedded-follower", move |stop, commands| {
        source.run_driver(handler, ReaderRole::Follower(commands), stop);
    })
}

/// The one member of a group.
pub(super) struct Membership {
    pub(super) tracker: Arc<OffsetTracker>,
    pub(super) offsets: FileOffsets,
    pub(super) dlq: Option<DlqWriter>,
    pub(super) status: Arc<ReaderStatus>,
}

enum ReaderRole {
    /// Reads every partition.
    Member(Arc<OffsetTracker>),
    /// Reads the partitions that its commands assign.
    Follower(UnboundedReceiver<FollowerCommand>),
}

/// The topic to read, and the file that holds it.
pub(super) struct TopicSource {
    pub(super) path: PathBuf,
    pub(super) topics: Arc<Topics>,
    /// Keeps the file locked while the reader runs.
    pub(super) lock: Option<Arc<FileLock>>,
    pub(super) topic: String,
}

impl TopicSource {
    fn run_driver<H: PartitionHandler>(self, handler: H, role: ReaderRole, stop: &AtomicBool) {
        // A runtime of its own: the handler keeps the thread busy, and other tasks must not wait.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = await_topic(&self.topics, &self.topic, stop).await {
                    let (tracker, commands) = match role {
                        ReaderRole::Follower(commands) => (None, Some(commands)),
                        ReaderRole::Member(tracker) => (Some(tracker), None),
                    };
                    let partitions = AssignedPartitions::new(&self.topic, handler, tracker);
                    EmbeddedDriver::new(self.path, state, partitions, commands, stop).run().await;
                }
            }),
            Err(error) => tracing::error!(%error, "cannot start a runtime for a reader"),
        }
        // Only now may another process open the file.
        drop(self.lock);
    }
}

/// Waits until the topic exists. `None` if the reader is stopped before.
async fn await_topic(topics: &Topics, name: &str, stop: &AtomicBool) -> Option<Arc<TopicState>> {
    let mut logged = false;
    while !stop.load(Ordering::Acquire) {
        if let Some(topic) = topics.find_topic(name) {
            return Some(topic);
        }
        if !logged {
            tracing::warn!(log.topic = name, "the topic does not exist; waiting for it");
            logged = true;
        }
        tokio::time::sleep(TOPIC_CHECK_INTERVAL).await;
    }
    None
}
