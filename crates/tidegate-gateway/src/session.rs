//! What the gateway keeps for each connection.
//!
//! Small, since there are many of them: a test in this file holds it under 64 bytes.

use tidegate_engine::Instant;

use crate::backlog::Backlog;
use crate::rate::Rate;

/// The state of one connection. Programs see it through [`FrameContext`](crate::FrameContext).
#[derive(Debug)]
pub struct Session {
    /// When the last complete valid frame came, or a request that was in flight was answered; else when it was opened. The
    /// heartbeat counts from here.
    pub(crate) alive: Instant,
    /// A handler answered `Suspend`, and the note that answers the request has not come.
    pub(crate) in_flight: bool,
    pub(crate) rate: Rate,
    pub(crate) backlog: Backlog,
    /// The name of the last login that succeeded.
    pub(crate) user: Option<Box<str>>,
}

impl Session {
    pub(crate) fn new(now: Instant) -> Self {
        Self { alive: now, in_flight: false, rate: Rate::default(), backlog: Backlog::default(), user: None }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_is_small() {
        assert!(size_of::<Session>() < 64, "{}", size_of::<Session>());
    }
}
