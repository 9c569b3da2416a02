//! Readers that wait for changes of one user: open streams and waiting requests.
//!
//! A record that changes a user's inbox wakes the readers that watch this user, and no others. They
//! then read the change from the view: the view queues no event for a reader, so a slow reader costs no
//! memory. Only receipts cannot be read from an inbox afterwards, so the newest few of a watched user
//! are kept here.

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

/// The most receipts kept for a watched user. A reader that is further behind gets the whole read
/// state instead.
const MAX_RECEIPTS: usize = 16;

/// The watched users of one partition.
#[derive(Debug, Default)]
pub(super) struct Watchers {
    users: Mutex<HashMap<UserId, WatchedUser>>,
    /// Length of the map, so that applying a record need not lock it while no user is watched.
    ///
    /// Relaxed is enough: a reader registers before it reads the partition's state, and the applying
    /// thread looks here after it has written that state. The state's lock orders the two.
    user_count: AtomicUsize,
}

#[derive(Debug)]
struct WatchedUser {
    changes: watch::Sender<()>,
    /// The newest receipts by offset in their topic, oldest first.
    receipts: VecDeque<(i64, Arc<Receipt>)>,
    /// Offset of the newest receipt that was dropped from `receipts`; −1 before any.
    last_dropped: i64,
}

/// Watches one user until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    watchers: Arc<Watchers>,
    user: UserId,
    /// `None` only while this is dropped.
    changes: Option<watch::Receiver<()>>,
}

impl Watchers {
    /// Watches this user. A reader must call this before it reads the inbox, to miss no change.
    pub(super) fn watch_user(self: &Arc<Self>, user: UserId) -> Watcher {
        let mut users = self.users.lock();
        let watched = users.entry(user).or_insert_with(|| WatchedUser {
            changes: watch::Sender::new(()),
            receipts: VecDeque::new(),
            last_dropped: -1,
        });
        let changes = Some(watched.changes.subscribe());
        self.user_count.store(users.len(), Ordering::Relaxed);
        Watcher { watchers: Arc::clone(self), user, changes }
    }

    /// Wakes the readers of this user.
    pub(super) fn wake_readers(&self, user: UserId) {
        if self.user_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        if let Some(watched) = self.users.lock().get(&user) {
            watched.changes.send_replace(());
        }
    }

    /// Wakes the readers of all users.
    pub(super) fn wake_all(&self) {
        for watched in self.users.lock().values() {
            watched.changes.send_replace(());
        }
    }

    /// Keeps a receipt for the readers of its user, and wakes them.
    pub(super) fn push_receipt(&self, receipt: Receipt, offset: i64) {
        if self.user_count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let mut users = self.users.lock();
        let Some(watched) = users.get_mut(&receipt.user_id) else { return };
        if watched.receipts.len() == MAX_RECEIPTS
            && let Some((dropped, _)) = watched.receipts.pop_front()
        {
            watched.last_dropped = dropped;
        }
        watched.receipts.push_back((offset, Arc::new(receipt)));
        watched.changes.send_replace(());
    }

    /// Ends every watcher: the partition was revoked.
    pub(super) fn end_all(&self) {
        let ended = std::mem::take(&mut *self.users.lock());
        self.user_count.store(0, Ordering::Relaxed);
        drop(ended);
    }
}

impl Watcher {
    /// Number of readers that watch the same user, this one included.
    pub(super) fn reader_count(&self) -> usize {
        let users = self.watchers.users.lock();
        users.get(&self.user).map_or(0, |watched| watched.changes.receiver_count())
    }

    /// Waits for the next change of the user. Returns false once the partition was revoked.
    pub(super) async fn wait_for_change(&mut self) -> bool {
        match &mut self.changes {
            Some(changes) => changes.changed().await.is_ok(),
            None => false,
        }
    }

    /// The user's receipts after this offset, oldest first. `None` if some of them were dropped.
    pub(super) fn receipts_after(&self, offset: i64) -> Option<Vec<(i64, Arc<Receipt>)>> {
        let users = self.watchers.users.lock();
        let Some(watched) = users.get(&self.user) else { return Some(Vec::new()) };
        let new = watched.receipts.iter().filter(|(at, _)| *at > offset);
        (watched.last_dropped <= offset).then(|| new.cloned().collect())
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut users = self.watchers.users.lock();
        // Under the lock, so that of two readers that leave at once one is the last.
        self.changes = None;
        if users.get(&self.user).is_some_and(|watched| watched.changes.receiver_count() == 0) {
            users.remove(&self.user);
            self.watchers.user_count.store(users.len(), Ordering::Relaxed);
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
    async fn only_readers_of_a_user_are_woken_for_that_user() {
        let watchers = Arc::new(Watchers::default());
        let mut one = watchers.watch_user(user(1));
        let mut two = watchers.watch_user(user(2));
        watchers.wake_readers(user(1));
        watchers.wake_readers(user(3));
        assert!(one.wait_for_change().await);
        assert_eq!(futures_util::FutureExt::now_or_never(two.wait_for_change()), None);
        watchers.end_all();
        assert!(!two.wait_for_change().await);
    }

    #[test]
    fn a_user_is_watched_until_the_last_reader_leaves() {
        let watchers = Arc::new(Watchers::default());
        let (one, other) = (watchers.watch_user(user(1)), watchers.watch_user(user(1)));
        assert_eq!((watchers.user_count.load(Ordering::Relaxed), one.reader_count()), (1, 2));
        drop(one);
        assert_eq!((watchers.user_count.load(Ordering::Relaxed), other.reader_count()), (1, 1));
        drop(other);
        assert_eq!(watchers.user_count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reader_that_is_behind_by_more_receipts_than_are_kept_learns_of_it() {
        let watchers = Arc::new(Watchers::default());
        let watch = watchers.watch_user(user(1));
        for offset in 0..=MAX_RECEIPTS {
            watchers.push_receipt(receipt(1), offset.try_into().expect("small"));
        }
        assert!(watch.receipts_after(-1).is_none());
        let kept = watch.receipts_after(0).expect("all after the first are kept");
        assert_eq!(kept.len(), MAX_RECEIPTS);
    }
}
