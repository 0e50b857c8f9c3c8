//! `Descriptors`: how many this process may still open.
//!
//! What arrives when there is no descriptor left is closed by the kernel, and the connection lost (unix(7), `MSG_CTRUNC`). So
//! whoever receives looks first. The answer may be out of date at once: other threads open files too.
//!
//! As many as a message may bring are held in reserve, and given up for a moment when no others are left, so that peers can
//! be told.
//!
//! Invariant: the reserve is [`BATCH`] descriptors, or fewer while the process has none to fill it up with.

use std::os::fd::OwnedFd;

use rustix::event::{EventfdFlags, eventfd};
use rustix::fs::{CWD, Mode, OFlags, fstat, openat};
use rustix::process::{Resource, getrlimit};

use crate::handover::BATCH;

#[derive(Debug)]
pub(super) struct Descriptors {
    /// `/proc/self/fd`, whose size is the number of open descriptors (proc_pid_fd(5), since Linux 6.2).
    listing: Option<OwnedFd>,
    reserve: Vec<OwnedFd>,
}

/// How many more of the reserve are given up than are needed.
const SLACK: usize = 4;
/// Where the kernel does not count: the part of the limit below which connections leave plenty. Whatever else each of them
/// needs, it is not three more.
const PLENTY: usize = 4;

impl Descriptors {
    pub(super) fn new() -> Self {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let listing = openat(CWD, "/proc/self/fd", flags, Mode::empty()).ok();
        let mut descriptors = Self { listing, reserve: Vec::with_capacity(BATCH) };
        descriptors.fill_reserve();
        descriptors
    }

    /// Takes back what was given up of the reserve, as far as there are descriptors.
    pub(super) fn fill_reserve(&mut self) {
        let missing = BATCH - self.reserve.len();
        self.reserve.extend(open_some(missing));
    }

    /// Gives up so many of the reserve, for what is received next, and some more if there are: another thread may be faster.
    /// False when there are not so many, and nothing was done.
    pub(super) fn give_up(&mut self, count: usize) -> bool {
        let enough = count <= self.reserve.len();
        if enough {
            self.reserve.truncate(self.reserve.len().saturating_sub(count + SLACK));
        }
        enough
    }

    /// How many more can be opened, in a process with so many connections. Where the kernel does not count, a guess that is
    /// too high only far below the limit.
    pub(super) fn free(&self, connections: usize) -> usize {
        let limit = getrlimit(Resource::Nofile).current;
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        match self.count() {
            Some(count) => limit.saturating_sub(count),
            None if connections.saturating_add(BATCH) < limit / PLENTY => limit - connections,
            None => open_some(BATCH).count(),
        }
    }

    fn count(&self) -> Option<usize> {
        let size = fstat(self.listing.as_ref()?).ok()?.st_size;
        // An older kernel says 0.
        usize::try_from(size).ok().filter(|count| *count > 0)
    }
}

/// Opens so many, or as many as there are.
fn open_some(count: usize) -> impl Iterator<Item = OwnedFd> {
    let opened: Vec<OwnedFd> = (0..count).map_while(|_| eventfd(0, EventfdFlags::CLOEXEC).ok()).collect();
    opened.into_iter()
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
        let guessing = Descriptors { listing: None, reserve: Vec::new() };
        assert!(guessing.free(0) > BATCH);
        assert_eq!(guessing.free(usize::MAX), BATCH, "tried");
    }

    #[test]
    fn the_reserve_is_given_up_and_filled_again() {
        let mut descriptors = Descriptors::new();
        assert_eq!(descriptors.reserve.len(), BATCH);
        assert!(descriptors.give_up(2) && !descriptors.give_up(BATCH - 2));
        assert_eq!(descriptors.reserve.len(), BATCH - 2 - SLACK);
        assert!(descriptors.give_up(BATCH - 2 - SLACK) && descriptors.reserve.is_empty());
        descriptors.fill_reserve();
        descriptors.fill_reserve();
        assert_eq!(descriptors.reserve.len(), BATCH);
    }
}
