//! The folder with one file a partition. A file is complete or absent: it is written under another
//! name, synced, and then renamed. Inboxes are private, so only this user may read the files.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::{
    decode::{RestoredPartition, read_snapshot},
    format::{SnapshotKey, SnapshotRejected},
};

const SUFFIX: &str = ".snapshot";
const UNFINISHED_SUFFIX: &str = ".unfinished";
const BUFFER_BYTES: usize = 256 << 10;

/// The snapshots of one topic.
#[derive(Debug)]
pub struct SnapshotStore {
    folder: PathBuf,
    /// The key that all snapshots must match.
    pub key: SnapshotKey,
    next_sequence: AtomicU64,
    /// For each partition, the sequence number of the draft published last, or of its invalidation.
    /// Older drafts must not be published.
    newest: Mutex<HashMap<i32, u64>>,
    /// Locked for as long as this lives: two processes would overwrite each other's files.
    lock: File,
}

/// A snapshot that is being written. Dropped before it is published, it removes its file.
#[derive(Debug)]
pub struct SnapshotDraft {
    pub(super) number: i32,
    sequence: u64,
    path: PathBuf,
    is_published: bool,
}

impl SnapshotStore {
    /// Opens the folder of this topic. Creates it if it is missing, and removes the files that a
    /// killed process left unfinished.
    pub fn open(folder: &Path, key: SnapshotKey) -> io::Result<Self> {
        let folder = folder.join(format!("topic-{}", key.notifications));
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&folder)?;
        let lock = private_file().create(true).truncate(false).open(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process uses this folder"),
            fs::TryLockError::Error(error) => error,
        })?;
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.to_string_lossy().ends_with(UNFINISHED_SUFFIX) {
                fs::remove_file(path)?;
            }
        }
        let (next_sequence, newest) = (AtomicU64::new(1), Mutex::default());
        Ok(Self { folder, key, next_sequence, newest, lock })
    }

    /// Lets another process use the folder.
    pub fn unlock_folder(&self) {
        // If this fails, the end of the process unlocks it.
        let _ = self.lock.unlock();
    }

    /// The path of this partition's snapshot, whether there is one or not.
    pub fn file_path(&self, number: i32) -> PathBuf {
        self.folder.join(format!("{number}{SUFFIX}"))
    }

    /// Reads the snapshot of this partition; `None` if there is none.
    pub fn read_snapshot(
        &self,
        number: i32,
    ) -> Result<Option<RestoredPartition>, SnapshotRejected> {
        let file = match File::open(self.file_path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(SnapshotRejected::Unreadable(error)),
        };
        let file = BufReader::with_capacity(BUFFER_BYTES, file);
        read_snapshot(file, &self.key, number).map(Some)
    }

    /// Creates a file for the next snapshot of this partition.
    pub fn create_draft(&self, number: i32) -> io::Result<(SnapshotDraft, BufWriter<File>)> {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number}-{sequence}{UNFINISHED_SUFFIX}"));
        let file = private_file().create_new(true).open(&path)?;
        let draft = SnapshotDraft { number, sequence, path, is_published: false };
        Ok((draft, BufWriter::with_capacity(BUFFER_BYTES, file)))
    }

    /// Makes a finished draft the partition's snapshot. Returns false if a newer one was published,
    /// or if the partition was invalidated since the draft was created.
    pub fn publish_draft(&self, mut draft: SnapshotDraft) -> io::Result<bool> {
        let mut newest = self.newest.lock();
        let newest = newest.entry(draft.number).or_default();
        if *newest > draft.sequence {
            return Ok(false);
        }
        fs::rename(&draft.path, self.file_path(draft.number))?;
        draft.is_published = true;
        *newest = draft.sequence;
        // The new name survives a crash only once the folder is synced.
        File::open(&self.folder)?.sync_all()?;
        Ok(true)
    }

    /// Removes the snapshot of this partition, and lets no earlier draft be published.
    pub fn invalidate(&self, number: i32) {
        let sequence = self.next_sequence.fetch_add(1, Ordering::Relaxed);
        self.newest.lock().insert(number, sequence);
        match fs::remove_file(self.file_path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // The next start checks it against the log and invalidates it again.
                tracing::warn!(kafka.partition = number, %error, "cannot remove snapshot");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Drop for SnapshotDraft {
    fn drop(&mut self) {
        if !self.is_published {
            // If this fails, the next start removes it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn private_file() -> OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
