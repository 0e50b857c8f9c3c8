//! `Waker`: ends a reactor's wait from another thread.
//!
//! An eventfd that is registered edge-triggered: each write is an edge of its own, so that nobody has to read it. A reactor
//! that no kernel is under has a function in its place.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;

/// Wakes one reactor. Cheap to clone; may be used from any thread.
#[derive(Clone)]
pub struct Waker(Way);

#[derive(Clone)]
enum Way {
    Eventfd(Arc<OwnedFd>),
    Call(Arc<dyn Fn() + Send + Sync>),
}

impl std::fmt::Debug for Waker {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &self.0 {
            Way::Eventfd(fd) => f.debug_tuple("Waker").field(fd).finish(),
            Way::Call(_) => f.debug_tuple("Waker").finish_non_exhaustive(),
        }
    }
}

impl Waker {
    pub(crate) fn new() -> Result<Self, Errno> {
        let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Self(Way::Eventfd(Arc::new(fd))))
    }

    /// A waker that calls `wake`, for a reactor of another kind: it has to report
    /// [`Completion::Woken`](crate::Completion::Woken) in a turn that begins after the call. `wake` must not wait.
    #[must_use]
    pub fn from_fn(wake: impl Fn() + Send + Sync + 'static) -> Self {
        Self(Way::Call(Arc::new(wake)))
    }

    /// Ends the current or the next wait with a [`Completion::Woken`](crate::Completion::Woken).
    pub fn wake(&self) {
        let fd = match &self.0 {
            Way::Eventfd(fd) => fd,
            Way::Call(wake) => return wake(),
        };
        // eventfd(2): only a counter at its maximum refuses a write, and then it is readable for good; so it is emptied.
        while rustix::io::write(fd, &1u64.to_ne_bytes()) == Err(Errno::AGAIN) {
            let mut count = [0u8; 8];
            if rustix::io::read(fd, &mut count).is_err() {
                return;
            }
        }
    }

    /// What to poll.
    ///
    /// # Panics
    ///
    /// For one made [from a function](Self::from_fn); a reactor polls the waker that it made itself.
    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Way::Eventfd(fd) => fd.as_fd(),
            Way::Call(_) => unreachable!("a reactor polls the waker that it made"),
        }
    }
}
