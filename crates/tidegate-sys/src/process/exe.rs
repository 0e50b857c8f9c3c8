//! A binary as an open descriptor.
//!
//! The one invariant: what is started later is the file that was opened, whatever its path names by then. It does not
//! start anything itself.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

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
        Self::open(Path::new(SELF))
    }

    /// Where the binary that this process runs stands, for an upgrade that opens later what stands there by then. To be
    /// asked at the start: links are resolved already, and a file that was replaced keeps the name that it had.
    ///
    /// For a binary that has no name any more the kernel says its former path with ` (deleted)` behind; this is the former
    /// path.
    ///
    /// # Errors
    ///
    /// The error of `readlink(2)` of `/proc/self/exe`, and `NotFound` when it is no absolute path.
    pub fn path_of_self() -> io::Result<PathBuf> {
        let link = std::fs::read_link(SELF)?;
        // A name may really end so, and is told by being that very file.
        let identity = |path: &Path| std::fs::metadata(path).map(|file| (file.dev(), file.ino())).ok();
        let is_there = identity(&link).is_some_and(|there| identity(Path::new(SELF)) == Some(there));
        let path = if is_there { link } else { without_mark(link) };
        if path.is_absolute() { Ok(path) } else { Err(io::ErrorKind::NotFound.into()) }
    }

    /// The binary behind a descriptor that passed over an exec.
    #[must_use]
    pub fn from_fd(fd: OwnedFd) -> Self {
        Self(fd)
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

fn without_mark(link: PathBuf) -> PathBuf {
    match link.as_os_str().as_bytes().strip_suffix(DELETED) {
        Some(path) => PathBuf::from(std::ffi::OsString::from_vec(path.to_vec())),
        None => link,
    }
}

const SELF: &str = "/proc/self/exe";
const DELETED: &[u8] = b" (deleted)";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_of_self_leads_to_the_same_file() {
        let path = Exe::path_of_self().unwrap();
        let (there, own) = (std::fs::metadata(path).unwrap(), std::fs::metadata(SELF).unwrap());
        assert_eq!((there.dev(), there.ino()), (own.dev(), own.ino()));
    }

    #[test]
    fn the_mark_of_a_removed_file_is_taken_off_once() {
        for (link, path) in
            [("/a/b (deleted)", "/a/b"), ("/a/b", "/a/b"), ("/a/b (deleted) (deleted)", "/a/b (deleted)")]
        {
            assert_eq!(without_mark(PathBuf::from(link)), Path::new(path));
        }
    }
}
