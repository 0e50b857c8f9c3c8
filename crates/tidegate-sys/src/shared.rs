//! Memory files (`memfd_create(2)`): counters that several processes share, and bytes handed to a child.
//!
//! The one invariant: a mapped file can neither shrink nor grow, which a seal of the kernel guarantees, so that no access
//! to a [`SharedMemory`] can fault. Its content is seen as atomics only; which counter stands where is decided elsewhere.

use std::ffi::c_void;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::slice;
use std::sync::atomic::AtomicU64;

use rustix::fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create};
use rustix::io::{Errno, pread, pwrite};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// A piece of memory that all processes that hold its descriptor share; zero at first.
///
/// ```
/// use std::sync::atomic::Ordering;
/// use tidegate_sys::shared::SharedMemory;
///
/// let memory = SharedMemory::create("counters", 4096)?;
/// let other = SharedMemory::from_fd(memory.as_fd().try_clone_to_owned()?)?;
/// memory.as_atomics()[3].fetch_add(1, Ordering::Relaxed);
/// assert_eq!(other.as_atomics()[3].load(Ordering::Relaxed), 1);
/// # use std::os::fd::AsFd;
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SharedMemory {
    fd: OwnedFd,
    /// Start of the mapping: page-aligned, `words` long, mapped until drop.
    start: NonNull<AtomicU64>,
    words: usize,
}

// SAFETY: the mapping belongs to the process, not to a thread, and is reached through atomics only.
unsafe impl Send for SharedMemory {}
// SAFETY: as above.
unsafe impl Sync for SharedMemory {}

impl SharedMemory {
    /// A new piece of `bytes` bytes (rounded up to whole words of eight), all zero; `name` shows in `/proc/PID/maps`.
    ///
    /// # Errors
    ///
    /// `InvalidInput` for no bytes at all, and the errors of `memfd_create(2)`, `ftruncate(2)` and `mmap(2)`.
    pub fn create(name: &str, bytes: usize) -> io::Result<Self> {
        let bytes = bytes.checked_next_multiple_of(WORD_BYTES).unwrap_or(usize::MAX);
        let fd = create_file(name)?;
        let size = u64::try_from(bytes).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        ftruncate(&fd, size)?;
        fcntl_add_seals(&fd, FIXED_SIZE | SealFlags::SEAL)?;
        Self::from_fd(fd)
    }

    /// Maps the piece behind a descriptor that was inherited or received.
    ///
    /// # Errors
    ///
    /// `InvalidInput` when it is not a memory file sealed against shrinking and growing, is empty, or is not whole words;
    /// and the errors of `mmap(2)`.
    pub fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let seals = fcntl_get_seals(&fd).map_err(|_| invalid("not a memory file"))?;
        if !seals.contains(FIXED_SIZE) {
            return Err(invalid("memory file is not sealed against resizing"));
        }
        let bytes = usize::try_from(fstat(&fd)?.st_size).map_err(|_| invalid("memory file is too large"))?;
        if bytes == 0 || !bytes.is_multiple_of(WORD_BYTES) {
            return Err(invalid("size of the memory file is not whole words"));
        }
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a fresh mapping at an address of the kernel's choice touches nothing that exists.
        let start = unsafe { mmap(ptr::null_mut(), bytes, access, MapFlags::SHARED, &fd, 0) }?;
        let start = NonNull::new(start.cast()).ok_or_else(|| invalid("mapped at address zero"))?;
        Ok(Self { fd, start, words: bytes / WORD_BYTES })
    }

    /// The memory as atomic words. Any value is a valid counter, whatever the other processes write.
    #[must_use]
    pub fn as_atomics(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `words` long, readable and writable, and lives as long as self. The seals
        // keep the file behind it at its size. Every process that maps it by this type accesses it atomically.
        unsafe { slice::from_raw_parts(self.start.as_ptr(), self.words) }
    }

    /// The size in bytes: a multiple of eight, and never zero.
    #[must_use]
    pub fn size_bytes(&self) -> usize {
        self.words * WORD_BYTES
    }
}

impl AsFd for SharedMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for SharedMemory {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made by `from_fd`; no borrow of it outlives self.
        let unmapped = unsafe { munmap(self.start.as_ptr().cast::<c_void>(), self.size_bytes()) };
        debug_assert!(unmapped.is_ok(), "munmap of our own mapping: {unmapped:?}");
    }
}

