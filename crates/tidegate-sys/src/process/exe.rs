//! A binary as an open descriptor.
//!
//! The one invariant: what is started later is the file that was opened, whatever its path names by then. It does not
//! start anything itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

use rustix::fs::{Mode, OFlags};

/// A binary, held open for `execveat(2)`.
#[derive(Debug)]
pub struct Exe(OwnedFd);

impl Exe {
    /// The binary that this process runs, even when its file was replaced or removed since.
    ///
    /// # Errors
    ///
    /// The error of `open(2)` of `/proc/self/exe`.
    pub fn open_self() -> io::Result<Self> {
        Self::open(Path::new("/proc/self/exe"))
    }

    /// The binary at `path`.
    ///
    /// # Errors
    ///
    /// The error of `open(2)`.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(rustix::fs::open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?))
    }
}

impl AsFd for Exe {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
