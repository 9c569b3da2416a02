//! Readers that wait for changes of one user: open streams and waiting requests.
//!
//! A record that changes a user's inbox wakes the readers that watch this user, and no others. They
//! then read the change from the view: the view queues no event for a reader, so a slow reader costs no
//! memory. Only receipts cannot be read from an inbox afterwards, so the newest few of a watched user
//! are kept here. The thread that applies records only marks the user; a task wakes the readers.

use std::{
    collections::{HashMap, VecDeque, hash_map::Entry},
    future::poll_fn,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};

use bytes::Bytes;
use model::{Receipt, UserId};
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::feed::FeedEvent;
use crate::signal::{Signal, Waiter};

/// The most receipts kept for a watched user. A reader that is further behind gets the whole read
/// state instead.
const MAX_RECEIPTS: usize = 16;
/// Readers of one user from which on they share rendered events. Fewer render an event in less time
/// than the memory is worth.
const MIN_SHARING_READERS: usize = 16;
/// The most rendered events kept for a watched user.
const MAX_RENDERED: usize = 64;
/// The most bytes of them.
const MAX_RENDERED_BYTES: usize = 32 << 10;
/// Users whose readers are woken before other tasks of the same thread run.
const MAX_WOKEN_AT_ONCE: usize = 64;

/// The watched users of one partition.
#[derive(Debug)]
pub(super) struct Watchers {
    users: Mutex<HashMap<UserId, Arc<WatchedUser>>>,
    /// Length of the map, so that applying a record need not lock it while no user is watched.
    ///
    /// Relaxed is enough: a reader registers before it reads the partition's state, and the applying
    /// thread looks here after it has written that state. The state's lock orders the two.
    user_count: AtomicUsize,
    wakeups: Arc<Wakeups>,
}

/// The users of all partitions whose readers are to be woken.
#[derive(Debug, Default)]
pub(super) struct Wakeups {
    marked: Mutex<Vec<Arc<WatchedUser>>>,
    added: Notify,
}

#[derive(Debug, Default)]
struct WatchedUser {
    changes: Signal,
    /// True while this is among the marked ones.
    is_marked: AtomicBool,
    receipts: Mutex<RecentReceipts>,
    rendered: Mutex<RenderedEvents>,
}

#[derive(Debug)]
struct RecentReceipts {
    /// The newest receipts by offset in their topic, oldest first.
    newest: VecDeque<(i64, Arc<Receipt>)>,
    /// Offset of the newest receipt that was dropped from `newest`; −1 before any.
    last_dropped: i64,
}

impl Default for RecentReceipts {
    fn default() -> Self {
        Self { newest: VecDeque::new(), last_dropped: -1 }
    }
}

