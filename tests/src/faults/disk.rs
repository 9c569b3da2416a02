//! Small disks that can be filled. They are mounted (tmpfs), which needs root.

use std::{
    fs::File,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

/// The name of the file that takes the free space.
const FILLER: &str = "filler";

/// A file system of its own. Dropping it unmounts it.
pub struct SmallDisk {
    folder: TempDir,
}

impl SmallDisk {
    /// Mounts an empty file system of this size.
    ///
    /// # Errors
    /// If it cannot be mounted, for example without root.
    pub fn mount(mebibytes: u32) -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(to_text)?;
        let size = format!("size={mebibytes}m");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &size, "tmpfs"]).arg(folder.path());
        run_command(&mut mount)?;
        Ok(Self { folder })
    }

    /// A new folder of this name on it.
    ///
    /// # Errors
    /// If it cannot be created.
    pub fn create_folder(&self, name: &str) -> Result<PathBuf, String> {
        let folder = self.folder.path().join(name);
        std::fs::create_dir(&folder).map_err(to_text)?;
        Ok(folder)
    }

    /// Takes all its free space.
    ///
    /// # Errors
    /// If the file cannot be created.
    pub fn fill(&self) -> Result<(), String> {
        let mut file = File::create(self.folder.path().join(FILLER)).map_err(to_text)?;
        let piece = vec![1; 64 << 10];
        while file.write_all(&piece).is_ok() {}
        while file.write_all(&piece[..1]).is_ok() {}
        Ok(())
    }

    /// Gives the space back.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn free(&self) -> Result<(), String> {
        std::fs::remove_file(self.folder.path().join(FILLER)).map_err(to_text)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.folder.path()
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Lazily, because a process that is being ended may still have a file open.
        if let Err(error) = run_command(Command::new("umount").arg("-l").arg(self.folder.path())) {
            eprintln!("{error}");
        }
    }
}

fn run_command(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(to_text)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    if output.status.success() { Ok(()) } else { Err(errors.trim().to_owned()) }
}

fn to_text(error: impl std::fmt::Display) -> String {
    error.to_string()
}
