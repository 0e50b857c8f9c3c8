//! `Events`: what one epoll_wait(2) brought, in memory that is reused from wait to wait.

use std::fmt;
use std::os::fd::AsFd;

use rustix::event::epoll::{self, Event, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

/// The events of one wait.
pub struct Events(Vec<Event>);

// SAFETY: an `Event` is a number and flags that the kernel wrote. `rustix` shows the number as a pointer as well, which is
// what makes it `!Send`; here it is only ever read as the number it was registered as.
unsafe impl Send for Events {}

impl Events {
    /// Room for at most `capacity` events a wait.
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Vec::with_capacity(capacity))
    }

    /// Waits for events, without a limit when `timeout` is `None`. What the last wait brought is forgotten.
    ///
    /// # Errors
    ///
    /// What epoll_wait(2) answered, `EINTR` included.
    pub fn wait(&mut self, epoll: impl AsFd, timeout: Option<&Timespec>) -> Result<(), Errno> {
        self.0.clear();
        epoll::wait(epoll, rustix::buffer::spare_capacity(&mut self.0), timeout).map(drop)
    }

    /// The number and the flags of an event.
    #[inline]
    #[must_use]
    pub fn get(&self, index: usize) -> Option<(u64, EventFlags)> {
        self.0.get(index).map(|event| (event.data.u64(), event.flags))
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("len", &self.0.len()).finish()
    }
}
