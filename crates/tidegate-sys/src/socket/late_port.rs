//! `IP_BIND_ADDRESS_NO_PORT`, for which rustix has no name.

use std::os::fd::{AsFd, AsRawFd};

use rustix::io::Errno;

/// Has bind(2) with port 0 choose the address only; connect(2) then chooses the port (ip(7)).
pub(super) fn set(socket: impl AsFd) -> Result<(), Errno> {
    let on: libc::c_int = 1;
    let fd = socket.as_fd().as_raw_fd();
    #[expect(clippy::cast_possible_truncation, reason = "four")]
    let len = size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the option's value is the `c_int` that is pointed to, which outlives the call, and `len` is its size.
    let set = unsafe {
        libc::setsockopt(fd, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT, (&raw const on).cast(), len)
    };
    if set == 0 { Ok(()) } else { Err(last_error()) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL)
}
