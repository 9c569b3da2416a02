//! When snapshots are read and written: read before the consumer joins the group, written at an
//! interval while partitions are live, and when they are revoked, the last time at shutdown.

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
use futures_util::{StreamExt as _, stream};
use metrics::{counter, gauge, histogram};
use parking_lot::Mutex;
use tokio_util::task::TaskTracker;

use super::{
    decode::RestoredPartition,
    format::{Header, SnapshotKey, SnapshotRejected},
    store::{SnapshotDraft, SnapshotStore},
    writer::{SnapshotCounts, SnapshotWriter, WriteError, write_all},
};
use crate::view::{Inboxes, View};

/// The most users of a step. Its time limit usually ends it earlier.
const MAX_STEP_USERS: usize = 1024;
/// How long a snapshot of a live partition waits until the group has committed the offsets that it
/// has. The group commits every 5 s.
const COMMIT_TIMEOUT: Duration = Duration::from_secs(30);
/// How often the committed offsets are checked meanwhile.
const COMMIT_CHECK_INTERVAL: Duration = Duration::from_millis(200);

/// Reads and writes the snapshots of a view's partitions.
#[derive(Debug)]
pub struct SnapshotManager {
    /// The files.
    pub store: SnapshotStore,
    /// Snapshots that were read and whose partition is not assigned yet.
    loaded: Mutex<HashMap<i32, RestoredPartition>>,
    /// Lengths of the files that this process wrote.
    file_bytes: Mutex<HashMap<i32, u64>>,
    /// Last offsets of the live partitions in their newest snapshot.
    published_offsets: Mutex<HashMap<i32, [i64; 2]>>,
    tasks: TaskTracker,
    is_cancelled: AtomicBool,
}

impl SnapshotManager {
    /// Opens the folder.
    pub fn open(folder: &Path, key: SnapshotKey) -> std::io::Result<Arc<Self>> {
        for reason in ["format", "settings", "damaged", "unreadable", "log"] {
            counter!(SNAPSHOTS_REFUSED, "reason" => reason).increment(0);
        }
        counter!(RESTORED).increment(0);
        Ok(Arc::new(Self {
            store: SnapshotStore::open(folder, key)?,
            loaded: Mutex::default(),
            file_bytes: Mutex::default(),
            published_offsets: Mutex::default(),
            tasks: TaskTracker::new(),
            is_cancelled: AtomicBool::new(false),
        }))
    }

