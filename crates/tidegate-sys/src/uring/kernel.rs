//! The system calls of io_uring(7) that the `io-uring` crate has no safe or no complete face for.

use std::mem::size_of;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::IoUring;
use rustix::io::Errno;
use rustix::time::Timespec;

/// How a thread names its ring to the kernel.
#[derive(Clone, Copy, Debug)]
pub(super) enum RingFd {
    Plain(RawFd),
    /// An index in the thread's own table, which spares the kernel to count its users (`IORING_REGISTER_RING_FDS`).
    Registered(u32),
}

/// `struct io_uring_getevents_arg`, io_uring_enter(2).
#[repr(C)]
struct GetEvents {
    sigmask: u64,
    sigmask_size: u32,
    min_wait_usec: u32,
    timeout: u64,
}

/// `struct io_uring_rsrc_update`, io_uring_register(2).
#[repr(C)]
struct FileUpdate {
    offset: u32,
    resv: u32,
    data: u64,
}

const ENTER_GETEVENTS: u32 = 1 << 0;
const ENTER_EXT_ARG: u32 = 1 << 3;
const ENTER_REGISTERED_RING: u32 = 1 << 4;
const REGISTER_RING_FDS: u32 = 20;
const UNREGISTER_RING_FDS: u32 = 21;

/// Submits `queued` submissions, does what waits for this thread, and waits for `least` completions.
#[inline]
pub(super) fn enter(fd: RingFd, queued: u32, least: u32, limit: Option<&Timespec>) -> Result<(), Errno> {
    let (fd, flag) = match fd {
        RingFd::Plain(fd) => (fd, 0),
        RingFd::Registered(index) => (index.cast_signed(), ENTER_REGISTERED_RING),
    };
    let timeout = limit.map_or(0, |limit| std::ptr::from_ref(limit) as u64);
    let argument = GetEvents { sigmask: 0, sigmask_size: 0, min_wait_usec: 0, timeout };
    // SAFETY: the ring's submissions were queued by `Ring`, which keeps what they point to; `argument` and the timeout,
    // which has the layout of `struct __kernel_timespec`, are only read, during the call.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_io_uring_enter,
            fd,
            queued,
            least,
            ENTER_GETEVENTS | ENTER_EXT_ARG | flag,
            &raw const argument,
            size_of::<GetEvents>(),
        )
    };
    if answer < 0 { Err(last_error()) } else { Ok(()) }
}

/// Puts a ring into the calling thread's table. `None` when the kernel or the table does not take it.
pub(super) fn register_fd(ring: &IoUring) -> Option<u32> {
    let fd = ring.as_raw_fd();
    // An offset of -1 asks for any free place, and the kernel writes which.
    let mut update = FileUpdate { offset: u32::MAX, resv: 0, data: fd as u64 };
    // SAFETY: `update` is one valid `struct io_uring_rsrc_update`, which the kernel reads and writes during the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_io_uring_register, fd, REGISTER_RING_FDS, &raw mut update, 1) };
    (answer == 1).then_some(update.offset)
}

/// Takes a ring out of the calling thread's table, which would keep it alive.
pub(super) fn unregister_fd(ring: &IoUring, index: u32) {
    let mut update = FileUpdate { offset: index, resv: 0, data: 0 };
    // SAFETY: as in `register_fd`.
    let answer = unsafe {
        libc::syscall(libc::SYS_io_uring_register, ring.as_raw_fd(), UNREGISTER_RING_FDS, &raw mut update, 1)
    };
    debug_assert_eq!(answer, 1, "this thread has registered it");
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}
