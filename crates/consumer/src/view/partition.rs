//! The inboxes of one partition, behind one lock, and what state the partition is in.
//!
//! The lock is `parking_lot`'s: it is held for as long as one record is added or one page's handles
//! are cloned, never across an await, and writers of one partition never stop readers of another.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use event_log::{RecordAnchor, StartAt, Watermarks};
use model::{Receipt, UserId};
use parking_lot::RwLock;
use tokio::sync::watch;

use super::{
    inbox::Totals,
    inboxes::Inboxes,
    rebuild::{Progress, Rebuild, Source},
    snapshot::Restored,
    watchers::{Watch, Watchers},
};

/// One partition of the view.
#[derive(Debug)]
pub struct Partition {
    state: RwLock<State>,
    /// Touched after every change that somebody may wait for, if somebody does.
    changed: watch::Sender<()>,
    watchers: Arc<Watchers>,
    /// Entries that were evicted, and that expired, at earlier assignments.
    gone: [AtomicU64; 2],
}

/// What a partition holds, live or not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Held {
    /// Users with an inbox.
    pub users: usize,
    /// What their inboxes hold. What left them is counted since the process began.
    pub tally: Totals,
}

/// What came of folding a record.
pub(super) struct Folded<R> {
    pub(super) what: R,
    /// Whether the partition answers, so that somebody may have waited for this.
    pub(super) live: bool,
}

/// What a partition held when it was revoked.
#[derive(Default)]
pub(super) struct Released {
    /// To be freed where nobody waits for it.
    pub(super) inboxes: Option<Inboxes>,
    /// Whether it was live, so that this is all that the log had.
    pub(super) whole: bool,
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
    /// It has not come as far as it was asked for.
    #[error("partition {partition}, where this inbox lives, has not come so far yet")]
    Behind {
        /// The partition.
        partition: i32,
        /// How far it is.
        position: i64,
    },
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
        /// The last offset that was folded; −1 before any.
        position: i64,
    },
}

impl Default for Partition {
    fn default() -> Self {
        Self {
            state: RwLock::default(),
            changed: watch::Sender::new(()),
            watchers: Arc::default(),
            gone: Default::default(),
        }
    }
}

impl Partition {
    /// What the partition is doing.
    #[must_use]
    pub fn status(&self) -> Status {
        match &*self.state.read() {
            State::Unowned => Status::Unowned,
            State::Rebuilding(rebuild, _) => Status::Rebuilding(rebuild.progress()),
            State::Live(inboxes) => {
                Status::Live { users: inboxes.users(), position: inboxes.last() }
            }
        }
    }

    /// What the partition holds. Takes as long however much that is.
    #[must_use]
    pub fn held(&self) -> Held {
        let state = self.state.read();
        let mut held = match &*state {
            State::Unowned => Held::default(),
            State::Rebuilding(_, inboxes) | State::Live(inboxes) => {
                Held { users: inboxes.users(), tally: inboxes.tally() }
            }
        };
        held.tally.evicted += self.gone[0].load(Ordering::Relaxed);
        held.tally.expired += self.gone[1].load(Ordering::Relaxed);
        held
    }

    /// Whether the partition answers.
    #[must_use]
    pub fn is_live(&self) -> bool {
        matches!(&*self.state.read(), State::Live(_))
    }

    /// Whether this instance owns the partition, live or not.
    #[must_use]
    pub fn is_owned(&self) -> bool {
        !matches!(&*self.state.read(), State::Unowned)
    }

    /// Reads, when the partition is live now.
    pub fn if_live<R>(&self, read: impl FnOnce(&Inboxes) -> R) -> Option<R> {
        match &*self.state.read() {
            State::Live(inboxes) => Some(read(inboxes)),
            State::Unowned | State::Rebuilding(..) => None,
        }
    }

    /// Reads as soon as the partition is live and `read` finds what it looks for, waiting for that
    /// for at most `patience`.
    ///
    /// # Errors
    /// [`NotLive`], when it is not so even then.
    pub async fn when<R>(
        &self,
        number: i32,
        patience: Duration,
        read: impl Fn(&Inboxes) -> Option<R>,
    ) -> Result<R, NotLive> {
        let found = self.until(|| self.if_live(&read).flatten());
        tokio::time::timeout(patience, found).await.map_err(|_| self.not_live(number))
    }

    /// Waits until the partition is ours, live or not.
    pub async fn owned(&self) {
        self.until(|| self.is_owned().then_some(())).await;
    }

    /// Begins to watch this user; see [`Watchers::watch`].
    pub(super) fn watch(&self, user: UserId) -> Watch {
        self.watchers.watch(user)
    }

