//! The inboxes of one partition, behind one lock, and what state the partition is in.
//!
//! The lock is `parking_lot`'s: it is held for as long as one record is added or one page's handles
//! are cloned, never across an await, and writers of one partition never stop readers of another.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use log::Extent;
use model::{Cursor, UserId};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{
    entry::Entry,
    inbox::{Added, Inbox, Limits},
    page::{Item, Page},
};

/// One partition of the view.
#[derive(Debug)]
pub struct Partition {
    state: RwLock<State>,
    /// Touched after every change that somebody may wait for, if somebody does.
    changed: watch::Sender<()>,
}

#[derive(Debug, Default)]
enum State {
    /// Another instance's, or nobody's.
    #[default]
    Unowned,
    /// Ours, and being read from its beginning. Nobody is answered from it.
    Rebuilding(Rebuild, Inboxes),
    /// Ours, and as new as the log.
    Live(Inboxes),
}

#[derive(Debug)]
struct Rebuild {
    since: Instant,
    extent: Option<Extent>,
}

/// The inboxes of a partition that is ours.
#[derive(Debug)]
pub struct Inboxes {
    users: HashMap<UserId, Inbox>,
    /// The offset of the last record that was folded; one below the first that the log has, or
    /// −1, before any.
    last: i64,
}

/// A partition cannot answer now.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum NotLive {
    /// It is not this instance's.
    #[error("partition {partition}, where this inbox lives, is not owned by this instance")]
    Unowned {
        /// The partition.
        partition: i32,
    },
    /// It is being read from its beginning.
    #[error("partition {partition}, where this inbox lives, is being rebuilt")]
    Rebuilding {
        /// The partition.
        partition: i32,
        /// How far it is.
        progress: Progress,
    },
}

/// How far a rebuild is.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
pub struct Progress {
    /// Records read so far; offsets that the log skips count as read.
    pub records: u64,
    /// Records there were at the assignment; unknown for the first moment.
    pub total: Option<u64>,
    /// 0 to 100; unknown while `total` is.
    pub percent: Option<f64>,
    /// Since the assignment.
    pub records_per_second: f64,
    /// At the present rate; unknown while `total` is.
    pub seconds_left: Option<f64>,
}

/// What a partition is doing, for people and probes.
#[derive(Debug, Clone, Copy, PartialEq, serde::Serialize)]
#[serde(tag = "state", rename_all = "lowercase")]
pub enum Status {
    /// Not ours.
    Unowned,
    /// Being read.
    Rebuilding(Progress),
    /// Answering.
    Live {
        /// Users with an inbox.
        users: usize,
        /// The last offset that was folded.
        position: i64,
    },
}

impl Default for Partition {
    fn default() -> Self {
        Self { state: RwLock::default(), changed: watch::Sender::new(()) }
    }
}

