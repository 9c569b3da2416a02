//! The file's place on the disk: its folder, the lock that keeps other processes out, and what to
//! tell a person when it cannot be used.

use std::{
    fs::{self, File, TryLockError},
    io::{self, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use super::schema::Unfit;

/// Why a log was not opened, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The folder or the file cannot be made.
    #[error(
        "the log {} cannot be created: {source}. Choose a folder on a local disk that this user \
         may write to", path.display()
    )]
    Create {
        /// The log's file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// Another process, or another handle of this one, has it open.
    #[error(
        "the log {} is in use by {holder}. An embedded log belongs to one process: stop that one, or \
         choose another folder. To run several processes, use Kafka", path.display()
    )]
    Held {
        /// The log's file.
        path: PathBuf,
        /// `process 1234`, or `another process` where that is not known.
        holder: String,
    },
    /// The file is not what was once written there.
    #[error(
        "the log {} is damaged or not a log: {reason}. Move it away together with the files beside \
         it that begin with its name, then restore a copy, or start with an empty log", path.display()
    )]
    Damaged {
        /// The log's file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// A later version of this program has written it.
    #[error(
        "the log {} was made by a newer version (format {found}; this one knows up to {known}). \
         Start the newer version, or choose another folder", path.display()
    )]
    Newer {
        /// The log's file.
        path: PathBuf,
        /// Its format.
        found: i64,
        /// The latest format that this version knows.
        known: i64,
    },
    /// Something else, in the words of SQLite or the system.
    #[error("the log {} cannot be opened: {reason}", path.display())]
    Failed {
        /// The log's file.
        path: PathBuf,
        /// What was said.
        reason: String,
    },
}

impl OpenError {
    pub(super) fn of(path: &Path, unfit: Unfit) -> Self {
        let path = path.to_owned();
        match unfit {
            Unfit::Newer { found, known } => Self::Newer { path, found, known },
            Unfit::Foreign => {
                Self::Damaged { path, reason: "it is the database of something else".into() }
            }
            Unfit::NoWal => Self::Create {
                path,
                source: io::Error::other("its file system does not allow a write-ahead log"),
            },
            Unfit::Sqlite(error) => match primary_code(&error) {
                // SQLITE_CORRUPT and SQLITE_NOTADB.
                Some(11 | 26) => Self::Damaged { path, reason: error.to_string() },
                // SQLITE_PERM, SQLITE_READONLY, SQLITE_FULL and SQLITE_CANTOPEN.
                Some(3 | 8 | 13 | 14) => Self::Create { path, source: io::Error::other(error) },
                _ => Self::Failed { path, reason: error.to_string() },
            },
        }
    }
}

/// SQLite's result code without its extension: <https://www.sqlite.org/rescode.html>.
pub(super) fn primary_code(error: &sqlx::Error) -> Option<i32> {
    let code = error.as_database_error()?.code()?;
    code.parse::<i32>().ok().map(|code| code & 0xff)
}

/// The exclusive lock on a file of its own beside the log, held for as long as this lives. The
/// system takes it back from a process that is killed.
#[derive(Debug)]
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the log's folder where it is missing, and takes the lock.
    pub(super) fn take(path: &Path) -> Result<Self, OpenError> {
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
                return Err(OpenError::Held { path: path.to_owned(), holder: holder(&mut file) });
            }
            Err(TryLockError::Error(error)) => return Err(create(error)),
        }
        // Who holds it is only told to people: the lock does not depend on it.
        let _ = file.set_len(0).and_then(|()| file.rewind());
        let _ = write!(file, "{}", std::process::id());
        Ok(Self { _file: file })
    }
}

fn holder(file: &mut File) -> String {
    let mut id = String::new();
    match file.read_to_string(&mut id) {
        Ok(_) if !id.is_empty() => format!("process {id}"),
        _ => "another process".to_owned(),
    }
}

/// Makes a folder and what is missing above it, each entered durably in the one above: a record is
/// not on the disk as long as the folder of its file is not.
fn create_folder(folder: &Path) -> io::Result<()> {
    if folder.as_os_str().is_empty() || folder.is_dir() {
        return Ok(());
    }
    let above = folder.parent().unwrap_or(Path::new(""));
    create_folder(above)?;
    if let Err(error) = fs::create_dir(folder)
        && !folder.is_dir()
    {
        return Err(error);
    }
    // Not every system can open a folder; on those that can, it can be flushed.
    let above = if above.as_os_str().is_empty() { Path::new(".") } else { above };
    if let Ok(above) = File::open(above) {
        let _ = above.sync_all();
    }
    Ok(())
}
