//! `Waker`: ends a reactor's wait from another thread.
//!
//! An eventfd that is registered edge-triggered: each write is an edge of its own, so that nobody has to read it.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Wakes one reactor. Cheap to clone; may be used from any thread.
#[derive(Clone, Debug)]
pub struct Waker {
    fd: Arc<OwnedFd>,
}

impl Waker {
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self { fd: Arc::new(fd) })
    }

    /// Ends the current or the next wait with a [`Completion::Woken`](crate::Completion::Woken).
    pub fn wake(&self) {
        // eventfd(2): only a counter at its maximum refuses a write, and then it is readable for good; so it is emptied.
        while rustix::io::write(&self.fd, &1u64.to_ne_bytes()) == Err(Errno::AGAIN) {
            let mut count = [0u8; 8];
            if rustix::io::read(&self.fd, &mut count).is_err() {
                return;
            }
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}
