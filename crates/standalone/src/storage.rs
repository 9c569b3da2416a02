//! The embedded log and directory, in one folder.

use std::{error::Error, path::Path};

use event_log::{Log, embedded::Embedded};
use producer::directory::Directory;

/// The log and the user directory that both services use.
pub(crate) struct Storage {
    log: Embedded,
    pub(crate) directory: Directory,
}

impl Storage {
    /// Opens `log.db` and `users.db` in this folder; creates missing files.
    pub(crate) async fn open_folder(folder: &Path) -> Result<Self, Box<dyn Error>> {
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
