//! The pid file: who is the server of this data directory.
//!
//! The one invariant: the lock decides, not the content (`flock(2)`). A file that a killed server left behind is no
//! obstacle; the kernel released its lock with the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

/// A locked pid file that holds the pid of this process; removed when it is dropped.
#[derive(Debug)]
pub struct PidFile {
    path: PathBuf,
    file: File,
}

/// Why a pid file cannot be had.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PidFileError {
    /// Another process has it.
    #[error("another instance is running: {} is locked by {}", .path.display(), .pid.map_or("another process".to_owned(), |pid| format!("process {pid}")))]
    Held {
        /// The file.
        path: PathBuf,
        /// The pid that stands in it, unless its holder has not written it yet.
        pid: Option<u32>,
    },
    /// A call of the system failed.
    #[error("pid file {}", .path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        source: io::Error,
    },
}

impl PidFile {
    /// Locks the file at `path`, which is created when there is none, and writes the pid of this process into it.
    ///
    /// The lock is not handed to children, and ends with this process however it ends.
    ///
    /// # Errors
    ///
    /// [`PidFileError::Held`] when a running process has it, [`PidFileError::Io`] otherwise.
    pub fn lock(path: &Path) -> Result<Self, PidFileError> {
        let failed = |source| PidFileError::Io { path: path.to_owned(), source };
        for _ in 0..MAX_TRIES {
            let mut file = open(path).map_err(failed)?;
            match flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(rustix::io::Errno::WOULDBLOCK) => {
                    return Err(PidFileError::Held { path: path.to_owned(), pid: read_pid(&mut file) });
                }
                Err(error) => return Err(failed(error.into())),
            }
            // Between the open and the lock its last holder may have removed it, and another process made a new one.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            return Ok(Self { path: path.to_owned(), file });
        }
        Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, "it is replaced again and again")))
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Not somebody else's file that took its place. The lock is held until after the removal.
        if is_at(&self.file, &self.path)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "pid file cannot be removed");
        }
    }
}

/// The pid in a pid file, for those who want to signal its process.
///
/// # Errors
///
/// The error of reading it, and `InvalidData` when no pid stands in it.
pub fn read(path: &Path) -> io::Result<u32> {
    let mut file = File::open(path)?;
    read_pid(&mut file).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no pid stands in it"))
}

fn open(path: &Path) -> io::Result<File> {
    let no_follow = OFlags::NOFOLLOW.bits().cast_signed();
    OpenOptions::new().read(true).write(true).create(true).mode(0o644).custom_flags(no_follow).open(path)
}

fn read_pid(file: &mut File) -> Option<u32> {
    let mut text = String::new();
    file.rewind().ok()?;
    file.take(MAX_PID_TEXT).read_to_string(&mut text).ok()?;
    text.trim().parse().ok()
}

/// Whether the open file is the one that stands at `path`.
fn is_at(file: &File, path: &Path) -> bool {
    match (file.metadata(), fs::symlink_metadata(path)) {
        (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// A pid and a line end are shorter.
const MAX_PID_TEXT: u64 = 16;
const MAX_TRIES: usize = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_is_told_the_first() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.pid");
        let first = PidFile::lock(&path).unwrap();
        assert_eq!(first.path(), path);
        assert_eq!(fs::read_to_string(&path).unwrap(), format!("{}\n", std::process::id()));
        assert_eq!(read(&path).unwrap(), std::process::id());
        let error = PidFile::lock(&path).unwrap_err();
        assert!(matches!(error, PidFileError::Held { pid: Some(pid), .. } if pid == std::process::id()));
        assert!(
            error.to_string().ends_with(&format!("is locked by process {}", std::process::id())),
            "{error}"
        );
        drop(first);
        assert!(!path.exists());
        PidFile::lock(&path).unwrap();
    }

    #[test]
    fn what_a_killed_server_left_is_no_obstacle() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.pid");
        fs::write(&path, "4194304999 and more than a pid\n").unwrap();
        assert!(read(&path).is_err());
        let _file = PidFile::lock(&path).unwrap();
        assert_eq!(read(&path).unwrap(), std::process::id());
    }

    #[test]
    fn a_file_that_took_its_place_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.pid");
        let first = PidFile::lock(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let second = PidFile::lock(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);
        assert!(!path.exists());
    }

    #[test]
    fn links_are_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (path, target) = (dir.path().join("tidegate.pid"), dir.path().join("precious"));
        fs::write(&target, "precious").unwrap();
        std::os::unix::fs::symlink(&target, &path).unwrap();
        assert!(matches!(PidFile::lock(&path), Err(PidFileError::Io { .. })));
        assert_eq!(fs::read_to_string(&target).unwrap(), "precious");
    }
}
