//! Peers that are too slow: a body, or output that waits, that makes less progress than the limits ask for.
//!
//! The connection's one timer is set for this too, so that nothing is done for it while bytes come: see [`Pace`]. A slow body
//! is its service's to answer, as any deadline of a body; of output that is not taken there is nobody to tell.
//!
//! Invariant: a connection has a pace only between the moment in which a body or its output began to be waited for and the one
//! in which that was over.

use tidegate_reactor::{Reactor, Token};
use tidegate_timer::Instant;

use super::Loop;
use crate::conn::{Conn, State};
use crate::host::Event;
use crate::pace::{Pace, Rate};
use crate::{Limits, Phase, Reason};

impl Conn {
    /// When the pace of the peer is to be judged, if it has one. `awaited` is what is awaited from it.
    #[inline]
    pub(super) fn pace_due(
        &mut self,
        awaited: Option<Phase>,
        limits: &Limits,
        now: Instant,
        unsent: impl FnOnce() -> usize,
    ) -> Option<Instant> {
        match awaited.and_then(|phase| Some((phase, Rate::of(limits, phase)?))) {
            None if self.aside.is_none() => None,
            None => {
                // While it is held, or its message is handled, the pace rests: see `judge_pace`.
                if awaited.is_some() {
                    self.leave_pace();
                }
                None
            }
            Some((phase, rate)) => self.keep_pace(phase, rate, now, unsent()),
        }
    }

    #[cold]
    fn leave_pace(&mut self) {
        if let Some(aside) = &mut self.aside {
            aside.pace = None;
        }
    }

    #[cold]
    fn keep_pace(&mut self, phase: Phase, rate: Rate, now: Instant, unsent: usize) -> Option<Instant> {
        match (phase, self.state) {
            // The kernel has room yet, and takes more in the next turn: that says nothing of the peer.
            _ if self.send_later => return None,
            (_, State::Open) | (Phase::Write, State::Flushing(_)) => {}
            _ => {
                self.leave_pace();
                return None;
            }
        }
        let bytes = self.progress(phase, unsent);
        match &mut self.aside.get_or_insert_default().pace {
            Some(pace) if pace.phase() == phase => Some(pace.due(bytes, now, rate)),
            pace => Some(pace.insert(Pace::begin(phase, bytes, now, rate)).due(bytes, now, rate)),
        }
    }

    /// Bytes received for the service, or those that the kernel has taken. What a layer leaves away, as padding, is none.
    fn progress(&self, phase: Phase, unsent: usize) -> u64 {
        match self.layer() {
            _ if phase == Phase::Write => self.bytes_out.saturating_sub(unsent as u64),
            Some(layer) => layer.progress(),
            None => self.bytes_in,
        }
    }
}

impl<R: Reactor> Loop<R> {
    /// The time of a pace is up, unless the peer has done something in it.
    pub(super) fn judge_pace(&mut self, token: Token) {
        let now = self.turn.now;
        let Some(conn) = self.conns.get_mut(token) else { return };
        let lent = conn.away && self.visits.is_some();
        let Some(pace) = conn.pace_mut() else { return self.settle(token) };
        let phase = pace.phase();
        if lent {
            // What its peer does is known when it is back.
            pace.interrupt();
        }
        if lent || pace.until().is_none_or(|until| until > now) {
            return self.settle(token);
        }
        // A socket is reported writable when much of its buffer is free; a slow peer may have taken less, but something.
        if phase == Phase::Write && self.drain(token).is_none() {
            return;
        }
        let unsent = self.reactor.unsent_bytes(token);
        let Some(conn) = self.conns.get_mut(token) else { return };
        let limits = &self.sites[usize::from(conn.site)].limits;
        let bytes = conn.progress(phase, unsent);
        let awaited = conn.awaited() == Some(phase);
        let too_slow = match (conn.pace_mut(), Rate::of(limits, phase)) {
            (Some(pace), Some(rate)) if awaited => pace.judge(bytes, now, rate),
            (Some(pace), _) => {
                pace.interrupt();
                false
            }
            (None, _) => false,
        };
        if too_slow { self.end_slow(token, phase) } else { self.settle(token) }
    }

    fn end_slow(&mut self, token: Token, phase: Phase) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if phase == Phase::Write {
            return self.close(token, Reason::SLOW_READER, None);
        }
        // Whatever the service answers, the peer has a new grace.
        conn.leave_pace();
        conn.last_in = self.turn.now;
        self.event(token, Event::Slow);
    }
}
