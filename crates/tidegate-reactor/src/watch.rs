//! `Watch`: waits until one of a few descriptors is readable, for a thread that accepts and serves no connections itself.
//!
//! Level-triggered: what is readable is reported by every wait until it is not. It never reads from what it watches.

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use rustix::event::epoll::{self, CreateFlags, EventData, EventFlags};
use rustix::io::Errno;
use tidegate_sys::event::Events;
use tidegate_timer::Instant;

use crate::Waker;
use crate::clock::Clocks;

/// A set of descriptors to wait for. One thread owns it; others wake it by its [`Waker`].
#[derive(Debug)]
pub struct Watch {
    epoll: OwnedFd,
    waker: Waker,
    events: Events,
    next_event: usize,
    clocks: Clocks,
}

/// What a wait has brought.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    /// The waker was used.
    Woken,
    /// There is something to read, or the end of it, at the descriptor with this key.
    Readable(u64),
}

/// Events of one wait; there are more in the next.
const EVENTS: usize = 64;

impl Watch {
    /// The key that no descriptor may have.
    pub const RESERVED_KEY: u64 = u64::MAX;

    /// Watches nothing yet.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no descriptor or memory for it.
    pub fn new() -> Result<Self, Errno> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        let waker = Waker::new()?;
        epoll::add(
            &epoll,
            waker.fd(),
            EventData::new_u64(Self::RESERVED_KEY),
            EventFlags::IN | EventFlags::ET,
        )?;
        let events = Events::with_capacity(EVENTS);
        Ok(Self { epoll, waker, events, next_event: 0, clocks: Clocks::read() })
    }

    /// Watches a descriptor, which stays the caller's, under a key of the caller's choice.
    ///
    /// # Errors
    ///
    /// The kernel's (epoll_ctl(2)): it has no memory, or the descriptor is watched already.
    pub fn add(&mut self, source: impl AsFd, key: u64) -> Result<(), Errno> {
        epoll::add(&self.epoll, source, EventData::new_u64(key), EventFlags::IN)
    }

    /// Watches a descriptor no longer. To be called before it is closed: as long as any process has a copy of it, the
    /// kernel would go on reporting (epoll(7)). An event of the present turn may still be to come.
    pub fn remove(&mut self, source: impl AsFd) {
        // It fails only when it is not watched.
        let _ = epoll::delete(&self.epoll, source);
    }

    /// Waits until something is readable, somebody wakes, or `deadline` has passed. A signal ends the wait early.
    ///
    /// # Errors
    ///
    /// The kernel's, other than `EINTR`: it cannot go on.
    pub fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Errno> {
        let timeout = self.clocks.begin_wait(deadline, false);
        self.next_event = 0;
        let waited = self.events.wait(&self.epoll, timeout.as_ref());
        self.clocks.end_wait();
        match waited {
            Ok(()) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }

    /// The next thing that the last wait has brought.
    pub fn next_event(&mut self) -> Option<Watched> {
        let (key, _) = self.events.get(self.next_event)?;
        self.next_event += 1;
        Some(if key == Self::RESERVED_KEY { Watched::Woken } else { Watched::Readable(key) })
    }

    /// The monotonic clock as of the last [`wait`](Self::wait).
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clocks.now()
    }

    /// How long the last turn took: from the end of the last wait but one to the beginning of the last.
    #[must_use]
    pub fn busy(&self) -> Duration {
        self.clocks.busy()
    }

    /// What another thread wakes it with.
    #[must_use]
    pub fn waker(&self) -> Waker {
        self.waker.clone()
    }
}
