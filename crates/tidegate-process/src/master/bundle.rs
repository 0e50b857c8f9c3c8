//! `Bundle`: descriptors that survive an exec, and their places.
//!
//! The one invariant: a descriptor that is put twice has one place, and is one descriptor again on the other side.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::Arc;

/// Descriptors that are about to be handed to the next image of this process.
#[derive(Debug, Default)]
pub struct Bundle<'a> {
    fds: Vec<BorrowedFd<'a>>,
}

impl<'a> Bundle<'a> {
    /// Adds a descriptor, and returns its place.
    pub fn put(&mut self, fd: &'a impl AsFd) -> usize {
        self.put_borrowed(fd.as_fd())
    }

    /// As [`put`](Self::put).
    pub fn put_borrowed(&mut self, fd: BorrowedFd<'a>) -> usize {
        let number: RawFd = fd.as_raw_fd();
        if let Some(place) = self.fds.iter().position(|known| known.as_raw_fd() == number) {
            return place;
        }
        self.fds.push(fd);
        self.fds.len() - 1
    }

    pub(crate) fn fds(&self) -> &[BorrowedFd<'a>] {
        &self.fds
    }
}

/// Descriptors that the image before has handed over.
#[derive(Clone, Debug, Default)]
pub struct Unbundled {
    fds: Vec<Arc<OwnedFd>>,
}

impl Unbundled {
    pub(crate) fn new(fds: Vec<OwnedFd>) -> Self {
        Self { fds: fds.into_iter().map(Arc::new).collect() }
    }

    /// The descriptor at a place; `None` when nothing was handed over there.
    #[must_use]
    pub fn get(&self, place: usize) -> Option<Arc<OwnedFd>> {
        self.fds.get(place).cloned()
    }

    /// A descriptor of one's own for what stands at a place; `None` when nothing does, or when there is no descriptor left.
    pub fn take(&self, place: usize) -> Option<OwnedFd> {
        self.fds.get(place).and_then(|fd| fd.try_clone().ok())
    }

    pub(crate) fn all(&self) -> &[Arc<OwnedFd>] {
        &self.fds
    }
}