impl Partition {
    /// What the partition is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        match &*self.state.read() {
            State::Unowned => Status::Unowned,
            State::Rebuilding(rebuild, inboxes) => Status::Rebuilding(rebuild.progress(inboxes.last)),
            State::Live(inboxes) => {
                Status::Live { users: inboxes.users.len(), position: inboxes.last }
            }
        }
    }

    /// Reads, when the partition is live now.
    pub fn if_live<R>(&self, read: impl FnOnce(&Inboxes) -> R) -> Option<R> {
        match &*self.state.read() {
            State::Live(inboxes) => Some(read(inboxes)),
            State::Unowned | State::Rebuilding(..) => None,
        }
    }

    /// Reads as soon as the partition is live, waiting for that for at most `patience`.
    ///
    /// # Errors
    /// [`NotLive`], when it is not live even then.
    pub async fn when_live<R>(
        &self,
        number: i32,
        patience: Duration,
        read: impl Fn(&Inboxes) -> R,
    ) -> Result<R, NotLive> {
        if let Some(found) = self.if_live(&read) {
            return Ok(found);
        }
        // Subscribed before the second look, so that no change can slip through between.
        let mut changed = self.changed.subscribe();
        let wait = async {
            loop {
                if let Some(found) = self.if_live(&read) {
                    return found;
                }
                if changed.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
            }
        };
        tokio::time::timeout(patience, wait).await.map_err(|_| self.not_live(number))
    }

    fn not_live(&self, partition: i32) -> NotLive {
        match &*self.state.read() {
            State::Unowned => NotLive::Unowned { partition },
            State::Rebuilding(rebuild, inboxes) => {
                NotLive::Rebuilding { partition, progress: rebuild.progress(inboxes.last) }
            }
            // It became live just now; whoever asks again is answered.
            State::Live(inboxes) => NotLive::Rebuilding {
                partition,
                progress: Rebuild { since: Instant::now(), extent: None }.progress(inboxes.last),
            },
        }
    }

    /// The partition is ours, and empty until its records come.
    pub(super) fn assign(&self) {
        let inboxes = Inboxes { users: HashMap::new(), last: -1 };
        let rebuild = Rebuild { since: Instant::now(), extent: None };
        self.change(State::Rebuilding(rebuild, inboxes));
    }

    /// How much there is to read.
    pub(super) fn set_extent(&self, extent: Extent) {
        match &mut *self.state.write() {
            State::Rebuilding(rebuild, inboxes) => {
                rebuild.extent = Some(extent);
                inboxes.last = inboxes.last.max(extent.low - 1);
            }
            State::Live(inboxes) => inboxes.last = inboxes.last.max(extent.low - 1),
            State::Unowned => {}
        }
    }

    /// Adds an entry to a user's inbox. None: the partition is not ours.
    pub(super) fn add(&self, user: UserId, entry: Entry, limits: Limits) -> Option<Added> {
        let added = self.write(|inboxes| {
            inboxes.last = entry.offset;
            inboxes.users.entry(user).or_default().add(entry, limits)
        });
        self.touch();
        added
    }

    /// Notes a record that is in nobody's inbox.
    pub(super) fn skip(&self, offset: i64) {
        self.write(|inboxes| inboxes.last = offset);
        self.touch();
    }

    /// From now on the partition answers. How long its rebuild took; none if it was not rebuilding.
    pub(super) fn go_live(&self) -> Option<Duration> {
        let mut state = self.state.write();
        let taken = std::mem::take(&mut *state);
        let (now, took) = match taken {
            State::Rebuilding(rebuild, inboxes) => {
                (State::Live(inboxes), Some(rebuild.since.elapsed()))
            }
            other @ (State::Unowned | State::Live(_)) => (other, None),
        };
        *state = now;
        drop(state);
        self.touch();
        took
    }

    /// From now on the partition does not answer. What it held is returned, to be freed where
    /// nobody waits for it.
    pub(super) fn revoke(&self) -> Option<Inboxes> {
        match self.change(State::Unowned) {
            State::Unowned => None,
            State::Rebuilding(_, inboxes) | State::Live(inboxes) => Some(inboxes),
        }
    }

    fn change(&self, state: State) -> State {
        let old = std::mem::replace(&mut *self.state.write(), state);
        self.touch();
        old
    }

    fn write<R>(&self, write: impl FnOnce(&mut Inboxes) -> R) -> Option<R> {
        match &mut *self.state.write() {
            State::Rebuilding(_, inboxes) | State::Live(inboxes) => Some(write(inboxes)),
            State::Unowned => None,
        }
    }

    fn touch(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }
}

impl Inboxes {
    /// The whole inbox of this user; empty when there is none.
    pub(super) fn page(&self, partition: i32, user: UserId) -> Page {
        let inbox = self.users.get(&user);
        let item = |entry: &Entry| Item {
            at: Cursor::new(partition, entry.offset),
            sent_at_ms: entry.sent_at_ms,
            json: entry.json.clone(),
        };
        Page {
            items: inbox.map(|inbox| inbox.entries().map(item).collect()).unwrap_or_default(),
            unread: inbox.map_or(0, Inbox::unread),
            cursor: Cursor::new(partition, self.last),
        }
    }
}

impl Rebuild {
    fn progress(&self, last: i64) -> Progress {
        let span = |from: i64, to: i64| u64::try_from(to - from).unwrap_or(0);
        let low = self.extent.map_or(0, |extent| extent.low);
        let records = span(low, last + 1);
        let total = self.extent.map(|extent| span(extent.low, extent.high));
        #[allow(clippy::cast_precision_loss)] // shown to people, with two digits
        let (done, all) = (records as f64, total.map(|total| total as f64));
        let rate = done / self.since.elapsed().as_secs_f64().max(0.001);
        Progress {
            records,
            total,
            percent: all.map(|all| if all > 0.0 { (100.0 * done / all).min(100.0) } else { 100.0 }),
            records_per_second: rate.round(),
            seconds_left: all.filter(|_| rate > 0.0).map(|all| ((all - done) / rate).max(0.0).round()),
        }
    }
}
