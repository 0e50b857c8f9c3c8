//! `Descriptors`: how many this process may still open.
//!
//! What arrives when there is no descriptor left is closed by the kernel, and the connection lost (unix(7), `MSG_CTRUNC`). So
//! whoever receives looks first. The answer may be out of date at once: other threads open files too.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::process::{Resource, getrlimit};

use crate::handover::BATCH;

#[derive(Debug)]
pub(super) struct Descriptors {
    /// `/proc/self/fd`, whose size is the number of open descriptors (proc_pid_fd(5), since Linux 6.2).
    listing: Option<OwnedFd>,
}

/// Where the kernel does not count: the part of the limit below which connections leave plenty. Whatever else each of them
/// needs, it is not three more.
const PLENTY: usize = 4;

impl Descriptors {
    pub(super) fn new() -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Self { listing: openat(CWD, "/proc/self/fd", flags, Mode::empty()).ok() }
    }

    /// How many more can be opened, in a process with so many connections. Where the kernel does not count, a guess that is
    /// too high only far below the limit.
    pub(super) fn free(&self, connections: usize) -> usize {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        match self.count() {
            Some(count) => limit.saturating_sub(count),
            None if connections.saturating_add(BATCH) < limit / PLENTY => limit - connections,
            None => try_some(),
        }
    }

    fn count(&self) -> Option<usize> {
        let size = fstat(self.listing.as_ref()?).ok()?.st_size;
        // An older kernel says 0.
        usize::try_from(size).ok().filter(|count| *count > 0)
    }
}

/// Opens what a message may need at the most, and closes it again.
fn try_some() -> usize {
    let tried: Vec<OwnedFd> = (0..BATCH).map_while(|_| eventfd(0, EventfdFlags::CLOEXEC).ok()).collect();
    tried.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plenty_is_found_with_and_without_a_count() {
        let counted = Descriptors::new();
        assert!(counted.free(0) > BATCH);
        if let Some(count) = counted.count() {
            assert!(count > 3, "{count}");
        }
        let guessing = Descriptors { listing: None };
        assert!(guessing.free(0) > BATCH);
        assert_eq!(guessing.free(usize::MAX), BATCH, "tried");
    }
}
