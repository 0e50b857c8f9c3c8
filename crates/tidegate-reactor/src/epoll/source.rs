//! `Source`: what the epoll reactor knows of a connection.

use std::os::fd::OwnedFd;

use crate::slots::{Occupant, Slots};
use crate::trigger::Interest;

/// A connection's descriptor and what is known of its readiness.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) fd: OwnedFd,
    pub(crate) generation: u32,
    /// Receiving is paused by the owner.
    pub(crate) paused: bool,
    /// The kernel said readable, and it has not said `EAGAIN` since. Looked at only where it would not say so again.
    pub(crate) readable: bool,
    /// What the kernel has said of the end: with any, read on until it is seen. Looked at as `readable` is.
    pub(crate) hangup: Hangup,
    /// The end was reported.
    pub(crate) ended: bool,
    /// Stands in the list of connections with more to read.
    pub(crate) listed: bool,
    /// Stands in the list of connections whose registration is to be looked at.
    pub(crate) unsynced: bool,
    /// The owner waits for [`Completion::Writable`](crate::Completion::Writable).
    pub(crate) awaits_writable: bool,
    /// What the kernel watches for; `None` while nothing is watched, since a one-shot registration has fired.
    pub(crate) registered: Option<Interest>,
}

/// What is known of the end of a connection before it is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hangup {
    None,
    /// The peer half-closed, or both sides have.
    Closed,
    /// It broke, perhaps behind the peer's end.
    Broken,
}

pub(crate) type Sources = Slots<Source>;

impl Source {
    /// A connection that is registered for connecting. It waits for no less than to be writable.
    pub(crate) fn connecting(fd: OwnedFd, generation: u32) -> Self {
        let registered = Some(Interest::Connect);
        Self { awaits_writable: true, registered, ..Self::new(fd, generation) }
    }

    /// A connection that is registered for reading.
    pub(crate) fn new(fd: OwnedFd, generation: u32) -> Self {
        Self {
            fd,
            generation,
            paused: false,
            readable: false,
            hangup: Hangup::None,
            ended: false,
            listed: false,
            unsynced: false,
            awaits_writable: false,
            registered: Some(Interest::Read),
        }
    }
}

impl Occupant for Source {
    fn generation(&self) -> u32 {
        self.generation
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_costs_sixteen_bytes() {
        assert_eq!(Sources::SLOT_BYTES, 16);
    }
}
