//! The end of the loop: orderly, with all its connections, or at once.

use std::time::Duration;

use tidegate_reactor::{AcceptError, Reactor};

use super::accept::Arrival;
use super::{Loop, Stage};
use crate::Reason;
use crate::conn::State;
use crate::host::Event;

/// How many connections a retiring listener still takes from its queue.
const LAST_ACCEPTS: usize = 65_536;
/// At least so many connections that have something to read are reported in a turn.
const READ_IN_A_TURN: usize = 64;

impl<R: Reactor> Loop<R> {
    /// Stops accepting: takes what the queues hold, then lets go of the listeners.
    pub(super) fn begin_retirement(&mut self, grace: Duration) {
        tracing::debug!(connections = self.conns.len(), ?grace, "retiring: no new connections");
        let until = self.turn.now + grace;
        self.turn.retiring = true;
        self.stage = Stage::LastReads { until, turns: 0 };
        for site in 0..self.listeners.len() {
            let listener = self.listeners[site];
            // Deregistered first: what arrives from now on wakes another process that polls the same socket, and what
            // arrived before is taken here.
            self.reactor.pause_accept(listener);
            for _ in 0..LAST_ACCEPTS {
                if self.conns.is_full() {
                    break;
                }
                match self.reactor.accept_now(listener) {
                    Ok((socket, peer)) => self.admit(Arrival { site, socket, peer }),
                    Err(AcceptError::Lost(_)) => {}
                    Err(_) => break,
                }
            }
            self.reactor.unlisten(listener);
        }
        self.stage = Stage::LastReads { until, turns: self.conns.len() / READ_IN_A_TURN + 2 };
    }

    /// After each turn of a loop that was told to quit. A quiet turn is one in which nothing had arrived.
    pub(super) fn advance_stage(&mut self, quiet: bool) {
        match self.stage {
            Stage::Serving | Stage::Stopped => {}
            Stage::LastReads { until, turns } if !quiet && turns > 0 => {
                self.stage = Stage::LastReads { until, turns: turns - 1 };
            }
            Stage::LastReads { until, .. } => {
                self.stage = Stage::Retiring { until };
                for token in self.conns.keys() {
                    self.event(token, Event::Retire);
                }
                self.end_when_empty();
            }
            Stage::Retiring { until } => {
                if until <= self.turn.now {
                    self.end_all(Reason::SHUTDOWN_TIMEOUT);
                }
                self.end_when_empty();
            }
        }
    }

    fn end_when_empty(&mut self) {
        if self.conns.len() == 0 {
            self.stage = Stage::Stopped;
        }
    }

    /// Closes every connection; one whose last answer has been sent keeps the reason it has.
    pub(super) fn end_all(&mut self, reason: Reason) {
        for token in self.conns.keys() {
            let Some(conn) = self.conns.get_mut(token) else { continue };
            match conn.state {
                State::Lingering(_) => self.end_lingering(token),
                State::Open | State::Flushing(_) => self.close(token, reason, None),
            }
        }
    }
}
