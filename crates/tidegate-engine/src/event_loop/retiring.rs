//! The end of the loop: orderly, with all its connections, or at once.

use std::time::Duration;

use tidegate_reactor::{Reactor, Token};
use tidegate_timer::Instant;

use super::{Loop, Stage, Telling};
use crate::conn::State;
use crate::host::Event;
use crate::intake::Arrival;
use crate::io::Retirement;
use crate::metrics::ListenerWord;
use crate::{ConnectFailure, Reason};

/// At least so many connections that have something to read are reported in a turn.
const READ_IN_A_TURN: usize = 64;
/// Services are told of the retirement of so many connections at least, and then of as many more after so long.
const TOLD_AT_ONCE: usize = 64;
const TELL_EVERY: Duration = Duration::from_millis(10);

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
        let left = self.turn.shared.end();
        self.turn.shared.collect_dials(&mut self.turn.wishes);
        self.drop_wishes();
        for arrival in left {
            self.turn_away(&arrival);
            self.turn.shared.intake.leave();
        }
        while let Some(stray) = self.strays.pop_front() {
            self.turn_away(&stray);
        }
    }

    fn turn_away(&self, arrival: &Arrival) {
        let metrics = &self.sites[arrival.site].metrics;
        metrics.add(ListenerWord::Accepted, 1);
        metrics.add_closed(Reason::STOPPED);
        metrics.add(ListenerWord::ClosedByServer, 1);
    }

    /// Ends within `grace`. Told again, the loop goes by what it is told now.
    pub(super) fn quit(&mut self, grace: Duration) {
        let (before, until) = (self.turn.retirement, self.turn.now + grace);
        self.turn.retirement = before.max(Retirement::within(grace));
        match &mut self.stage {
            Stage::Stopped => {}
            Stage::Serving => {
                tracing::debug!(connections = self.conns.len(), ?grace, "retiring: no new connections");
                self.stage = Stage::LastReads { until, turns: 0 };
                self.stop_accepting();
                self.retire_datagrams();
                self.read_last(until);
            }
            // What has arrived is still read before a service that has let it stay is told that it is to end.
            Stage::Retiring { .. } if self.turn.retirement > before => self.read_last(until),
            Stage::LastReads { until: end, .. } | Stage::Retiring { until: end } => *end = until,
        }
    }

    /// Reads what has arrived, but not without end.
    pub(super) fn read_last(&mut self, until: Instant) {
        self.stage = Stage::LastReads { until, turns: self.conns.len() / READ_IN_A_TURN + 2 };
    }

    /// Takes what the queues hold, then lets go of the listeners.
    fn stop_accepting(&mut self) {
        // Deregistered first: what arrives from now on wakes another process that polls the same socket, and what arrived
        // before is taken here.
        self.accepting.pause_all(&mut self.reactor);
        for port in self.accepting.active_ports() {
            self.take_what_waits(port);
        }
        self.accepting.unlisten_all(&mut self.reactor);
    }

    /// After each turn of a loop that was told to quit. A quiet turn is one in which nothing had arrived.
    pub(super) fn advance_stage(&mut self, quiet: bool) {
        match self.stage {
            Stage::Serving | Stage::Stopped => {}
            Stage::LastReads { until, turns } if !quiet && turns > 0 && until > self.turn.now => {
                self.stage = Stage::LastReads { until, turns: turns - 1 };
            }
            // What was ready is still being read. When there is no end of it, what is away hears the news on its return.
            Stage::LastReads { until, turns }
                if turns > 0
                    && until > self.turn.now
                    && self.visits.as_ref().is_some_and(|visits| visits.out > 0) => {}
            Stage::LastReads { until, .. } => {
                self.stage = Stage::Retiring { until };
                self.begin_telling();
                self.tell_services(until);
                self.end_when_empty();
            }
            Stage::Retiring { until } => {
                self.tell_services(until);
                if until <= self.turn.now {
                    // Those whose session is away end when it is back; there is nothing more to wait for by time.
                    self.stage = Stage::Retiring { until: Instant::MAX };
                    self.end_all(Reason::SHUTDOWN_TIMEOUT);
                }
                self.end_when_empty();
            }
        }
    }

    /// There are connections whose services do not know yet how the loop retires.
    fn begin_telling(&mut self) {
        self.telling = Some(Telling { at: self.turn.now, from: 0 });
    }

    /// Tells the services of some connections, at a steady pace: what they answer with is the peers' sign to come again, and
    /// whoever takes over is not to meet all of them at once.
    fn tell_services(&mut self, until: Instant) {
        let Some(Telling { from, .. }) = self.telling.filter(|telling| telling.at <= self.turn.now) else {
            return;
        };
        let batch = self.telling_batch(until.saturating_duration_since(self.turn.now));
        let retirement = self.turn.retirement;
        let untold = self.conns.iter_from(from).filter(|(_, conn)| conn.told < retirement);
        let untold: Vec<Token> = untold.map(|(token, _)| token).take(batch).collect();
        self.telling = untold
            .last()
            .filter(|_| untold.len() == batch)
            .map(|last| Telling { at: self.turn.now + TELL_EVERY, from: last.slot.saturating_add(1) });
        for token in untold {
            if let Some(conn) = self.conns.get_mut(token) {
                conn.told = retirement;
                self.event(token, Event::Retire);
            }
        }
    }

    /// How many are told at a time: so many that all are in good time before the end.
    fn telling_batch(&self, left: Duration) -> usize {
        let steps = (left / 4).as_nanos() / TELL_EVERY.as_nanos();
        let steps = usize::try_from(steps).unwrap_or(usize::MAX).max(1);
        TOLD_AT_ONCE.max(self.conns.len().div_ceil(steps))
    }

    fn end_when_empty(&mut self) {
        self.empty_pools();
        if self.conns.len() == 0 && self.strays.is_empty() && self.turn.wishes.is_empty() {
            self.stage = Stage::Stopped;
        }
    }

    /// Closes every connection; one whose last answer has been sent keeps the reason it has.
    pub(super) fn end_all(&mut self, reason: Reason) {
        for token in self.conns.keys() {
            let Some(conn) = self.conns.get_mut(token) else { continue };
            match conn.state {
                State::Lingering(_) => self.end_lingering(token),
                State::Connecting | State::Handshaking if self.pending.contains_key(&token) => {
                    self.on_unconnected(token, ConnectFailure::Stopped);
                }
                State::Connecting
                | State::Greeting
                | State::Handshaking
                | State::Open
                | State::Tied
                | State::Flushing(_) => {
                    self.close(token, reason, None);
                }
            }
        }
    }
}
