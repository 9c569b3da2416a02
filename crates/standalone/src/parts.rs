//! The embedded log and directory, in one folder.

use std::path::Path;

use event_log::{
    Log,
    embedded::{Embedded, OpenError},
};
use producer::directory::{self, Directory};

/// What both services work on.
pub(crate) struct Parts {
    log: Embedded,
    pub(crate) directory: Directory,
}

/// The folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PartsError {
    #[error(transparent)]
    Log(#[from] OpenError),
    #[error(transparent)]
    Directory(#[from] directory::DirectoryOpenError),
    #[error(transparent)]
    Migrate(#[from] directory::MigrateError),
}

impl Parts {
    /// Opens `log.db` and `users.db` in this folder; makes what is missing.
    pub(crate) async fn open(folder: &Path) -> Result<Self, PartsError> {
        let log = Embedded::open(&folder.join("log.db")).await?;
        let directory = Directory::open_sqlite(&folder.join("users.db")).await?;
        directory.migrate().await?;
        Ok(Self { log, directory })
    }

    pub(crate) fn log(&self) -> Log {
        Log::Embedded(self.log.clone())
    }

    /// Closes the files; to be called after both services have ended.
    pub(crate) async fn close(self) {
        self.directory.close().await;
        self.log.close().await;
    }
}
