//! What this process may have, and how long the kernel is to wait for it.

use std::io;
use std::time::Duration;

use rustix::event::Timespec;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Raises the soft limit on descriptors to the hard one, and answers it.
///
/// # Errors
///
/// What setrlimit(2) answered.
pub(crate) fn raise_descriptor_limit() -> io::Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    Ok(limit.maximum.unwrap_or(u64::MAX))
}

/// How long a time is for `epoll_wait` and `poll`.
pub(crate) fn timespec(time: Duration) -> Timespec {
    // A time too long for the kernel is as good as none: three centuries.
    Timespec::try_from(time).unwrap_or(Timespec { tv_sec: 10_000_000_000, tv_nsec: 0 })
}
