//! The fold and the threads that drive it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use crate::Record;

/// What becomes of the records of some partitions. Called by one thread, the driver's own, so
/// that nothing here needs a lock for order's sake; none of it may block.
///
/// For each partition the calls come in this order:
/// `assigned`, then any number of `record` (offsets grow) with one `extent` and one `live`
/// somewhere among them, then `revoked`. The same partition may be assigned again later, and then
/// starts from its beginning.
pub trait Fold: Send + 'static {
    /// The partition is ours from now on. Its records follow from the first that the log still
    /// has.
    fn assigned(&mut self, partition: i32);

    /// How much there is to read until the partition is live. Known a moment after the
    /// assignment, and told again should it turn out otherwise.
    fn extent(&mut self, partition: i32, extent: Extent);

    /// The next record.
    fn record(&mut self, record: &Record<'_>);

    /// Every record that was there at the assignment has been given to [`record`](Self::record).
    fn live(&mut self, partition: i32);

    /// The partition is ours no longer: whoever asks must not be answered from it any more when
    /// this returns. Memory is to be freed elsewhere.
    fn revoked(&mut self, partition: i32);

    /// Called when there is nothing to do at the moment, and at least every 100 ms or so.
    fn idle(&mut self) {}
}

/// The offsets of a partition at its assignment: those from `low` up to, not including, `high`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// The first offset that the log still has.
    pub low: i64,
    /// One beyond the last.
    pub high: i64,
}

/// A running reader. It ends when it is told to, when it is dropped, and not before: a log that is
/// away is waited for.
#[derive(Debug)]
pub struct Reader {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Reader {
    pub(crate) fn spawn(name: &str, run: impl FnOnce(&AtomicBool) + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&stop);
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || run(&seen));
        if let Err(error) = &thread {
            tracing::error!(%error, "no thread for the reader of the log");
        }
        Self { stop, thread: thread.ok() }
    }

    /// Whether its thread runs. It should, until [`stop`](Self::stop).
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.thread.as_ref().is_some_and(|thread| !thread.is_finished())
    }

    /// Revokes everything, leaves the group and waits for the thread's end.
    pub async fn stop(mut self) {
        self.stop.store(true, Ordering::Release);
        if let Some(thread) = self.thread.take() {
            // Joining blocks for as long as the broker takes to answer the goodbye.
            let _ = tokio::task::spawn_blocking(move || thread.join()).await;
        }
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Release);
    }
}
