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
    member::{Member, Membership},
    open::Lock,
    topics::{TopicState, Topics},
};
use crate::{
    PartitionHandler,
    reader::{Command, Follower, Reader},
};

/// How often a topic that does not exist is looked for.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See [`Log::join`](crate::Log::join).
pub(super) fn join<F: PartitionHandler>(source: Source, membership: Membership, fold: F) -> Reader {
    let signs = Arc::clone(&membership.signs);
    Reader::spawn("log-reader", &signs, move |stop| {
        source.run(fold, Role::Member(membership), stop);
    })
}

/// See [`Log::follow`](crate::Log::follow).
pub(super) fn follow<F: PartitionHandler>(source: Source, fold: F) -> Follower {
    Follower::spawn("log-follower", move |stop, commands| {
        source.run(fold, Role::Follower(commands), stop);
    })
}

/// Who reads.
enum Role {
    /// Every partition.
    Member(Membership),
    /// What it is told.
    Follower(UnboundedReceiver<Command>),
}

/// What is read.
pub(super) struct Source {
    pub(super) path: PathBuf,
    pub(super) topics: Arc<Topics>,
    /// The file is in use for as long as this lives.
    pub(super) lock: Option<Arc<Lock>>,
    pub(super) topic: String,
}

impl Source {
    fn run<F: PartitionHandler>(self, fold: F, role: Role, stop: &AtomicBool) {
        // A runtime of its own: folding blocks its thread, and must not wait for anyone else.
        match tokio::runtime::Builder::new_current_thread().enable_time().build() {
            Ok(runtime) => runtime.block_on(async {
                if let Some(state) = find(&self.topics, &self.topic, stop).await {
                    let (member, commands) = match role {
                        Role::Follower(commands) => (None, Some(commands)),
                        Role::Member(membership) => {
                            let topics = Arc::clone(&self.topics);
                            (Some(Member::new(membership, &self.topic, topics)), None)
                        }
                    };
                    let (path, topic) = (self.path, self.topic);
                    Folding::new(path, topic, state, fold, member, commands, stop).run().await;
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