/// The newest events that were rendered for several readers, oldest first.
#[derive(Debug, Default)]
struct RenderedEvents {
    newest: VecDeque<(FeedEvent, &'static str, Bytes)>,
    bytes: usize,
}

/// Watches one user until it is dropped.
#[derive(Debug)]
pub(super) struct Watcher {
    watchers: Arc<Watchers>,
    user: UserId,
    watched: Arc<WatchedUser>,
    waiter: Waiter,
}

impl Wakeups {
    /// Wakes the readers of marked users, for ever.
    pub(super) async fn deliver(&self) {
        loop {
            self.added.notified().await;
            let marked = std::mem::take(&mut *self.marked.lock());
            for some in marked.chunks(MAX_WOKEN_AT_ONCE) {
                for watched in some {
                    // First, so that a change during the wake-up marks the user again.
                    watched.is_marked.store(false, Ordering::SeqCst);
                    watched.changes.notify_all();
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn mark(&self, watched: &Arc<WatchedUser>) {
        if watched.is_marked.swap(true, Ordering::SeqCst) {
            return;
        }
        let mut marked = self.marked.lock();
        marked.push(Arc::clone(watched));
        let is_first = marked.len() == 1;
        drop(marked);
        if is_first {
            self.added.notify_one();
        }
    }
}

impl Watchers {
    pub(super) fn new(wakeups: Arc<Wakeups>) -> Self {
        Self { users: Mutex::default(), user_count: AtomicUsize::new(0), wakeups }
    }

    /// Watches this user. A reader must call this before it reads the inbox, to miss no change.
    pub(super) fn watch_user(self: &Arc<Self>, user: UserId) -> Watcher {
        let mut users = self.users.lock();
        let watched = Arc::clone(users.entry(user).or_default());
        // Under the lock, so that no reader that leaves takes the user for unwatched.
        let waiter = watched.changes.join();
        self.user_count.store(users.len(), Ordering::Relaxed);
        Watcher { watchers: Arc::clone(self), user, watched, waiter }
    }

    /// Wakes the readers of this user.
    pub(super) fn wake_readers(&self, user: UserId) {
        if let Some(watched) = self.find_watched(user) {
            self.wakeups.mark(&watched);
        }
    }

    /// Wakes the readers of all users.
    pub(super) fn wake_all(&self) {
        self.users.lock().values().for_each(|watched| self.wakeups.mark(watched));
    }

    /// Keeps a receipt for the readers of its user, and wakes them.
    pub(super) fn push_receipt(&self, receipt: Receipt, offset: i64) {
        let Some(watched) = self.find_watched(receipt.user_id) else { return };
        let mut receipts = watched.receipts.lock();
        if receipts.newest.len() == MAX_RECEIPTS
            && let Some((dropped, _)) = receipts.newest.pop_front()
        {
            receipts.last_dropped = dropped;
        }
        receipts.newest.push_back((offset, Arc::new(receipt)));
        drop(receipts);
        self.wakeups.mark(&watched);
    }

    /// Ends every watcher: the partition was revoked.
    pub(super) fn end_all(&self) {
        let ended = std::mem::take(&mut *self.users.lock());
        self.user_count.store(0, Ordering::Relaxed);
        ended.values().for_each(|watched| watched.changes.close());
    }

    fn find_watched(&self, user: UserId) -> Option<Arc<WatchedUser>> {
        if self.user_count.load(Ordering::Relaxed) == 0 {
            return None;
        }
        self.users.lock().get(&user).cloned()
    }
}

impl Watcher {
    /// Number of readers that watch the same user, this one included.
    pub(super) fn reader_count(&self) -> usize {
        self.watched.changes.waiter_count()
    }

    /// Ready at the next change of the user: true, or false once the partition was revoked.
    pub(super) fn poll_change(&mut self, cx: &Context<'_>) -> Poll<bool> {
        self.watched.changes.poll(&mut self.waiter, cx)
    }

    /// Waits for the next change of the user. Returns false once the partition was revoked.
    pub(super) async fn wait_for_change(&mut self) -> bool {
        poll_fn(|cx| self.poll_change(cx)).await
    }

    /// The user's receipts after this offset, oldest first. `None` if some of them were dropped.
    pub(super) fn receipts_after(&self, offset: i64) -> Option<Vec<(i64, Arc<Receipt>)>> {
        let receipts = self.watched.receipts.lock();
        let new = receipts.newest.iter().filter(|(at, _)| *at > offset);
        (receipts.last_dropped <= offset).then(|| new.cloned().collect())
    }

    /// The bytes that `render` makes of this event in this format: rendered once for many readers of
    /// the user, because they all get the same.
    pub(super) fn share_rendered(
        &self,
        event: &FeedEvent,
        format: &'static str,
        render: impl FnOnce() -> Bytes,
    ) -> Bytes {
        if self.reader_count() < MIN_SHARING_READERS {
            return render();
        }
        let mut rendered = self.watched.rendered.lock();
        let is_it = |(known, in_format, _): &&(FeedEvent, &str, Bytes)| {
            *in_format == format && known.is_same_as(event)
        };
        if let Some((.., bytes)) = rendered.newest.iter().rev().find(is_it) {
            return bytes.clone();
        }
        let bytes = render();
        rendered.bytes += bytes.len();
        rendered.newest.push_back((event.clone(), format, bytes.clone()));
        while (rendered.newest.len() > MAX_RENDERED || rendered.bytes > MAX_RENDERED_BYTES)
            && let Some((.., dropped)) = rendered.newest.pop_front()
        {
            rendered.bytes -= dropped.len();
        }
        bytes
    }
}

impl Drop for Watcher {
    fn drop(&mut self) {
        let mut users = self.watchers.users.lock();
        // Under the lock, so that of two readers that leave at once one is the last.
        let was_last = self.watched.changes.leave(&self.waiter);
        if let Entry::Occupied(known) = users.entry(self.user)
            && was_last
            && Arc::ptr_eq(known.get(), &self.watched)
        {
            known.remove();
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

    fn watchers() -> Arc<Watchers> {
        Arc::new(Watchers::new(Arc::default()))
    }

    fn receipt(of: i64) -> Receipt {
        Receipt { user_id: user(of), action: Action::Read, ids: Vec::new() }
    }

    #[tokio::test]
    async fn only_readers_of_a_user_are_woken_for_that_user() {
        let watchers = watchers();
        let wakeups = Arc::clone(&watchers.wakeups);
        tokio::spawn(async move { wakeups.deliver().await });
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
        let watchers = watchers();
        let (one, other) = (watchers.watch_user(user(1)), watchers.watch_user(user(1)));
        assert_eq!((watchers.user_count.load(Ordering::Relaxed), one.reader_count()), (1, 2));
        drop(one);
        assert_eq!((watchers.user_count.load(Ordering::Relaxed), other.reader_count()), (1, 1));
        drop(other);
        assert_eq!(watchers.user_count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_reader_that_is_behind_by_more_receipts_than_are_kept_learns_of_it() {
        let watchers = watchers();
        let watch = watchers.watch_user(user(1));
        for offset in 0..=MAX_RECEIPTS {
            watchers.push_receipt(receipt(1), offset.try_into().expect("small"));
        }
        assert!(watch.receipts_after(-1).is_none());
        let kept = watch.receipts_after(0).expect("all after the first are kept");
        assert_eq!(kept.len(), MAX_RECEIPTS);
    }

    #[test]
    fn many_readers_share_an_event_and_few_keep_none() {
        let watchers = watchers();
        let event = |offset| FeedEvent::Receipt { receipt: Arc::new(receipt(1)), unread: offset };
        let share = |watcher: &Watcher, event: &FeedEvent, format, text: &'static str| {
            watcher.share_rendered(event, format, || Bytes::from_static(text.as_bytes()))
        };
        let one = watchers.watch_user(user(1));
        let first = event(1);
        assert_eq!(share(&one, &first, "sse", "a"), "a");
        assert_eq!(share(&one, &first, "sse", "b"), "b");
        let others: Vec<_> =
            (1..MIN_SHARING_READERS).map(|_| watchers.watch_user(user(1))).collect();
        assert_eq!(share(&one, &first, "sse", "c"), "c");
        assert_eq!(share(&others[0], &first, "sse", "d"), "c");
        assert_eq!(share(&others[0], &first, "line", "e"), "e");
        assert_eq!(share(&others[0], &event(1), "sse", "f"), "f");
        for offset in 0..MAX_RENDERED {
            share(&one, &event(offset), "sse", "g");
        }
        assert_eq!(one.watched.rendered.lock().newest.len(), MAX_RENDERED);
        assert_eq!(share(&one, &first, "sse", "h"), "h");
    }
}
