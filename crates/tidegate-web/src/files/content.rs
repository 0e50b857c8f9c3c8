//! The content of files: read whole while nobody changes it, or kept where it is.
//!
//! Invariant: what is read is the content of one state of the file, or it is an error.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rustix::fs::{MemfdFlags, fstat, memfd_create};

use super::identity::Identity;
use crate::encoded::Content;
use crate::response::FileSlice;

/// Content up to this size is sent from memory. Below it a copy is cheaper than a second system call.
pub(crate) const MAX_INLINE_BYTES: u64 = 16 << 10;

/// Reads all of a file, and makes sure that it is still in the state that it was opened in.
///
/// # Errors
///
/// `Interrupted` when it is not.
pub(crate) fn read_unchanged(fd: &OwnedFd, identity: &Identity) -> io::Result<Vec<u8>> {
    let bytes = read_up_to(fd, identity.size)?;
    if Identity::of(&fstat(fd)?) == *identity && bytes.len() as u64 == identity.size {
        return Ok(bytes);
    }
    Err(changed())
}

fn changed() -> io::Error {
    io::Error::new(io::ErrorKind::Interrupted, "the file changed while it was read")
}

/// Keeps what was compressed as a file of the same size would be: large results in memory of the kernel, from where they
/// are sent without a copy, unless that cannot be had.
pub(crate) fn keep(bytes: &[u8]) -> Content<'_> {
    if bytes.len() as u64 <= MAX_INLINE_BYTES {
        return Content::Inline(bytes);
    }
    match memory_file(bytes) {
        Ok(file) => Content::File(FileSlice { file: Arc::new(file), offset: 0, len: bytes.len() as u64 }),
        Err(error) => {
            tracing::debug!(%error, "no file in memory for what was compressed");
            Content::Inline(bytes)
        }
    }
}

fn memory_file(bytes: &[u8]) -> rustix::io::Result<OwnedFd> {
    let file = memfd_create("tidegate-compressed", MemfdFlags::CLOEXEC)?;
    let mut written = 0;
    while written < bytes.len() {
        written += rustix::io::retry_on_intr(|| rustix::io::write(&file, &bytes[written..]))?;
    }
    Ok(file)
}

/// Reads `len` bytes, or fewer when the file has become shorter since it was looked at.
pub(crate) fn read_up_to(fd: &OwnedFd, len: u64) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; usize::try_from(len).map_err(io::Error::other)?];
    let mut filled = 0;
    while filled < bytes.len() {
        match rustix::io::pread(fd, &mut bytes[filled..], filled as u64) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(rustix::io::Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
    bytes.truncate(filled);
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::File;

    #[test]
    fn a_file_that_shrank_or_changed_is_not_taken_for_what_it_was() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), b"abc").unwrap();
        let fd = OwnedFd::from(File::open(file.path()).unwrap());
        let identity = Identity::of(&fstat(&fd).unwrap());
        assert_eq!(read_unchanged(&fd, &identity).unwrap(), b"abc");
        assert_eq!(
            (read_up_to(&fd, 10).unwrap(), read_up_to(&fd, 2).unwrap()),
            (b"abc".to_vec(), b"ab".to_vec())
        );
        for content in [&b"ab"[..], b"abcd"] {
            std::fs::write(file.path(), content).unwrap();
            assert_eq!(read_unchanged(&fd, &identity).unwrap_err().kind(), io::ErrorKind::Interrupted);
        }
    }

    #[test]
    fn what_is_kept_in_a_file_is_all_there() {
        for len in [0, 16 << 10, (16 << 10) + 1, 1 << 20] {
            let bytes: Vec<u8> = (0..=255).cycle().take(len).collect();
            match keep(&bytes) {
                Content::Inline(kept) => assert!(kept == bytes && len <= 16 << 10),
                Content::File(slice) => {
                    assert!(read_up_to(&slice.file, slice.len + 1).unwrap() == bytes && len > 16 << 10);
                }
            }
        }
    }
}
