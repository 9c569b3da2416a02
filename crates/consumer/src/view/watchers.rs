//! Who is watched: the users of a partition for whom a stream is open or a request waits.
//!
//! A fold that changed something of a user wakes those who watch that user, and nobody else. What
//! is new they read from the view: nothing is queued for them, so a slow reader costs no memory.
//! Only receipts leave no trace in an inbox that could be read later; the newest few of a watched
//! user are kept for that.

use std::{
    collections::{HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use model::{Receipt, UserId};
use parking_lot::Mutex;
use tokio::sync::watch;

/// Receipts that are kept for those who watch a user. Who falls behind by more is told the whole
/// state instead.
const RECEIPTS_KEPT: usize = 16;

/// Everybody who is watched in one partition.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    watched: Mutex<HashMap<UserId, Watched>>,
    /// As many as there are in the map, so that a fold need not lock it when there are none.
    ///
    /// Relaxed is enough: who watches counts themselves in before they read the partition's state,
    /// and a fold looks here after it wrote that state; the state's lock orders the two.
    count: AtomicUsize,
}

/// A user who is watched.
#[derive(Debug)]
struct Watched {
    news: watch::Sender<()>,
    /// By offset in the receipts' topic, oldest first.
    receipts: VecDeque<(i64, Arc<Receipt>)>,
    /// The offset of the newest receipt that is not kept any more; −1 before any.
    forgotten: i64,
}

/// What recipients did while somebody watched.
#[derive(Debug)]
pub(super) enum Receipts {
    /// Everything after the offset that was asked for, oldest first.
    Known(Vec<(i64, Arc<Receipt>)>),
    /// Some of it is not kept any more.
    Forgotten,
}

/// Watches one user, until it is dropped.
#[derive(Debug)]
pub(super) struct Watch {
    watchers: Arc<Watchers>,
    user: UserId,
    /// Always there, except while it is dropped.
    news: Option<watch::Receiver<()>>,
}

impl Watchers {
    /// Begins to watch this user. To be called before the state is read from which on every change
    /// must be noticed.
    pub(super) fn watch(self: &Arc<Self>, user: UserId) -> Watch {
        let mut watched = self.watched.lock();
        let entry = watched.entry(user).or_insert_with(|| Watched {
            news: watch::Sender::new(()),
            receipts: VecDeque::new(),
            forgotten: -1,
        });
        let news = Some(entry.news.subscribe());
        self.count.store(watched.len(), Ordering::Relaxed);
        Watch { watchers: Arc::clone(self), user, news }
    }

    /// Something of this user has changed.
    pub(super) fn wake(&self, user: UserId) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(watched) = self.watched.lock().get(&user) {
            watched.news.send_replace(());
        }
    }

    /// The receipt at this offset has been folded.
    pub(super) fn wake_for(&self, receipt: Receipt, offset: i64) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut watched = self.watched.lock();
        let Some(watched) = watched.get_mut(&receipt.user_id) else { return };
        if watched.receipts.len() == RECEIPTS_KEPT
            && let Some((forgotten, _)) = watched.receipts.pop_front()
        {
            watched.forgotten = forgotten;
        }
        watched.receipts.push_back((offset, Arc::new(receipt)));
        watched.news.send_replace(());
    }

    /// Nobody is watched here from now on; who watched is told that it is over.
    pub(super) fn end(&self) {
        let ended = std::mem::take(&mut *self.watched.lock());
        self.count.store(0, Ordering::Relaxed);
        drop(ended);
    }

    /// How many users are watched.
    #[cfg(test)]
    pub(super) fn count(&self) -> usize {
        self.count.load(Ordering::Relaxed)
    }
}

impl Watch {
    /// How many watch the same user, this one included.
    pub(super) fn readers(&self) -> usize {
        let watched = self.watchers.watched.lock();
        watched.get(&self.user).map_or(0, |watched| watched.news.receiver_count())
    }

    /// Resolves when something of the user has changed since the last time; false when the
    /// partition is not ours any more.
    pub(super) async fn changed(&mut self) -> bool {
        match &mut self.news {
            Some(news) => news.changed().await.is_ok(),
            None => false,
        }
    }

    /// What recipients did after the receipt at this offset.
    pub(super) fn receipts_after(&self, offset: i64) -> Receipts {
        let watched = self.watchers.watched.lock();
        let Some(watched) = watched.get(&self.user) else { return Receipts::Known(Vec::new()) };
        if watched.forgotten > offset {
            return Receipts::Forgotten;
        }
        let new = watched.receipts.iter().filter(|(at, _)| *at > offset);
        Receipts::Known(new.map(|(at, receipt)| (*at, Arc::clone(receipt))).collect())
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        let mut watched = self.watchers.watched.lock();
        // Under the lock, so that of two who leave at once one is the last.
        self.news = None;
        if watched.get(&self.user).is_some_and(|watched| watched.news.receiver_count() == 0) {
            watched.remove(&self.user);
            self.watchers.count.store(watched.len(), Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use model::Action;

    fn user(id: i64) -> UserId {
        UserId::new(id).expect("positive")
    }

    fn receipt(of: i64) -> Receipt {
        Receipt { user_id: user(of), action: Action::Read, ids: Vec::new() }
    }

    #[tokio::test]
    async fn only_who_watches_a_user_is_woken_for_that_user() {
        let watchers = Arc::new(Watchers::default());
        let mut one = watchers.watch(user(1));
        let mut two = watchers.watch(user(2));
        watchers.wake(user(1));
        watchers.wake(user(3));
        assert!(one.changed().await);
        assert_eq!(futures_util::FutureExt::now_or_never(two.changed()), None);
        watchers.end();
        assert!(!two.changed().await);
    }

    #[test]
    fn nobody_is_left_when_the_last_has_left() {
        let watchers = Arc::new(Watchers::default());
        let (one, other) = (watchers.watch(user(1)), watchers.watch(user(1)));
        assert_eq!((watchers.count(), one.readers()), (1, 2));
        drop(one);
        assert_eq!((watchers.count(), other.readers()), (1, 1));
        drop(other);
        assert_eq!(watchers.count(), 0);
    }

    #[test]
    fn who_falls_behind_by_more_receipts_than_are_kept_is_told_so() {
        let watchers = Arc::new(Watchers::default());
        let watch = watchers.watch(user(1));
        for offset in 0..=RECEIPTS_KEPT {
            watchers.wake_for(receipt(1), offset.try_into().expect("small"));
        }
        assert!(matches!(watch.receipts_after(-1), Receipts::Forgotten));
        let Receipts::Known(kept) = watch.receipts_after(0) else {
            unreachable!("all after the first are kept")
        };
        assert_eq!(kept.len(), RECEIPTS_KEPT);
    }
}
