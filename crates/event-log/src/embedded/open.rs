//! The file's folder, the lock that excludes other processes, and the errors of opening the file.

use std::{
    fs::{DirBuilder, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

/// The reason for which the log cannot be opened, and what the operator can do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be created.
    #[error(
        "the log {} cannot be created: {source}. Choose a folder on a local disk that this user \
         may write to", path.display()
    )]
    Create {
        /// The log's file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
    /// Another process, or another handle of this one, has it open.
    #[error(
        "the log {} is in use by {holder}. Only one process can use an embedded log: stop the other \
         process, or choose another folder. To run several processes, use Kafka", path.display()
    )]
    Held {
        /// The log's file.
        path: PathBuf,
        /// `process 1234`, or `another process` if its id is not known.
        holder: String,
    },
    /// The file is damaged, or is not a log.
    #[error(
        "the log {} is damaged or not a log: {reason}. Move it away, with the files beside it that \
         begin with its name, then restore a copy, or start with an empty log", path.display()
    )]
    Damaged {
        /// The log's file.
        path: PathBuf,
        /// The damage.
        reason: String,
    },
    /// A later version of this program has written it.
    #[error(
        "the log {} was written by a newer version (format {found}; this one reads up to {known}). \
         Start the newer version, or choose another folder", path.display()
    )]
    Newer {
        /// The log's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The latest format that this version reads.
        known: i64,
    },
    /// Any other error of SQLite or the system.
    #[error("the log {} cannot be opened: {reason}", path.display())]
    Failed {
        /// The log's file.
        path: PathBuf,
        /// The error.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn from_sqlite(path: &Path, error: sqlx::Error) -> Self {
        let path = path.to_owned();
        match primary_code(&error) {
            // SQLITE_CORRUPT and SQLITE_NOTADB.
            Some(11 | 26) => Self::Damaged { path, reason: error.to_string() },
            // SQLITE_PERM, SQLITE_READONLY, SQLITE_FULL and SQLITE_CANTOPEN.
            Some(3 | 8 | 13 | 14) => Self::Create { path, source: io::Error::other(error) },
            _ => Self::Failed { path, reason: error.to_string() },
        }
    }
}

/// SQLite's result code without its extension: <https://www.sqlite.org/rescode.html>.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// The exclusive lock on a file beside the log, held until this is dropped. The system releases the
/// lock of a killed process.
#[derive(Debug)]
pub(super) struct FileLock {
    _file: File,
}

impl FileLock {
    /// Creates the log's folder if it is missing, and takes the lock.
    pub(super) fn acquire(path: &Path) -> Result<Self, OpenError> {
        let create = |source| OpenError::Create { path: path.to_owned(), source };
        if let Some(folder) = path.parent() {
            create_folder(folder).map_err(create)?;
        }
        let mut name = path.as_os_str().to_owned();
        name.push(".lock");
        let mut file = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(PathBuf::from(name))
            .map_err(create)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(OpenError::Held {
                    path: path.to_owned(),
                    holder: read_holder(&mut file),
                });
            }
            Err(TryLockError::Error(error)) => return Err(create(error)),
        }
        // Only for the error message of other processes.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

fn read_holder(file: &mut File) -> String {
    let mut id = String::new();
    match file.read_to_string(&mut id) {
        Ok(_) if !id.is_empty() => format!("process {id}"),
        _ => "another process".to_owned(),
    }
}

/// Creates a folder and the missing folders above it, for this account alone, and flushes each parent: without that, a power
/// cut can remove the folder, and the log in it.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    create_folder(above)?;
    let mut builder = DirBuilder::new();
    // Inboxes are in there: for this account alone.
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    if let Err(error) = builder.create(folder)
        && !folder.is_dir()
    {
        return Err(error);
    }
    // Some systems cannot open a folder.
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    if let Ok(above) = File::open(above) {
        let _ = above.sync_all();
    }
    Ok(())
}
