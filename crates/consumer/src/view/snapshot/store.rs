//! The folder with one file a partition. A file is there whole or not at all: it is written under
//! another name, brought to the disk, and then renamed. Inboxes are private, so nobody else may
//! read them.

use std::{
    collections::HashMap,
    fs::{self, DirBuilder, File, OpenOptions},
    io::{self, BufReader, BufWriter},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering},
};

use parking_lot::Mutex;

use super::{Refused, Restored, SnapshotKey, decode};

const SUFFIX: &str = ".snapshot";
/// Of what is not there whole.
const UNFINISHED: &str = ".unfinished";
const BUFFER: usize = 256 << 10;

/// The snapshots of one topic.
#[derive(Debug)]
pub struct Store {
    folder: PathBuf,
    about: SnapshotKey,
    drafts: AtomicU64,
    /// The newest draft of each partition that was published, or after which everything older
    /// became void.
    newest: Mutex<HashMap<i32, u64>>,
    /// Held for as long as this lives: two processes would overwrite each other's files.
    lock: File,
}

/// A snapshot that is not there yet. Dropped before it is published, it leaves nothing.
#[derive(Debug)]
pub struct Draft {
    number: i32,
    order: u64,
    path: PathBuf,
    published: bool,
}

impl Store {
    /// Makes the folder for this topic where it is missing, and removes what a killed process left
    /// unfinished.
    ///
    /// # Errors
    /// The folder cannot be made or written to, or is another process's.
    pub fn open(folder: &Path, about: SnapshotKey) -> io::Result<Self> {
        let folder = folder.join(format!("topic-{}", about.notifications));
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(&folder)?;
        let lock = private().create(true).truncate(false).open(folder.join("lock"))?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => io::Error::other("another process uses this folder"),
            fs::TryLockError::Error(error) => error,
        })?;
        for file in fs::read_dir(&folder)? {
            let path = file?.path();
            if path.to_string_lossy().ends_with(UNFINISHED) {
                fs::remove_file(path)?;
            }
        }
        let (drafts, newest) = (AtomicU64::new(1), Mutex::default());
        Ok(Self { folder, about, drafts, newest, lock })
    }

    /// Lets another process have the folder.
    pub fn release(&self) {
        // It goes with the process anyway.
        let _ = self.lock.unlock();
    }

    /// What all of them are about.
    #[must_use]
    pub fn about(&self) -> &SnapshotKey {
        &self.about
    }

    /// Where the snapshot of this partition is, if there is one.
    #[must_use]
    pub fn path(&self, number: i32) -> PathBuf {
        self.folder.join(format!("{number}{SUFFIX}"))
    }

    /// Reads the snapshot of this partition; none where there is none.
    ///
    /// # Errors
    /// [`Refused`].
    pub fn read(&self, number: i32) -> Result<Option<Restored>, Refused> {
        let file = match File::open(self.path(number)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(Refused::Unreadable(error)),
        };
        decode::read(BufReader::with_capacity(BUFFER, file), &self.about, number).map(Some)
    }

    /// A new file for this partition's snapshot.
    ///
    /// # Errors
    /// The folder cannot be written to.
    pub fn draft(&self, number: i32) -> io::Result<(Draft, BufWriter<File>)> {
        let order = self.drafts.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.join(format!("{number}-{order}{UNFINISHED}"));
        let file = private().create_new(true).open(&path)?;
        let draft = Draft { number, order, path, published: false };
        Ok((draft, BufWriter::with_capacity(BUFFER, file)))
    }

    /// Makes a finished draft the partition's snapshot, unless it has a newer one, or became void
    /// meanwhile. Returns whether it did.
    ///
    /// # Errors
    /// Those of the disk.
    pub fn publish(&self, mut draft: Draft) -> io::Result<bool> {
        let mut newest = self.newest.lock();
        let newest = newest.entry(draft.number).or_default();
        if *newest > draft.order {
            return Ok(false);
        }
        fs::rename(&draft.path, self.path(draft.number))?;
        draft.published = true;
        *newest = draft.order;
        // Only now the new name lasts.
        File::open(&self.folder)?.sync_all()?;
        Ok(true)
    }

    /// Removes the snapshot of this partition, and has no draft of before published.
    pub fn void(&self, number: i32) {
        let order = self.drafts.fetch_add(1, Ordering::Relaxed);
        self.newest.lock().insert(number, order);
        match fs::remove_file(self.path(number)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                // It would be found to be void again.
                tracing::warn!(kafka.partition = number, %error, "a snapshot cannot be removed");
            }
            Ok(()) | Err(_) => {}
        }
    }
}

impl Draft {
    /// The partition.
    #[must_use]
    pub fn number(&self) -> i32 {
        self.number
    }
}

impl Drop for Draft {
    fn drop(&mut self) {
        if !self.published {
            // What is left is removed at the next start.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn private() -> OpenOptions {
    let mut options = File::options();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}
