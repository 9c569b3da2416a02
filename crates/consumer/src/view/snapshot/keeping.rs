//! When snapshots are read and written: before the group is joined, now and then while partitions
//! are live, and when they are revoked, the last time at the end of the process.

use std::{
    collections::HashMap,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use crate::metrics::{
    RESTORED, SNAPSHOT_BYTES, SNAPSHOT_LAST_SUCCESS, SNAPSHOT_SECONDS, SNAPSHOTS_REFUSED,
};
use event_log::CommittedOffsets;
use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{
    Refused, Restored, SnapshotKey, Store,
    encode::Written,
    store::Draft,
    taking::{self, TakeError, Taking},
};
use crate::view::{View, inboxes::Inboxes};

/// Users of a step, at most: a step is rather bounded by its time.
const STEP: usize = 1024;
/// How long a snapshot of a live partition waits until the group has been told of what it has. It
/// is told every 5 s.
const SETTLED_WITHIN: Duration = Duration::from_secs(30);
/// How often it is looked whether that is so.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Keeps snapshots of a view's partitions.
#[derive(Debug)]
pub struct SnapshotManager {
    store: Store,
    /// What was read and nobody has asked for yet.
    loaded: Mutex<HashMap<i32, Restored>>,
    /// The lengths of the files written by this process.
    bytes: Mutex<HashMap<i32, u64>>,
    /// Where the log was when a live partition's snapshot was last published.
    published: Mutex<HashMap<i32, [i64; 2]>>,
    writing: TaskTracker,
    given_up: AtomicBool,
}

impl SnapshotManager {
    /// Opens the folder.
    ///
    /// # Errors
    /// See [`Store::open`].
    pub fn open(folder: &Path, about: SnapshotKey) -> std::io::Result<Arc<Self>> {
        for reason in ["format", "settings", "damaged", "unreadable", "log"] {
            counter!(SNAPSHOTS_REFUSED, "reason" => reason).increment(0);
        }
        counter!(RESTORED).increment(0);
        Ok(Arc::new(Self {
            store: Store::open(folder, about)?,
            loaded: Mutex::default(),
            bytes: Mutex::default(),
            published: Mutex::default(),
            writing: TaskTracker::new(),
            given_up: AtomicBool::new(false),
        }))
    }

    /// The files.
    #[must_use]
    pub fn store(&self) -> &Store {
        &self.store
    }

    /// Reads every snapshot there is, on as many threads as there are cores. To be called before
    /// the group is joined: there is no time for it when partitions are assigned.
    pub async fn load(self: &Arc<Self>) {
        let start = Instant::now();
        let partitions = i32::try_from(self.store.about().partitions).unwrap_or(i32::MAX);
        let left = Arc::new(Mutex::new(0..partitions));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let readers = (0..cores).map(|_| {
            let (this, left) = (Arc::clone(self), Arc::clone(&left));
            tokio::task::spawn_blocking(move || {
                loop {
                    // The lock ends with this line.
                    let next = left.lock().next();
                    let Some(number) = next else { return };
                    this.load_one(number);
                }
            })
        });
        for reader in readers.collect::<Vec<_>>() {
            let _ = reader.await;
        }
        let (partitions, notifications) = {
            let loaded = self.loaded.lock();
            (loaded.len(), loaded.values().map(|restored| restored.entries).sum::<u64>())
        };
        if partitions > 0 {
            let seconds = start.elapsed().as_secs_f64();
            tracing::info!(
                snapshot.partitions = partitions,
                snapshot.notifications = notifications,
                snapshot.seconds = seconds,
                "restored {notifications} notifications of {partitions} partitions from snapshots \
                 in {seconds:.1} s",
            );
        }
    }

    fn load_one(&self, number: i32) {
        let start = Instant::now();
        match self.store.read(number) {
            Ok(None) => {}
            Ok(Some(restored)) => {
                tracing::debug!(
                    kafka.partition = number,
                    entries = restored.entries,
                    seconds = start.elapsed().as_secs_f64(),
                    "read a snapshot",
                );
                self.loaded.lock().insert(number, restored);
            }
            Err(refused) => {
                refuse(refused.reason());
                match refused {
                    Refused::Settings | Refused::Format(_) => tracing::info!(
                        kafka.partition = number, why = %refused,
                        "a snapshot is not used; the partition is read from its beginning",
                    ),
                    Refused::Damaged(_) | Refused::Unreadable(_) => tracing::warn!(
                        kafka.partition = number, why = %refused,
                        "a snapshot is not used; the partition is read from its beginning",
                    ),
                }
            }
        }
    }

    /// What was read of this partition; once.
    pub(in crate::view) fn take(&self, number: i32) -> Option<Restored> {
        let restored = self.loaded.lock().remove(&number)?;
        counter!(RESTORED).increment(restored.entries);
        Some(restored)
    }

    /// Frees what was read and not asked for. The files stay.
    pub fn forget(&self) {
        let loaded = std::mem::take(&mut *self.loaded.lock());
        if !loaded.is_empty() {
            tracing::info!(
                snapshot.partitions = loaded.len(),
                "snapshots of partitions that others have are not kept in memory any longer",
            );
        }
    }

    /// Nothing that was kept of this partition counts; `used`: it was in use.
    pub(in crate::view) fn void(&self, number: i32, used: bool) {
        if used {
            refuse("log");
        }
        self.published.lock().remove(&number);
        drop(self.loaded.lock().remove(&number));
        self.store.void(number);
    }

    /// Writes what a partition held when it was revoked, on a thread of its own. To be called
    /// within a tokio runtime.
    pub(in crate::view) fn released(
        self: &Arc<Self>,
        number: i32,
        inboxes: Inboxes,
        runtime: &tokio::runtime::Handle,
    ) {
        if inboxes.marks == [None, None] {
            return;
        }
        let this = Arc::clone(self);
        // It has the state of before until this is written.
        self.published.lock().remove(&number);
        self.writing.spawn_blocking_on(
            move || {
                let start = Instant::now();
                let wanted = || !this.given_up.load(Ordering::Relaxed);
                let taken =
                    this.store.draft(number).map_err(TakeError::from).and_then(|(draft, out)| {
                        let about = this.store.about();
                        let (out, written) = taking::whole(&inboxes, about, number, out, wanted)?;
                        sync(out)?;
                        Ok((draft, written))
                    });
                match taken {
                    Ok((draft, written)) => this.publish(draft, written, start.elapsed()),
                    Err(error) => complain(number, &error),
                }
            },
            runtime,
        );
    }

    /// Writes every live partition that has changed each time that this span is over. Never ends.
    pub async fn every(
        self: Arc<Self>,
        span: Duration,
        view: Arc<View>,
        settling: CommittedOffsets,
    ) {
        loop {
            tokio::time::sleep(span).await;
            self.once(&view, &settling).await;
        }
    }

    /// Writes every live partition that has changed.
    pub async fn once(self: &Arc<Self>, view: &Arc<View>, settling: &CommittedOffsets) {
        let mut drafts = Vec::new();
        for (number, _) in view.partitions() {
            let (this, view) = (Arc::clone(self), Arc::clone(view));
            let taken = self.writing.spawn_blocking(move || this.take_live(&view, number));
            match taken.await {
                Ok(Ok(taken)) => drafts.extend(taken),
                Ok(Err(error)) => complain(number, &error),
                Err(_) => {}
            }
        }
        let until = Instant::now() + SETTLED_WITHIN;
        while !drafts.is_empty() && Instant::now() < until {
            let told = |taken: &mut Taken| {
                settling.committed(taken.draft.number()).is_some_and(|told| told >= taken.next)
            };
            let told: Vec<_> = drafts.extract_if(.., told).collect();
            let this = Arc::clone(self);
            let published = self.writing.spawn_blocking(move || {
                for Taken { draft, last, written, took, .. } in told {
                    let number = draft.number();
                    this.publish(draft, written, took);
                    this.published.lock().insert(number, last);
                }
            });
            let _ = published.await;
            if !drafts.is_empty() {
                tokio::time::sleep(LOOK_EVERY).await;
            }
        }
        if !drafts.is_empty() {
            tracing::warn!(
                snapshot.partitions = drafts.len(),
                "snapshots were not kept: the group could not be told of what they hold",
            );
        }
    }

    fn take_live(&self, view: &Arc<View>, number: i32) -> Result<Option<Taken>, TakeError> {
        if view.partition(number).is_none_or(|partition| !partition.is_live()) {
            return Ok(None);
        }
        let start = Instant::now();
        let (draft, out) = self.store.draft(number)?;
        let Some(mut taking) = Taking::begin(view, self.store.about(), number, out)? else {
            return Ok(None);
        };
        let (next, last) = (taking.next(), taking.last());
        if !taking.has_records() || self.published.lock().get(&number) == Some(&last) {
            return Ok(None);
        }
        while taking.step(STEP)? {
            if self.given_up.load(Ordering::Relaxed) {
                return Err(TakeError::Unwanted);
            }
        }
        let (out, written) = taking.end()?;
        sync(out)?;
        Ok(Some(Taken { draft, next, last, written, took: start.elapsed() }))
    }

    fn publish(&self, draft: Draft, written: Written, took: Duration) {
        let number = draft.number();
        match self.store.publish(draft) {
            Ok(true) => {
                histogram!(SNAPSHOT_SECONDS).record(took);
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                gauge!(SNAPSHOT_LAST_SUCCESS).set(now.as_secs_f64());
                let mut bytes = self.bytes.lock();
                bytes.insert(number, written.bytes);
                gauge!(SNAPSHOT_BYTES).set(bytes.values().sum::<u64>() as f64);
                tracing::debug!(
                    kafka.partition = number,
                    entries = written.entries,
                    bytes = written.bytes,
                    seconds = took.as_secs_f64(),
                    "wrote a snapshot",
                );
            }
            Ok(false) => {}
            Err(error) => complain(number, &error.into()),
        }
    }

    /// Waits until everything is written, for at most `within`; what is not by then is given up.
    pub async fn finish(&self, within: Duration) {
        self.writing.close();
        if tokio::time::timeout(within, self.writing.wait()).await.is_err() {
            tracing::warn!("not every snapshot was written in time; the next start reads more");
            self.given_up.store(true, Ordering::Relaxed);
        }
        self.store.release();
    }
}

/// A snapshot of a live partition that nobody may use yet.
struct Taken {
    draft: Draft,
    /// The first offset that it need not have.
    next: i64,
    /// Where the log was.
    last: [i64; 2],
    written: Written,
    took: Duration,
}

fn sync(out: std::io::BufWriter<std::fs::File>) -> std::io::Result<()> {
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()
}

fn refuse(reason: &'static str) {
    counter!(SNAPSHOTS_REFUSED, "reason" => reason).increment(1);
}

fn complain(number: i32, error: &TakeError) {
    match error {
        TakeError::Disk(error) => tracing::warn!(
            kafka.partition = number, %error,
            "a snapshot cannot be written; the next start reads more",
        ),
        TakeError::Revoked | TakeError::Conflicts | TakeError::Unwanted => {
            tracing::debug!(kafka.partition = number, %error, "a snapshot was not finished");
        }
    }
}
