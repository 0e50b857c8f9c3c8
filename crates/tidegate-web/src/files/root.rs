//! `Root`: the directory that is served, and the only way to a file under it.
//!
//! Invariant: nothing outside the directory is ever opened. Names are resolved by the kernel relative to a descriptor of
//! the root with `RESOLVE_BENEATH` (openat2(2)), so `..`, absolute names and symbolic links that lead out fail there,
//! whatever happens to the tree meanwhile. Only regular files are opened: what a name stands for is looked at first through
//! a descriptor that opens nothing (`O_PATH`), so no FIFO has a reader, no device is touched, and no open ever waits.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

use super::identity::Identity;

/// A directory that is served.
#[derive(Debug)]
pub(crate) struct Root {
    dir: OwnedFd,
    dot_files: DotFiles,
}

/// What is done with names that begin with a dot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum DotFiles {
    /// They do not exist, but for `.well-known` (RFC 8615).
    Hidden,
    /// They are files as others are.
    Served,
}

/// What a path names.
#[derive(Debug)]
pub(crate) enum Opened {
    /// A regular file, open for reading.
    File(OwnedFd, Identity),
    /// A directory, not open for reading.
    Directory(OwnedFd),
}

/// Why a path is not served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum OpenError {
    /// There is nothing, nothing regular, or nothing beneath the root.
    NotFound,
    /// It may not be read.
    Forbidden,
    /// No descriptor or no memory is left.
    Exhausted,
    /// Something else, which is the server's fault.
    Failed(Errno),
}

/// How often an open is tried that a concurrent rename disturbed (EAGAIN of openat2(2)).
const ATTEMPTS: usize = 8;

impl Root {
    /// Opens the directory, and makes sure that the kernel can resolve beneath it (Linux 5.6).
    pub(crate) fn open(path: &Path, dot_files: DotFiles) -> io::Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = openat(CWD, path, flags, Mode::empty())?;
        openat2(&dir, c".", OFlags::PATH | OFlags::CLOEXEC, Mode::empty(), RESOLVE)?;
        Ok(Self { dir, dot_files })
    }

    /// Opens what a normalised relative path names. With a slash at its end it can only name a directory; the empty path is
    /// the root itself.
    pub(crate) fn open_path(&self, path: &[u8]) -> Result<Opened, OpenError> {
        if self.hides(path) {
            return Err(OpenError::NotFound);
        }
        let path = if path.is_empty() { b"." } else { path };
        for _ in 0..ATTEMPTS {
            let (probe, found) = self.probe(path)?;
            match FileType::from_raw_mode(found.st_mode) {
                FileType::Directory => return Ok(Opened::Directory(probe)),
                FileType::RegularFile => {}
                _ => return Err(OpenError::NotFound),
            }
            // One file takes one descriptor, also for the moment: it may be the last one.
            drop(probe);
            // NONBLOCK is for what could have taken the file's place since; it changes nothing for regular files.
            let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
            let fd = self.open_beneath(path, flags)?;
            let stat = fstat(&fd)?;
            let identity = Identity::of(&stat);
            let is_regular = FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile;
            if is_regular && identity.is_file_of(&Identity::of(&found)) {
                return Ok(Opened::File(fd, identity));
            }
        }
        // Replaced whenever it was looked at.
        Err(OpenError::Exhausted)
    }

    /// What a path names, without opening it.
    pub(crate) fn probe(&self, path: &[u8]) -> Result<(OwnedFd, Stat), OpenError> {
        let probe = self.open_beneath(path, OFlags::PATH | OFlags::CLOEXEC)?;
        let stat = fstat(&probe)?;
        Ok((probe, stat))
    }

    /// Whether a path has a name in it that does not exist for clients.
    pub(crate) fn hides(&self, path: &[u8]) -> bool {
        self.dot_files == DotFiles::Hidden && is_hidden(path)
    }

    fn open_beneath(&self, path: &[u8], flags: OFlags) -> Result<OwnedFd, OpenError> {
        let mut last = Errno::AGAIN;
        for _ in 0..ATTEMPTS {
            match openat2(&self.dir, path, flags, Mode::empty(), RESOLVE) {
                Ok(fd) => return Ok(fd),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(errno) => {
                    last = errno;
                    break;
                }
            }
        }
        Err(last.into())
    }
}

/// Opens a directory for reading its names.
pub(crate) fn open_names(directory: &OwnedFd) -> Result<OwnedFd, OpenError> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(directory, c".", flags, Mode::empty())?)
}

const RESOLVE: ResolveFlags = ResolveFlags::BENEATH.union(ResolveFlags::NO_MAGICLINKS);

fn is_hidden(path: &[u8]) -> bool {
    path.split(|&b| b == b'/').any(|segment| segment.starts_with(b".") && segment != b".well-known")
}

impl From<Errno> for OpenError {
    fn from(errno: Errno) -> Self {
        match errno {
            // XDEV is what RESOLVE_BENEATH says to a way out, LOOP what it says to a magic link, NXIO what a socket says,
            // INVAL and ILSEQ what a name says that can be no name.
            Errno::NOENT
            | Errno::NOTDIR
            | Errno::NAMETOOLONG
            | Errno::LOOP
            | Errno::XDEV
            | Errno::NXIO
            | Errno::NODEV
            | Errno::INVAL
            | Errno::ILSEQ => Self::NotFound,
            Errno::ACCESS | Errno::PERM => Self::Forbidden,
            Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::AGAIN => Self::Exhausted,
            other => Self::Failed(other),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dot_files_are_hidden_at_every_depth_but_well_known() {
        for path in [".env", "a/.git/config", ".", "..", ".git/", "a/.b"] {
            assert!(is_hidden(path.as_bytes()), "{path}");
        }
        for path in ["", "a", "a.b/c.", ".well-known/acme-challenge/x", "a/"] {
            assert!(!is_hidden(path.as_bytes()), "{path}");
        }
        assert!(is_hidden(b".well-known/.x") && is_hidden(b".well-known2"));
    }

    #[test]
    fn errnos_become_what_the_client_is_told() {
        assert_eq!(OpenError::from(Errno::ACCESS), OpenError::Forbidden);
        assert_eq!(OpenError::from(Errno::XDEV), OpenError::NotFound);
        assert_eq!(OpenError::from(Errno::MFILE), OpenError::Exhausted);
        assert_eq!(OpenError::from(Errno::IO), OpenError::Failed(Errno::IO));
    }

    #[test]
    fn a_root_that_is_a_file_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = Root::open(file.path(), DotFiles::Hidden).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotADirectory);
    }

    #[test]
    fn the_root_itself_is_a_directory_and_a_file_is_none() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), "a").unwrap();
        let root = Root::open(dir.path(), DotFiles::Hidden).unwrap();
        assert!(matches!(root.open_path(b""), Ok(Opened::Directory(_))));
        assert!(matches!(root.open_path(b"a"), Ok(Opened::File(_, identity)) if identity.size == 1));
        assert!(matches!(root.open_path(b"a/"), Err(OpenError::NotFound)));
    }
}
