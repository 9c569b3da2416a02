//! Readers: a thread and a runtime for each, for as long as it is wanted.

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
    folding::Folding,
    open::FileLock,
    progress::FileOffsets,
    topics::{TopicState, Topics},
};
use crate::{
    PartitionHandler, commits,
    dlq::DlqWriter,
    offset_tracker::OffsetTracker,
    reader::{Command, Follower, Reader, ReaderStatus},
};

/// How often a topic that does not exist is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);
/// How long the end of a member waits for its last copies and commits.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(3);

/// See [`Log::join`](crate::Log::join).
pub(super) fn join<F: PartitionHandler>(source: Source, membership: Membership, fold: F) -> Reader {
    let Membership { tracker, offsets, dlq, status } = membership;
    Reader::spawn("log-reader", &status, move |stop| {
        if let Err(error) = commits::start_workers(&tracker, offsets, dlq) {
            tracing::error!(%error, "cannot start the threads that commit offsets and copy poison records");
        }
        source.run(fold, Role::Member(Arc::clone(&tracker)), stop);
        tracker.close(CLOSE_TIMEOUT);
    })
}

/// See [`Log::follow`](crate::Log::follow).
pub(super) fn follow<F: PartitionHandler>(source: Source, fold: F) -> Follower {
    Follower::spawn("log-follower", move |stop, commands| {
        source.run(fold, Role::Follower(commands), stop);
    })
}

/// The one member of a group.
pub(super) struct Membership {
    pub(super) tracker: Arc<OffsetTracker>,
    pub(super) offsets: FileOffsets,
    pub(super) dlq: Option<DlqWriter>,
    pub(super) status: Arc<ReaderStatus>,
}

/// Who reads.
enum Role {
    /// Every partition.
    Member(Arc<OffsetTracker>),
    /// What it is told.
    Follower(UnboundedReceiver<Command>),
}

/// What is read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) topics: Arc<Topics>,
    /// The file is in use for as long as this lives.
    pub(super) lock: Option<Arc<FileLock>>,
    pub(super) topic: String,
}

impl Source {
    fn run<F: PartitionHandler>(self, fold: F, role: Role, stop: &AtomicBool) {
        // A runtime of its own: folding blocks its thread, and must not wait for anyone else.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = find(&self.topics, &self.topic, stop).await {
                    let (tracker, commands) = match role {
                        Role::Follower(commands) => (None, Some(commands)),
                        Role::Member(tracker) => (Some(tracker), None),
                    };
                    let (path, topic) = (self.path, self.topic);
                    Folding::new(path, topic, state, fold, tracker, commands, stop).run().await;
                }
            }),
            Err(error) => tracing::error!(%error, "no runtime for the reader of the log"),
        }
        // The file was in use until now.
        drop(self.lock);
    }
}

/// The topic; waited for, should it not be there yet.
async fn find(topics: &Topics, name: &str, stop: &AtomicBool) -> Option<Arc<TopicState>> {
    let mut told = false;
    while !stop.load(Ordering::Acquire) {
        if let Some(topic) = topics.get(name) {
            return Some(topic);
        }
        if !told {
            tracing::warn!(log.topic = name, "there is no such topic; waiting for it");
            told = true;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
    None
}
