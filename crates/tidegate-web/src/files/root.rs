//! `Root`: the directory that is served, and the only way to a file under it.
//!
//! Invariant: nothing outside the directory is ever opened. Names are resolved by the kernel relative to a descriptor of
//! the root with `RESOLVE_BENEATH` (openat2(2)), so `..`, absolute names and symbolic links that lead out fail there,
//! whatever happens to the tree meanwhile. Only regular files come out, and no open ever waits for a writer of a FIFO.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2};
use rustix::io::Errno;

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
    File(OwnedFd, Stat),
    /// A directory; the path did not end with a slash.
    Directory,
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

/// The file of a directory that is named by a path with a slash at its end.
const INDEX: &[u8] = b"index.html";
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

    /// Opens what a normalised relative path names: `index.html` of a directory when it is empty or ends with a slash.
    pub(crate) fn open_file(&self, path: &[u8]) -> Result<Opened, OpenError> {
        if self.dot_files == DotFiles::Hidden && is_hidden(path) {
            return Err(OpenError::NotFound);
        }
        let names_directory = path.is_empty() || path.ends_with(b"/");
        let fd = if names_directory {
            self.open_beneath(&[path, INDEX].concat())?
        } else {
            self.open_beneath(path)?
        };
        let stat = fstat(&fd).map_err(OpenError::from)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Ok(Opened::File(fd, stat)),
            FileType::Directory if !names_directory => Ok(Opened::Directory),
            _ => Err(OpenError::NotFound),
        }
    }

    fn open_beneath(&self, path: &[u8]) -> Result<OwnedFd, OpenError> {
        // NONBLOCK is for FIFOs and devices; it changes nothing for regular files.
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
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
}
