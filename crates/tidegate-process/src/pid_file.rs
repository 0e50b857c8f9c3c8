//! The pid file: who is the server of this data directory.
//!
//! The one invariant: the lock decides, not the content (`flock(2)`). A file that a killed server left behind is no
//! obstacle; the kernel released its lock with the process.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use rustix::io::Errno;

use crate::owned_path::{OwnedPath, identity};

/// A locked pid file that holds the pid of this process; removed when that process drops it.
///
/// The lock belongs to the open file. It passes over an exec in place with the descriptor, and a child of a fork that drops
/// its copy of this value neither releases the lock nor removes the file.
///
/// ```
/// use tidegate_process::{PidFile, PidFileError, pid_file};
///
/// # let dir = tempfile::tempdir()?;
/// # let path = dir.path().join("server.pid");
/// let file = PidFile::lock(&path)?;
/// assert_eq!(pid_file::read(&path)?, std::process::id());
/// assert!(matches!(PidFile::lock(&path), Err(PidFileError::Held { .. })));
/// drop(file);
/// assert!(!path.exists());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct PidFile {
    /// Dropped first: the lock is held until after the removal.
    owned: OwnedPath,
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
    /// Another file stands at the path, or none, so the lock keeps nobody out.
    #[error("pid file {} was removed or replaced", .0.display())]
    Replaced(PathBuf),
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
            lock(&mut file, path)?;
            // Between the open and the lock its last holder may have removed it, and another process made a new one.
            if !is_at(&file, path) {
                continue;
            }
            file.set_len(0).map_err(failed)?;
            writeln!(file, "{}", std::process::id()).map_err(failed)?;
            return Self::of(path, file).map_err(failed);
        }
        Err(failed(io::Error::new(io::ErrorKind::ResourceBusy, "it is replaced again and again")))
    }

    /// Goes on with a file that an earlier program in this process has locked; the pid in it still holds. An error leaves
    /// the file as it is, and closes the descriptor; the lock is kept by another one of the same open file, if there is one.
    ///
    /// # Errors
    ///
    /// [`PidFileError::Replaced`] when it is not the file at `path`; a new one can be locked there then.
    /// [`PidFileError::Held`] when another process has the lock, [`PidFileError::Io`] otherwise.
    pub fn resume(path: &Path, fd: OwnedFd) -> Result<Self, PidFileError> {
        let mut file = File::from(fd);
        if !is_at(&file, path) {
            return Err(PidFileError::Replaced(path.to_owned()));
        }
        // Of an open file that has the lock this asks for nothing new.
        lock(&mut file, path)?;
        Self::of(path, file).map_err(|source| PidFileError::Io { path: path.to_owned(), source })
    }

    fn of(path: &Path, file: File) -> io::Result<Self> {
        Ok(Self { owned: OwnedPath::new(path, &file.metadata()?), file })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.owned.path()
    }

    /// What [`PidFile::resume`] needs after an exec. The file stays, since an exec runs no destructor.
    #[must_use]
    pub fn parts(&self) -> (&Path, BorrowedFd<'_>) {
        (self.owned.path(), self.file.as_fd())
    }

    /// Gives it away, locked and not removed: for a program that cannot go on, and lets another one in this process do.
    #[must_use]
    pub fn into_parts(self) -> (PathBuf, OwnedFd) {
        (self.owned.leave(), self.file.into())
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

fn lock(file: &mut File, path: &Path) -> Result<(), PidFileError> {
    match flock(&*file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(()),
        Err(Errno::WOULDBLOCK) => Err(PidFileError::Held { path: path.to_owned(), pid: read_pid(file) }),
        Err(error) => Err(PidFileError::Io { path: path.to_owned(), source: error.into() }),
    }
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
        (Ok(ours), Ok(there)) => identity(&ours) == identity(&there),
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
    fn it_goes_on_in_the_next_program() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.pid");
        let (same_path, fd) = PidFile::lock(&path).unwrap().into_parts();
        assert_eq!(same_path, path);
        assert_eq!(read(&path).unwrap(), std::process::id(), "it was not removed");
        assert!(matches!(PidFile::lock(&path), Err(PidFileError::Held { .. })));
        let resumed = PidFile::resume(&path, fd).unwrap();
        assert_eq!(resumed.parts().0, path);
        assert!(matches!(PidFile::lock(&path), Err(PidFileError::Held { .. })));
        drop(resumed);
        assert!(!path.exists());
    }

    #[test]
    fn what_is_not_the_locked_file_is_not_gone_on_with() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tidegate.pid");
        let held = PidFile::lock(&path).unwrap();
        let other = OwnedFd::from(File::open(&path).unwrap());
        assert!(matches!(PidFile::resume(&path, other), Err(PidFileError::Held { pid: Some(_), .. })));
        assert!(path.exists());
        let fd = held.parts().1.try_clone_to_owned().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(PidFile::resume(&path, fd), Err(PidFileError::Replaced(_))));
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
