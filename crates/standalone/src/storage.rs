//! The embedded log and directory, in one folder.

use std::path::Path;

use event_log::{
    Log,
    embedded::{Embedded, OpenError},
};
use producer::directory::{self, Directory};

/// The log and the user directory that both services use.
pub(crate) struct Storage {
    log: Embedded,
    pub(crate) directory: Directory,
}

/// Why the folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum StorageError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Directory(#[from] directory::DirectoryOpenError),
    #[error(transparent)]
    Migrate(#[from] directory::MigrateError),
}

impl Storage {
    /// Opens `log.db` and `users.db` in this folder; creates missing files.
    pub(crate) async fn open_folder(folder: &Path) -> Result<Self, StorageError> {
        let log = Embedded::open(&folder.join("log.db")).await?;
        let directory = Directory::open_sqlite(&folder.join("users.db")).await?;
        directory.migrate().await?;
        Ok(Self { log, directory })
    }

    pub(crate) fn log(&self) -> Log {
        Log::Embedded(self.log.clone())
    }

    /// Closes the files. Must run after both services have ended.
    pub(crate) async fn close(self) {
        self.directory.close().await;
        self.log.close().await;
    }
}
