//! The end of the loop: orderly, with all its connections, or at once.

use std::time::Duration;

use tidegate_reactor::Reactor;
use tidegate_timer::Instant;

use super::{Loop, Stage};
use crate::Reason;
use crate::accepting::LAST_ACCEPTS;
use crate::conn::State;
use crate::host::Event;
use crate::metrics::ListenerWord;

/// At least so many connections that have something to read are reported in a turn.
const READ_IN_A_TURN: usize = 64;

impl<R: Reactor> Drop for Loop<R> {
    /// A loop that panicked has not ended by itself, and others are not to wait for it.
    fn drop(&mut self) {
        self.end_mail();
    }
}

impl<R: Reactor> Loop<R> {
    /// Nothing can be posted or handed over from now on. Connections that no turn has taken were accepted all the same,
    /// and are closed with nobody told but the counters.
    pub(super) fn end_mail(&mut self) {
        for arrival in self.turn.shared.end() {
            let metrics = &self.sites[arrival.site].metrics;
            metrics.add(ListenerWord::Accepted, 1);
            metrics.add_closed(Reason::STOPPED);
            metrics.add(ListenerWord::ClosedByServer, 1);
            self.turn.shared.intake.leave();
        }
    }

    /// Stops accepting: takes what the queues hold, then lets go of the listeners.
    pub(super) fn begin_retirement(&mut self, grace: Duration) {
        tracing::debug!(connections = self.conns.len(), ?grace, "retiring: no new connections");
        let until = self.turn.now + grace;
        self.turn.retiring = true;
        self.stage = Stage::LastReads { until, turns: 0 };
        // Deregistered first: what arrives from now on wakes another process that polls the same socket, and what arrived
        // before is taken here.
        self.accepting.pause_all(&mut self.reactor);
        for site in 0..self.accepting.sites() {
            for _ in 0..LAST_ACCEPTS {
                if self.conns.is_full() {
                    break;
                }
                let Some(arrival) = self.accepting.accept_last(&mut self.reactor, site) else { break };
                self.turn.shared.intake.enter();
                self.admit(arrival);
            }
        }
        self.accepting.unlisten_all(&mut self.reactor);
        self.stage = Stage::LastReads { until, turns: self.conns.len() / READ_IN_A_TURN + 2 };
    }

    /// After each turn of a loop that was told to quit. A quiet turn is one in which nothing had arrived.
    pub(super) fn advance_stage(&mut self, quiet: bool) {
        match self.stage {
            Stage::Serving | Stage::Stopped => {}
            Stage::LastReads { until, turns } if !quiet && turns > 0 => {
                self.stage = Stage::LastReads { until, turns: turns - 1 };
            }
            // What was ready is still being read.
            Stage::LastReads { .. } if self.visits.as_ref().is_some_and(|visits| visits.out > 0) => {}
            Stage::LastReads { until, .. } => {
                self.stage = Stage::Retiring { until };
                for token in self.conns.keys() {
                    self.event(token, Event::Retire);
                }
                self.end_when_empty();
            }
            Stage::Retiring { until } => {
                if until <= self.turn.now {
                    // Those whose session is away end when it is back; there is nothing more to wait for by time.
                    self.stage = Stage::Retiring { until: Instant::MAX };
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
