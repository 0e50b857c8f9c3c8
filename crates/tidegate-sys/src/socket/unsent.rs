//! `TCP_NOTSENT_LOWAT`, for which rustix has no name.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Has the kernel take no more when so many bytes wait to be sent for the first time (tcp(7)); 0: as
/// `net.ipv4.tcp_notsent_lowat` says.
pub(super) fn set(socket: impl AsFd, bytes: u32) -> Result<(), Errno> {
    let fd = socket.as_fd().as_raw_fd();
    #[expect(clippy::cast_possible_truncation, reason = "four")]
    let len = size_of::<u32>() as libc::socklen_t;
    // SAFETY: the option's value is the `u32` that is pointed to, which outlives the call, and `len` is its size.
    let set = unsafe {
        libc::setsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, (&raw const bytes).cast(), len)
    };
    if set == 0 { Ok(()) } else { Err(last_error()) }
}

/// What [`set`] has set.
#[cfg(test)]
pub(super) fn get(socket: impl AsFd) -> Result<u32, Errno> {
    let fd = socket.as_fd().as_raw_fd();
    let mut bytes = 0_u32;
    #[expect(clippy::cast_possible_truncation, reason = "four")]
    let mut len = size_of::<u32>() as libc::socklen_t;
    let (value, size) = ((&raw mut bytes).cast(), &raw mut len);
    // SAFETY: `value` points to `len` bytes that the kernel may write, and both outlive the call.
    let got = unsafe { libc::getsockopt(fd, libc::IPPROTO_TCP, libc::TCP_NOTSENT_LOWAT, value, size) };
    if got == 0 { Ok(bytes) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