    async fn until<R>(&self, look: impl Fn() -> Option<R>) -> R {
        if let Some(found) = look() {
            return found;
        }
        // Subscribed before the next look, so that no change can slip through between.
        let mut changed = self.changed.subscribe();
        loop {
            if let Some(found) = look() {
                return found;
            }
            if changed.changed().await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }

    pub(super) fn not_live(&self, partition: i32) -> NotLive {
        match &*self.state.read() {
            State::Unowned => NotLive::Unowned { partition },
            State::Rebuilding(rebuild, _) => {
                NotLive::Rebuilding { partition, progress: rebuild.progress() }
            }
            State::Live(inboxes) => NotLive::Behind { partition, position: inboxes.last() },
        }
    }

    /// The partition is ours, and empty until its records come, or as a snapshot has it. Returns
    /// where its notifications begin.
    pub(super) fn assign(&self, restored: Option<Restored>) -> StartAt {
        let (rebuild, inboxes) = restored.map_or_else(Default::default, |restored| {
            (Rebuild::on(restored.entries), restored.inboxes)
        });
        self.change(State::Rebuilding(rebuild, inboxes));
        self.follow(Source::Notifications)
    }

    /// Its records of this kind follow from where this says.
    pub(super) fn follow(&self, source: Source) -> StartAt {
        match &mut *self.state.write() {
            State::Rebuilding(rebuild, inboxes) => {
                let start = inboxes.start(source);
                let from = match start {
                    StartAt::Beginning => None,
                    StartAt::After(mark) => Some(mark.offset + 1),
                };
                rebuild.follow(source, from);
                start
            }
            State::Live(_) | State::Unowned => StartAt::Beginning,
        }
    }

    /// What it holds is not what the log of this topic holds: it must not go live, and is to start
    /// over. Returns whether it came from a snapshot. A word that is of an earlier assignment says
    /// nothing.
    pub(super) fn set_void(&self, source: Source) -> bool {
        match &mut *self.state.write() {
            State::Rebuilding(rebuild, _) if !rebuild.has_begun(source) => false,
            State::Rebuilding(_, inboxes) | State::Live(inboxes) => {
                inboxes.set_void();
                inboxes.restored
            }
            State::Unowned => false,
        }
    }

    /// Whether it has to start over.
    pub(super) fn is_void(&self) -> bool {
        match &*self.state.read() {
            State::Rebuilding(_, inboxes) | State::Live(inboxes) => inboxes.is_void(),
            State::Unowned => false,
        }
    }

    /// How much there is to read.
    pub(super) fn set_extent(&self, source: Source, extent: Watermarks) {
        match &mut *self.state.write() {
            State::Rebuilding(rebuild, inboxes) => {
                rebuild.set_extent(source, extent);
                inboxes.set_low(source, extent.low);
            }
            State::Live(inboxes) => inboxes.set_low(source, extent.low),
            State::Unowned => {}
        }
    }

    /// Folds the record at this offset; its mark, where snapshots are kept. None: the partition is
    /// not ours, or was assigned again and the record is from before that.
    pub(super) fn fold<R>(
        &self,
        source: Source,
        offset: i64,
        mark: Option<RecordAnchor>,
        fold: impl FnOnce(&mut Inboxes) -> R,
    ) -> Option<Folded<R>> {
        let folded = match &mut *self.state.write() {
            State::Rebuilding(rebuild, inboxes) if rebuild.has_begun(source) => {
                rebuild.advance(source, offset);
                let folded = Folded { what: fold(inboxes), live: false };
                inboxes.advance(source, offset, mark);
                folded
            }
            State::Live(inboxes) => {
                let folded = Folded { what: fold(inboxes), live: true };
                inboxes.advance(source, offset, mark);
                folded
            }
            State::Rebuilding(..) | State::Unowned => return None,
        };
        self.touch();
        Some(folded)
    }

    /// Those who watch this user are told that a notification was folded.
    pub(super) fn wake(&self, user: UserId) {
        self.watchers.wake(user);
    }

    /// Those who watch its user are told that the receipt at this offset was folded.
    pub(super) fn wake_for(&self, receipt: Receipt, offset: i64) {
        self.watchers.wake_for(receipt, offset);
    }

    /// Changes the inboxes of a live partition without a record.
    pub(super) fn tidy(&self, tidy: impl FnOnce(&mut Inboxes)) {
        if let State::Live(inboxes) = &mut *self.state.write() {
            tidy(inboxes);
        }
    }

    /// All records of this kind that were there at the assignment are folded. When that is so of
    /// both kinds, the partition answers from now on: then, how long its rebuild took.
    pub(super) fn caught_up(&self, source: Source) -> Option<Duration> {
        let mut state = self.state.write();
        let taken = std::mem::take(&mut *state);
        let (now, took) = match taken {
            State::Rebuilding(mut rebuild, mut inboxes) => {
                if rebuild.has_begun(source) {
                    inboxes.caught_up(source);
                }
                if rebuild.caught_up(source) && !inboxes.is_void() {
                    (State::Live(inboxes), Some(rebuild.since.elapsed()))
                } else {
                    (State::Rebuilding(rebuild, inboxes), None)
                }
            }
            other @ (State::Unowned | State::Live(_)) => (other, None),
        };
        *state = now;
        drop(state);
        if took.is_some() {
            self.touch();
        }
        took
    }

    /// From now on the partition does not answer. What it held is returned, to be freed where
    /// nobody waits for it.
    pub(super) fn revoke(&self) -> Released {
        let held = match self.change(State::Unowned) {
            State::Unowned => Released::default(),
            State::Rebuilding(_, inboxes) => Released { inboxes: Some(inboxes), whole: false },
            State::Live(inboxes) => {
                let whole = !inboxes.is_void();
                Released { inboxes: Some(inboxes), whole }
            }
        };
        self.watchers.end();
        held
    }

    fn change(&self, state: State) -> State {
        let mut now = self.state.write();
        let old = std::mem::replace(&mut *now, state);
        if let State::Rebuilding(_, inboxes) | State::Live(inboxes) = &old {
            // Under the lock, so that their number never goes back.
            let Totals { evicted, expired, .. } = inboxes.tally();
            self.gone[0].fetch_add(evicted, Ordering::Relaxed);
            self.gone[1].fetch_add(expired, Ordering::Relaxed);
        }
        drop(now);
        self.touch();
        old
    }

    fn touch(&self) {
        if self.changed.receiver_count() > 0 {
            self.changed.send_replace(());
        }
    }
}
