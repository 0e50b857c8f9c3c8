//! `Trigger`: how connections are registered with epoll(7), and [`Interest`]: for what.
//!
//! What is wanted follows from the state of a connection alone; what is registered is what the kernel was told last and
//! still holds. Events and calls change the first, and before the next wait the second follows by at most one
//! epoll_ctl(2), see `Registrations`:
//!
//! ```text
//!                      │ level        │ edge                  │ oneshot
//! ─────────────────────┼──────────────┼───────────────────────┼──────────────────────────────────────
//!  opened              │ Read         │ Read                  │ Read
//!  to be connected     │ Connect      │ Connect               │ Connect
//!  Connected reported  │ Read         │ Read                  │ Read
//!  any event           │ as before    │ as before             │ none, then what is wanted, see below
//!  paused              │ - Read       │ as before             │ - Read
//!  resumed             │ + Read       │ as before             │ + Read
//!  Writable awaited    │ + Write      │ + Write               │ + Write
//!  Writable reported   │ - Write      │ as before             │ - Write
//!  Ended or Failed     │ - Read       │ as before             │ - Read
//! ─────────────────────┼──────────────┼───────────────────────┼──────────────────────────────────────
//!  Read is             │ IN RDHUP     │ IN RDHUP ET           │ IN RDHUP ONESHOT
//!  Write is            │ OUT          │ OUT ET                │ OUT ONESHOT
//!  Neither is          │ ET           │ does not occur        │ ONESHOT
//!  Connect is          │ OUT ONESHOT  │ OUT ONESHOT           │ OUT ONESHOT
//! ```
//!
//! `ERR` and `HUP` are always reported and, once they are, stay: a connection that wants nothing would be reported for
//! ever. So level-triggered registrations wait for neither direction by edge, and a one-shot registration for neither
//! that has fired is not renewed. Either way a reset is heard once by who is paused or has heard the peer's end.

use rustix::event::epoll::EventFlags;

use crate::epoll::Source;

/// How connections are registered with epoll(7). Listeners are always level-triggered.
///
/// The choice changes which system calls are made, not which completions are reported.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Trigger {
    /// The kernel reports what is ready in every wait; pausing, resuming and waiting to write each cost an epoll_ctl(2).
    Level,
    /// The kernel reports what has become ready; a connection is registered once, and a second time when a write is
    /// first refused.
    #[default]
    Edge,
    /// The kernel reports what is ready once, and again after an epoll_ctl(2) for each event (`EPOLLONESHOT`): a
    /// connection never has two events outstanding.
    Oneshot,
}

/// What a connection is registered for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Interest {
    Neither,
    Read,
    Write,
    Both,
    /// It is still to be connected: once, whatever the trigger.
    Connect,
}

impl Trigger {
    /// Whether the kernel says again that there is more to read, so that it need not be remembered.
    #[inline]
    pub(crate) fn repeats(self) -> bool {
        self != Self::Edge
    }

    /// What a connection in this state is to be registered for.
    #[inline]
    pub(crate) fn wanted(self, source: &Source) -> Interest {
        let (read, write) = match self {
            // An edge that nobody waits for costs a wake-up at most, and taking it back a call: what is there stays.
            Self::Edge => (true, source.awaits_writable || source.registered == Some(Interest::Both)),
            Self::Level | Self::Oneshot => (!source.paused && !source.ended, source.awaits_writable),
        };
        match (read, write) {
            (false, false) => Interest::Neither,
            (true, false) => Interest::Read,
            (false, true) => Interest::Write,
            (true, true) => Interest::Both,
        }
    }

    /// The flags of epoll_ctl(2) for an interest.
    pub(crate) fn flags(self, interest: Interest) -> EventFlags {
        let read = EventFlags::IN | EventFlags::RDHUP;
        let asked = match interest {
            Interest::Neither => EventFlags::empty(),
            Interest::Read => read,
            Interest::Write => EventFlags::OUT,
            Interest::Both => read | EventFlags::OUT,
            Interest::Connect => return EventFlags::OUT | EventFlags::ONESHOT,
        };
        match self {
            Self::Level if interest == Interest::Neither => EventFlags::ET,
            Self::Level => asked,
            Self::Edge => asked | EventFlags::ET,
            Self::Oneshot => asked | EventFlags::ONESHOT,
        }
    }
}
