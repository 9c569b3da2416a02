//! A signal that many tasks wait for, at a few dozen bytes each and without a future to keep.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    task::{Context, Poll, Waker},
};

use parking_lot::Mutex;
use slab::Slab;

/// Set in the count of a signal that comes no more.
const CLOSED: u64 = 1 << 63;

/// Wakes all tasks that wait for it. One that was busy meanwhile learns of it at its next poll.
#[derive(Debug, Default)]
pub(crate) struct Signal {
    /// How often the signal came, and [`CLOSED`].
    count: AtomicU64,
    waiters: Mutex<Slab<Option<Waker>>>,
}

/// One task's place at a signal, which must be given back with [`Signal::leave`].
#[derive(Debug)]
pub(crate) struct Waiter {
    key: usize,
    seen: u64,
}

impl Signal {
    /// Waits for what comes from now on.
    pub(crate) fn join(&self) -> Waiter {
        let mut waiters = self.waiters.lock();
        Waiter { key: waiters.insert(None), seen: self.count.load(Ordering::Acquire) & !CLOSED }
    }

    /// Number of waiters.
    pub(crate) fn waiter_count(&self) -> usize {
        self.waiters.lock().len()
    }

    /// Forgets a waiter. Returns true if none is left.
    pub(crate) fn leave(&self, waiter: &Waiter) -> bool {
        let mut waiters = self.waiters.lock();
        waiters.try_remove(waiter.key);
        waiters.is_empty()
    }

    pub(crate) fn notify_all(&self) {
        self.count.fetch_add(1, Ordering::AcqRel);
        self.wake_all();
    }

    /// The signal comes no more.
    pub(crate) fn close(&self) {
        self.count.fetch_or(CLOSED, Ordering::AcqRel);
        self.wake_all();
    }

    fn wake_all(&self) {
        let mut waiters = self.waiters.lock();
        let wakers: Vec<_> = waiters.iter_mut().filter_map(|(_, waker)| waker.take()).collect();
        // Woken tasks come here again.
        drop(waiters);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Ready once the signal came since the last time that this was ready: true, or false if it is
    /// closed.
    pub(crate) fn poll(&self, waiter: &mut Waiter, cx: &Context<'_>) -> Poll<bool> {
        let check = |waiter: &mut Waiter| {
            let count = self.count.load(Ordering::Acquire);
            if count & CLOSED != 0 {
                return Poll::Ready(false);
            }
            let is_new = count != waiter.seen;
            waiter.seen = count;
            if is_new { Poll::Ready(true) } else { Poll::Pending }
        };
        if let ready @ Poll::Ready(_) = check(waiter) {
            return ready;
        }
        let mut waiters = self.waiters.lock();
        // Checked again under the lock: a later signal finds the waker.
        if let ready @ Poll::Ready(_) = check(waiter) {
            return ready;
        }
        if let Some(waker) = waiters.get_mut(waiter.key) {
            match waker {
                Some(waker) => waker.clone_from(cx.waker()),
                None => *waker = Some(cx.waker().clone()),
            }
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::{Arc, atomic::AtomicUsize},
        task::Wake,
    };

    use super::*;

    #[derive(Default)]
    struct CountedWakes(AtomicUsize);

    impl Wake for CountedWakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn each_signal_wakes_who_waits_and_is_found_by_who_did_not() {
        let signal = Signal::default();
        let wakes = Arc::<CountedWakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let cx = Context::from_waker(&waker);
        let (mut waiting, mut busy) = (signal.join(), signal.join());
        assert_eq!(signal.poll(&mut waiting, &cx), Poll::Pending);
        signal.notify_all();
        signal.notify_all();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
        for waiter in [&mut waiting, &mut busy] {
            assert_eq!(signal.poll(waiter, &cx), Poll::Ready(true));
            assert_eq!(signal.poll(waiter, &cx), Poll::Pending);
        }
        signal.close();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 3);
        assert_eq!(signal.poll(&mut busy, &cx), Poll::Ready(false));
        assert_eq!((signal.leave(&waiting), signal.leave(&busy)), (false, true));
    }

    #[test]
    fn a_signal_keeps_no_task_that_left() {
        let signal = Signal::default();
        let wakes = Arc::<CountedWakes>::default();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut waiter = signal.join();
        assert_eq!(signal.poll(&mut waiter, &Context::from_waker(&waker)), Poll::Pending);
        drop(waker);
        assert!(signal.leave(&waiter));
        assert_eq!(Arc::strong_count(&wakes), 1);
    }
}
