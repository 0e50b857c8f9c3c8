//! Which descriptors are open at all.
//!
//! The one invariant: it only looks. What this program opens is closed at exec (`FD_CLOEXEC`); a descriptor without that
//! flag was inherited, left by careless code, or is on its way to another program.

use std::fs;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd};

use super::FIRST_FD;

/// The descriptors behind the standard streams that an exec would hand on as things are.
///
/// # Errors
///
/// The error of reading `/proc/self/fd`.
pub(crate) fn open_at_exec() -> io::Result<Vec<RawFd>> {
    let mut open = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let Some(number) = entry?.file_name().to_str().and_then(|name| name.parse::<RawFd>().ok()) else {
            continue;
        };
        // SAFETY: the number is not -1, and is only asked for its flags.
        let fd = unsafe { BorrowedFd::borrow_raw(number) };
        if number >= FIRST_FD && fcntl_getfd(fd).is_ok_and(|flags| !flags.contains(FdFlags::CLOEXEC)) {
            open.push(number);
        }
    }
    Ok(open)
}
