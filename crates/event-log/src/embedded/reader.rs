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
    member::{Member, Membership},
    open::Lock,
    topics::{TopicState, Topics},
};
use crate::{
    PartitionHandler,
    reader::{Follower, FollowerCommand, Reader},
};

/// How often a reader looks for a topic that does not exist.
const TOPIC_CHECK_INTERVAL: Duration = Duration::from_millis(50);

/// See [`Log::join_group`](crate::Log::join_group).
pub(super) fn join_group<H: PartitionHandler>(
    source: TopicSource,
    membership: Membership,
    handler: H,
) -> Reader {
    let status = Arc::clone(&membership.signs);
    Reader::spawn("embedded-reader", &status, move |stop| {
        source.run_driver(handler, ReaderRole::Member(membership), stop);
    })
}

/// See [`Log::follow_topic`](crate::Log::follow_topic).
pub(super) fn follow_topic<H: PartitionHandler>(source: TopicSource, handler: H) -> Follower {
    Follower::spawn("embedded-follower", move |stop, commands| {
        source.run_driver(handler, ReaderRole::Follower(commands), stop);
    })
}

enum ReaderRole {
    /// Reads every partition.
    Member(Membership),
    /// Reads the partitions that its commands assign.
    Follower(UnboundedReceiver<FollowerCommand>),
}

/// The topic to read, and the file that holds it.
pub(super) struct TopicSource {
    pub(super) path: PathBuf,
    pub(super) topics: Arc<Topics>,
    /// Keeps the file locked while the reader runs.
    pub(super) lock: Option<Arc<Lock>>,
    pub(super) topic: String,
}

impl TopicSource {
    fn run_driver<H: PartitionHandler>(self, handler: H, role: ReaderRole, stop: &AtomicBool) {
        // A runtime of its own: the handler keeps the thread busy, and other tasks must not wait.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = await_topic(&self.topics, &self.topic, stop).await {
                    let (member, commands) = match role {
                        ReaderRole::Follower(commands) => (None, Some(commands)),
                        ReaderRole::Member(membership) => {
                            let topics = Arc::clone(&self.topics);
                            (Some(Member::new(membership, &self.topic, topics)), None)
                        }
                    };
                    let (path, topic) = (self.path, self.topic);
                    EmbeddedDriver::new(path, topic, state, handler, member, commands, stop)
                        .run()
                        .await;
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
        if let Some(topic) = topics.get(name) {
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