impl fmt::Debug for SharedMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SharedMemory").field("fd", &self.fd).field("bytes", &self.size_bytes()).finish()
    }
}

/// A memory file that holds `bytes` and can never change again: a message of any size for a child that is to be started.
///
/// # Errors
///
/// The errors of `memfd_create(2)` and `write(2)`.
pub fn sealed_bytes(name: &str, bytes: &[u8]) -> io::Result<OwnedFd> {
    let fd = create_file(name)?;
    let mut offset = 0;
    while offset < bytes.len() {
        match pwrite(&fd, &bytes[offset..], offset as u64) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => offset += written,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    fcntl_add_seals(&fd, FIXED_SIZE | SealFlags::WRITE | SealFlags::SEAL)?;
    Ok(fd)
}

/// The whole content of a memory file, of at most `max_bytes` bytes.
///
/// It is read by position: the file offset belongs to all the processes that inherited the descriptor, so it is neither
/// used nor moved.
///
/// # Errors
///
/// `InvalidData` when there are more than `max_bytes`, and the errors of `pread(2)`.
pub fn read_all(fd: BorrowedFd<'_>, max_bytes: usize) -> io::Result<Vec<u8>> {
    let size = usize::try_from(fstat(fd)?.st_size).unwrap_or(usize::MAX);
    if size > max_bytes {
        let text = format!("{size} bytes, at most {max_bytes} are taken");
        return Err(io::Error::new(io::ErrorKind::InvalidData, text));
    }
    let mut bytes = vec![0; size];
    let mut offset = 0;
    while offset < size {
        match pread(fd, &mut bytes[offset..], offset as u64) {
            Ok(0) => break,
            Ok(read) => offset += read,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    bytes.truncate(offset);
    Ok(bytes)
}

fn create_file(name: &str) -> io::Result<OwnedFd> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    match memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        // Before Linux 6.3 that flag is unknown, and refused.
        Err(Errno::INVAL) => Ok(memfd_create(name, flags)?),
        other => Ok(other?),
    }
}

const WORD_BYTES: usize = size_of::<AtomicU64>();
const FIXED_SIZE: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW);

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_see_one_memory() {
        let one = SharedMemory::create("test", 100).unwrap();
        assert_eq!((one.size_bytes(), one.as_atomics().len()), (104, 13));
        assert!(one.as_atomics().iter().all(|word| word.load(Ordering::Relaxed) == 0));
        let two = SharedMemory::from_fd(one.as_fd().try_clone_to_owned().unwrap()).unwrap();
        one.as_atomics()[12].store(7, Ordering::Relaxed);
        drop(one);
        assert_eq!(two.as_atomics()[12].load(Ordering::Relaxed), 7);
    }

    #[test]
    fn it_cannot_be_resized() {
        let memory = SharedMemory::create("test", 4096).unwrap();
        assert_eq!(ftruncate(&memory, 0).unwrap_err(), Errno::PERM);
        assert_eq!(ftruncate(&memory, 8192).unwrap_err(), Errno::PERM);
    }

    #[test]
    fn what_could_fault_is_refused() {
        assert!(SharedMemory::create("empty", 0).is_err());
        assert!(SharedMemory::create("huge", usize::MAX).is_err());
        let unsealed = create_file("unsealed").unwrap();
        ftruncate(&unsealed, 64).unwrap();
        assert!(SharedMemory::from_fd(unsealed).is_err());
        let file = tempfile::tempfile().unwrap();
        file.set_len(64).unwrap();
        assert!(SharedMemory::from_fd(file.into()).is_err());
        let odd = sealed_bytes("odd", b"123").unwrap();
        assert!(SharedMemory::from_fd(odd).is_err());
        let read_only = sealed_bytes("read only", b"12345678").unwrap();
        assert!(SharedMemory::from_fd(read_only).is_err());
    }

    #[test]
    fn sealed_bytes_come_back_and_stay() {
        let text = vec![b'x'; 100_000];
        let fd = sealed_bytes("config", &text).unwrap();
        assert_eq!(read_all(fd.as_fd(), 100_000).unwrap(), text);
        assert_eq!(read_all(fd.as_fd(), 100_000).unwrap(), text, "reading moves nothing");
        assert_eq!(read_all(fd.as_fd(), 99_999).unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(pwrite(&fd, b"y", 0).unwrap_err(), Errno::PERM);
        assert!(read_all(sealed_bytes("none", b"").unwrap().as_fd(), 0).unwrap().is_empty());
    }
}
