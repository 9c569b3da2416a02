//! The thread of a reader. It has a runtime of its own until it is stopped.

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
    topics::{TopicState, Topics},
};
use crate::{
    PartitionHandler, assigned_partitions::AssignedPartitions, offset_tracker::OffsetTracker,
    reader::FollowerCommand,
};

/// How often a reader looks for a topic that does not exist.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// The topic to read, and the file that holds it.
pub(super) struct TopicSource {
    pub(super) path: PathBuf,
    pub(super) topics: Arc<Topics>,
    /// Keeps the file locked while the reader runs.
    pub(super) lock: Option<Arc<FileLock>>,
    pub(super) topic: String,
}

impl TopicSource {
    /// A group member has a tracker and reads every partition. A follower has commands, which assign
    /// partitions to it.
    pub(super) fn run_driver<H: PartitionHandler>(
        self,
        handler: H,
        tracker: Option<Arc<OffsetTracker>>,
        commands: Option<UnboundedReceiver<FollowerCommand>>,
        stop: &AtomicBool,
    ) {
        // A runtime of its own: the handler keeps the thread busy, and other tasks must not wait.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = await_topic(&self.topics, &self.topic, stop).await {
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
