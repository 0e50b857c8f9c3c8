//! `Extra`: what few connections need beside their place in a request.
//!
//! Invariant: an idle connection has none: what is here belongs to a request under way, or to an answer that has not been
//! taken yet.

use std::collections::VecDeque;

use tidegate_engine::Io;

use crate::access_log::{AccessLog, Entry, Outcome};
use crate::gate::Login;
use crate::pace::Pace;
use crate::session::Held;

/// See the module.
#[derive(Debug, Default)]
pub(crate) struct Extra {
    /// Of the request under way, until it is answered.
    pub(crate) ongoing: Option<Ongoing>,
    /// The request whose password is being checked.
    pub(crate) waiting: Option<Waiting>,
    /// The body that is sent piece by piece.
    pub(crate) pace: Option<Pace>,
    /// Answers that the kernel has not taken yet, for the access log.
    sent: VecDeque<Box<Entry>>,
}

/// What the answer to a request is to have, whoever gives it.
#[derive(Debug, Default)]
pub(crate) struct Ongoing {
    /// Field lines.
    pub(crate) lines: Vec<u8>,
    pub(crate) entry: Option<Box<Entry>>,
}

/// A request that is neither let in nor refused yet.
#[derive(Debug)]
pub(crate) struct Waiting {
    pub(crate) request: Held,
    pub(crate) login: Login,
    /// The number of its site.
    pub(crate) site: usize,
}

/// Answers of one connection that are remembered until they have been taken; one more is recorded as it is.
const MAX_SENT: usize = 64;

impl Extra {
    /// Whether nothing is left.
    pub(crate) fn is_empty(&self) -> bool {
        let Self { ongoing, waiting, pace, sent } = self;
        ongoing.is_none() && waiting.is_none() && pace.is_none() && sent.is_empty()
    }

    /// Whether a request is under way.
    pub(crate) const fn is_busy(&self) -> bool {
        self.waiting.is_some() || self.pace.is_some() || self.ongoing.is_some()
    }

    /// An answer has been given: it is recorded when it has been taken.
    pub(crate) fn answered(&mut self, io: &mut Io<'_>, log: &AccessLog, entry: Box<Entry>) {
        if self.sent.len() >= MAX_SENT
            && let Some(oldest) = self.sent.pop_front()
        {
            log.record(&oldest, Outcome::Sent);
        }
        self.sent.push_back(entry);
        io.tell_when_sent();
    }

    /// An answer has broken off: it is recorded when the connection has ended, which it does now.
    pub(crate) fn broke_off(&mut self, mut entry: Box<Entry>) {
        entry.broken_off = true;
        self.sent.push_back(entry);
    }

    /// All answers have been taken, or the connection has ended.
    pub(crate) fn record(&mut self, log: &AccessLog, outcome: Outcome) {
        for entry in self.sent.drain(..) {
            log.record(&entry, outcome);
        }
    }
}