    /// Reads every snapshot of the folder, on as many threads as there are cores. Must run before
    /// the consumer joins the group: an assignment leaves no time for it.
    pub async fn load_all(self: &Arc<Self>) {
        let start = Instant::now();
        let partitions = i32::try_from(self.store.key.partitions).unwrap_or(i32::MAX);
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let read = |number| {
            let this = Arc::clone(self);
            tokio::task::spawn_blocking(move || this.load_partition(number))
        };
        let readers = stream::iter(0..partitions).map(read).buffer_unordered(cores);
        readers.for_each(|_| std::future::ready(())).await;
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

    fn load_partition(&self, number: i32) {
        let start = Instant::now();
        match self.store.read_snapshot(number) {
            Ok(None) => {}
            Ok(Some(restored)) => {
                tracing::debug!(
                    kafka.partition = number,
                    entries = restored.entries,
                    seconds = start.elapsed().as_secs_f64(),
                    "read snapshot",
                );
                self.loaded.lock().insert(number, restored);
            }
            Err(rejected) => {
                counter!(SNAPSHOTS_REFUSED, "reason" => rejected.reason()).increment(1);
                match rejected {
                    SnapshotRejected::Settings | SnapshotRejected::Format(_) => tracing::info!(
                        kafka.partition = number, reason = %rejected,
                        "snapshot rejected; reading the partition from its beginning",
                    ),
                    SnapshotRejected::Damaged(_) | SnapshotRejected::Unreadable(_) => {
                        tracing::warn!(
                            kafka.partition = number, reason = %rejected,
                            "snapshot rejected; reading the partition from its beginning",
                        );
                    }
                }
            }
        }
    }

    /// Hands out the loaded snapshot of this partition, once.
    pub(crate) fn take_loaded(&self, number: i32) -> Option<RestoredPartition> {
        let restored = self.loaded.lock().remove(&number)?;
        counter!(RESTORED).increment(restored.entries);
        Some(restored)
    }

    /// Frees loaded snapshots whose partitions were not assigned. The files stay.
    pub fn drop_loaded(&self) {
        let loaded = std::mem::take(&mut *self.loaded.lock());
        if !loaded.is_empty() {
            tracing::info!(
                snapshot.partitions = loaded.len(),
                "dropped loaded snapshots of partitions that other instances own",
            );
        }
    }

    /// Drops the snapshot of this partition, which contradicts the log. `was_used`: the partition
    /// was restored from it.
    pub(crate) fn invalidate(&self, number: i32, was_used: bool) {
        if was_used {
            counter!(SNAPSHOTS_REFUSED, "reason" => "log").increment(1);
        }
        self.published_offsets.lock().remove(&number);
        drop(self.loaded.lock().remove(&number));
        self.store.invalidate(number);
    }

    /// Writes the inboxes of a revoked partition on a blocking thread of this runtime.
    pub(crate) fn write_revoked(
        self: &Arc<Self>,
        number: i32,
        inboxes: Inboxes,
        runtime: &tokio::runtime::Handle,
    ) {
        if inboxes.anchors == [None, None] {
            return;
        }
        let this = Arc::clone(self);
        // The published file is older than these inboxes until they are written.
        self.published_offsets.lock().remove(&number);
        self.tasks.spawn_blocking_on(
            move || {
                let start = Instant::now();
                let is_cancelled = || this.is_cancelled.load(Ordering::Relaxed);
                let write = || -> Result<_, WriteError> {
                    let (draft, out) = this.store.create_draft(number)?;
                    let key = &this.store.key;
                    let (out, counts) = write_all(&inboxes, key, number, out, is_cancelled)?;
                    sync_file(out)?;
                    Ok((draft, counts))
                };
                match write() {
                    Ok((draft, counts)) => this.publish_draft(draft, counts, start.elapsed()),
                    Err(error) => log_write_error(number, &error),
                }
            },
            runtime,
        );
    }

    /// Writes every live partition that has changed, each time this interval is over. Never ends.
    pub async fn run_periodically(
        self: Arc<Self>,
        interval: Duration,
        view: Arc<View>,
        committed: CommittedOffsets,
    ) {
        loop {
            tokio::time::sleep(interval).await;
            self.write_live_partitions(&view, &committed).await;
        }
    }

    /// Writes every live partition that has changed, and publishes each once the group has committed
    /// its offsets: a snapshot ahead of the group would skip poison records that are not in the
    /// dead-letter queue yet.
    pub async fn write_live_partitions(
        self: &Arc<Self>,
        view: &Arc<View>,
        committed: &CommittedOffsets,
    ) {
        let mut unpublished = Vec::new();
        for (number, _) in view.partitions() {
            let (this, view) = (Arc::clone(self), Arc::clone(view));
            let written = self.tasks.spawn_blocking(move || this.write_live(&view, number));
            match written.await {
                Ok(Ok(written)) => unpublished.extend(written),
                Ok(Err(error)) => log_write_error(number, &error),
                Err(_) => {}
            }
        }
        let until = Instant::now() + COMMIT_TIMEOUT;
        while !unpublished.is_empty() && Instant::now() < until {
            let is_committed = |snapshot: &mut UnpublishedSnapshot| {
                let offset = committed.committed(snapshot.draft.number);
                offset.is_some_and(|offset| offset >= snapshot.header.next_offset())
            };
            let ready: Vec<_> = unpublished.extract_if(.., is_committed).collect();
            let this = Arc::clone(self);
            let published = self.tasks.spawn_blocking(move || {
                for UnpublishedSnapshot { draft, header, counts, took } in ready {
                    let number = draft.number;
                    this.publish_draft(draft, counts, took);
                    this.published_offsets.lock().insert(number, header.last_offsets);
                }
            });
            let _ = published.await;
            if !unpublished.is_empty() {
                tokio::time::sleep(COMMIT_CHECK_INTERVAL).await;
            }
        }
        if !unpublished.is_empty() {
            tracing::warn!(
                snapshot.partitions = unpublished.len(),
                "dropped snapshots: the group did not commit their offsets in time",
            );
        }
    }

    /// Writes a partition if it is live and has changed since its last snapshot.
    fn write_live(
        &self,
        view: &Arc<View>,
        number: i32,
    ) -> Result<Option<UnpublishedSnapshot>, WriteError> {
        if view.partition(number).and_then(|partition| partition.read_if_complete(|_| ())).is_none()
        {
            return Ok(None);
        }
        let start = Instant::now();
        let (draft, out) = self.store.create_draft(number)?;
        let Some(mut writer) = SnapshotWriter::begin(view, &self.store.key, number, out)? else {
            return Ok(None);
        };
        let header = writer.header;
        let published = self.published_offsets.lock().get(&number).copied();
        if header.anchors == [None, None] || published == Some(header.last_offsets) {
            return Ok(None);
        }
        while writer.write_step(MAX_STEP_USERS)? {
            if self.is_cancelled.load(Ordering::Relaxed) {
                return Err(WriteError::Cancelled);
            }
        }
        let (out, counts) = writer.finish()?;
        sync_file(out)?;
        let took = start.elapsed();
        Ok(Some(UnpublishedSnapshot { draft, header, counts, took }))
    }

    fn publish_draft(&self, draft: SnapshotDraft, counts: SnapshotCounts, took: Duration) {
        let number = draft.number;
        match self.store.publish_draft(draft) {
            Ok(true) => {
                histogram!(SNAPSHOT_SECONDS).record(took);
                let now = SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
                gauge!(SNAPSHOT_LAST_SUCCESS).set(now.as_secs_f64());
                let mut file_bytes = self.file_bytes.lock();
                file_bytes.insert(number, counts.bytes);
                gauge!(SNAPSHOT_BYTES).set(file_bytes.values().sum::<u64>() as f64);
                tracing::debug!(
                    kafka.partition = number,
                    entries = counts.entries,
                    bytes = counts.bytes,
                    seconds = took.as_secs_f64(),
                    "wrote snapshot",
                );
            }
            Ok(false) => {}
            Err(error) => log_write_error(number, &error.into()),
        }
    }

    /// Waits for at most `timeout` until every snapshot is written, then cancels the rest.
    pub async fn finish_writes(&self, timeout: Duration) {
        self.tasks.close();
        if tokio::time::timeout(timeout, self.tasks.wait()).await.is_err() {
            tracing::warn!("not every snapshot was written in time; the next start reads more");
            self.is_cancelled.store(true, Ordering::Relaxed);
        }
        self.store.unlock_folder();
    }
}

/// A snapshot of a live partition whose offsets the group may not have committed yet.
struct UnpublishedSnapshot {
    draft: SnapshotDraft,
    header: Header,
    counts: SnapshotCounts,
    took: Duration,
}

fn sync_file(out: std::io::BufWriter<std::fs::File>) -> std::io::Result<()> {
    let file = out.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.sync_all()
}

fn log_write_error(number: i32, error: &WriteError) {
    match error {
        WriteError::Disk(error) => tracing::warn!(
            kafka.partition = number, %error,
            "cannot write snapshot; the next start reads more",
        ),
        WriteError::Revoked | WriteError::Conflicts | WriteError::Cancelled => {
            tracing::debug!(kafka.partition = number, %error, "snapshot was not finished");
        }
    }
}
