//! Ties: two connections of which each gets what the peer of the other sends.
//!
//! ```text
//!   peer ──▶ one ── received ──▶ sent at once, from where it was received ──▶ other ──▶ peer
//!                            └─▶ what the kernel refuses: the other's queue ─┘
//! ```
//!
//! No callback is called for either between the tie and `on_close`. Reading from one pauses while the other has more queued
//! than its high-water mark. The end of one direction is passed on behind its last byte; when both have ended, so do the
//! connections. Whatever else ends one ends the other in the same manner.
//!
//! A peer that hangs up while something is passed to it has most often said something before: that is still read and passed
//! on, and what is queued for the other is sent before its connection ends. It ends with FIN when the peer had said all,
//! and with a reset when it was interrupted.
//!
//! Invariant: of two connections in [`State::Tied`] each names the other; neither is `away` or has input of its own.

use std::ops::Range;

use tidegate_reactor::{End, Errno, More, Reactor, Token};
use tidegate_timer::TimerQueue;

use super::Loop;
use crate::conn::{Conn, Eof, Missed, Reading, Sending, State};
use crate::metrics::ListenerWord;
use crate::output::Output;
use crate::wish::Tie;
use crate::{Phase, Reason};

impl<R: Reactor> Loop<R> {
    /// Ties two connections together, as soon as no thread has one of them.
    pub(super) fn tie(&mut self, tie: Tie) {
        let Tie { one, other } = tie;
        for token in [one, other] {
            if let Some(conn) = self.conns.get_mut(token)
                && conn.away
            {
                return conn.miss(Missed::Tie(tie));
            }
        }
        let ready =
            [one, other].map(|token| self.conns.get_mut(token).is_some_and(|conn| conn.may_be_tied()));
        match ready {
            [true, true] => {}
            // What ends already, or is tied to a third one, is left alone.
            [true, false] => return self.close(one, Reason::OTHER_SIDE, None),
            [false, true] => return self.close(other, Reason::OTHER_SIDE, None),
            [false, false] => return,
        }
        let inputs = [(one, other), (other, one)].map(|(token, partner)| self.bind(token, partner));
        for (token, partner) in [(one, other), (other, one)] {
            let over_water = self.conns.get_mut(token).is_some_and(|conn| conn.over_water);
            self.hold_partner(partner, over_water);
        }
        for ((token, partner), input) in [(one, other), (other, one)].into_iter().zip(inputs) {
            self.pass(token, partner, &input);
            self.spares.keep(input);
        }
        for (token, partner) in [(one, other), (other, one)] {
            let Some(conn) = self.conns.get_mut(token) else { continue };
            if let Some(errno) = conn.unheard {
                self.on_unpassable(token, errno);
            } else if conn.has_ended() {
                self.end_direction(partner);
            }
            self.settle(token);
        }
    }

    /// Makes a connection one that is tied. Answers the input that no callback has seen.
    fn bind(&mut self, token: Token, partner: Token) -> Vec<u8> {
        let Some(conn) = self.conns.get_mut(token) else { return Vec::new() };
        conn.state = State::Tied;
        conn.aside.get_or_insert_default().partner = partner;
        conn.suspended = false;
        let since = self.turn.now;
        conn.reading = Reading { phase: Phase::Idle, between: Phase::Idle, paused: false, need: 0, since };
        for (_, key) in conn.timers.drain(..) {
            self.turn.timers.cancel(key);
        }
        let input = std::mem::take(&mut conn.input);
        if conn.has_ended() {
            conn.eof = Eof::Told;
        }
        self.leave_pool(token);
        input
    }

    /// Passes on what has just been received.
    #[inline]
    pub(super) fn pass_on(&mut self, token: Token) {
        let Some(partner) = self.conns.get_mut(token).map(|conn| conn.partner()) else { return };
        if self.conns.get_mut(partner).is_some_and(|conn| conn.layer().is_some()) {
            return self.pass_to_layer(token, partner);
        }
        let len = self.reactor.received().len();
        let Some(conn) = self.conns.get_mut(partner) else { return };
        if conn.unheard.is_some() {
            // Nobody is there to take it.
            return;
        }
        let mut taken = 0;
        if conn.output.is_none() {
            match self.reactor.send_received(partner, 0..len, More::No) {
                Ok(n) => taken = n,
                Err(errno) => {
                    if self.on_unsendable(partner, errno) {
                        self.settle(partner);
                    }
                    return;
                }
            }
            conn.bytes_out += taken as u64;
            conn.last_out = self.turn.now;
            conn.reading.since = self.turn.now;
            self.sites[usize::from(conn.site)].metrics.add(ListenerWord::BytesOut, taken as u64);
        }
        if taken < len {
            self.queue_for(token, partner, &Rest::Received(taken..len));
        }
    }

    /// Passes on what has just been received, to one that has a layer.
    fn pass_to_layer(&mut self, token: Token, partner: Token) {
        let mut copy = self.spares.take();
        copy.extend_from_slice(self.reactor.received());
        self.pass(token, partner, &copy);
        self.spares.keep(copy);
        self.settle(token);
    }

    /// Passes on what came before the two were tied, or through a layer.
    pub(super) fn pass(&mut self, token: Token, partner: Token, input: &[u8]) {
        if self.conns.get_mut(partner).is_none_or(|conn| conn.unheard.is_some()) {
            return;
        }
        if !input.is_empty() {
            self.queue_for(token, partner, &Rest::Kept(input));
            if self.drain(partner).is_some() {
                self.settle(partner);
            }
        }
    }

    /// Queues what the kernel has not taken.
    fn queue_for(&mut self, token: Token, partner: Token, rest: &Rest<'_>) {
        let Some(conn) = self.conns.get_mut(partner) else { return };
        let site = usize::from(conn.site);
        let limits = &self.sites[site].limits;
        let room = if conn.queued().bytes + rest.len() > limits.max_output_bytes {
            Err(Reason::OUTPUT_OVERFLOW)
        } else {
            self.make_room(partner, rest.len())
        };
        if let Err(reason) = room {
            return self.close(partner, reason, None);
        }
        // Making room may have cost one of the two.
        let Some(conn) = self.conns.get_mut(partner) else { return };
        let fresh = conn.output.is_none();
        let output = conn.output.get_or_insert_with(Box::<Output>::default);
        let bytes = match rest {
            Rest::Received(range) => &self.reactor.received()[range.clone()],
            Rest::Kept(bytes) => bytes,
        };
        if output.push_bytes(&mut self.turn.pool, bytes).is_err() {
            return self.close(partner, Reason::OUTPUT_OVERFLOW, None);
        }
        if fresh {
            conn.last_out = self.turn.now;
        }
        if fresh && matches!(rest, Rest::Received(_)) {
            self.reactor.await_writable(partner);
        }
        let limits = &self.sites[site].limits;
        if conn.queued_weight() > limits.high_water_bytes || self.memory.is_short() {
            conn.over_water = true;
            self.hold_partner(token, true);
            self.settle(token);
        }
        self.settle(partner);
    }

    /// Whether a connection is to be read from depends on how much the other has queued.
    fn hold_partner(&mut self, token: Token, hold: bool) {
        if let Some(conn) = self.conns.get_mut(token) {
            conn.reading.paused = hold;
        }
    }

    /// Nothing can be passed on to a peer that has hung up; what it has said before can. Answers whether the connection goes
    /// on until that has been read.
    pub(super) fn on_unpassable(&mut self, token: Token, errno: Errno) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        conn.unheard = Some(errno);
        if conn.has_ended() {
            self.close_broken(token, errno);
            return false;
        }
        conn.send_later = false;
        conn.stalled = false;
        conn.over_water = false;
        conn.sending = Sending::Ended;
        let partner = conn.partner();
        if let Some(mut output) = conn.output.take() {
            output.clear(&mut self.turn.pool);
        }
        self.hold_partner(partner, true);
        self.settle(partner);
        true
    }

    /// The peer of a tied connection has ended its side.
    pub(super) fn on_tied_ended(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if let Some(errno) = conn.unheard {
            // No more is there; whether the peer had more to say, the error tells.
            conn.eof = Eof::None;
            return self.close_broken(token, errno);
        }
        conn.eof = Eof::Told;
        let partner = conn.partner();
        self.end_direction(partner);
        self.settle(token);
    }

    /// FIN follows what is queued.
    fn end_direction(&mut self, token: Token) {
        if let Some(conn) = self.conns.get_mut(token)
            && conn.sending == Sending::On
        {
            conn.sending = Sending::Ending;
            self.settle(token);
        }
    }

    /// What follows, for a pair, from what one of it has sent.
    pub(super) fn settle_tied(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let partner = conn.partner();
        if conn.sending == Sending::Ending && conn.output.is_none() && self.close_layer(token) {
            self.reactor.shutdown_send(token);
            if let Some(conn) = self.conns.get_mut(token) {
                conn.sending = Sending::Ended;
            }
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        let ended = conn.sending == Sending::Ended;
        let low_water = self.sites[usize::from(conn.site)].limits.low_water_bytes;
        if conn.over_water && conn.queued_weight() <= low_water {
            conn.over_water = false;
            self.hold_partner(partner, false);
            self.settle(partner);
        }
        if ended && self.conns.get_mut(partner).is_some_and(|conn| conn.sending == Sending::Ended) {
            self.end_tie(token, partner);
        }
    }

    /// Nothing has come to a tied connection, or left it, for too long. As long as its partner takes what came, the pair is
    /// not idle; how long that may take its write time-out says.
    pub(super) fn tied_deadline_passed(&mut self, token: Token, phase: Phase) {
        let (now, conns) = (self.turn.now, &mut self.conns);
        let partner = conns.get_mut(token).map(|conn| conn.partner());
        let moved = partner.and_then(|partner| conns.get_mut(partner)).map(|partner| {
            let waits = partner.output.is_some() || partner.stalled;
            if waits { now } else { partner.last_in.max(partner.reading.since) }
        });
        if let (Some(conn), Some(moved)) = (conns.get_mut(token), moved)
            && phase == Phase::Idle
            && moved > conn.last_in.max(conn.reading.since)
        {
            conn.reading.since = moved;
            return self.settle(token);
        }
        self.close(token, phase.timeout_reason(), None);
    }

    /// Both directions have ended: so do the connections, when the last byte has left.
    fn end_tie(&mut self, token: Token, partner: Token) {
        let mut left = false;
        for token in [token, partner] {
            if self.reactor.unsent(token) {
                left = true;
                self.reactor.await_writable(token);
            }
        }
        if !left {
            self.close_with(token, Reason::PEER_CLOSED, End::Fin, None);
        }
    }

    /// A tied connection has ended: so does the other, in the same manner.
    pub(super) fn end_partner(&mut self, ended: &Conn, reason: Reason, end: End, errno: Option<i32>) {
        let partner = ended.partner();
        let broken = matches!(reason, Reason::PEER_RESET | Reason::IO_ERROR);
        if broken && self.outlive(partner, ended.has_said_all(errno)) {
            return self.settle(partner);
        }
        let reason = match reason {
            Reason::PEER_CLOSED
            | Reason::IDLE_TIMEOUT
            | Reason::SHUTDOWN
            | Reason::SHUTDOWN_TIMEOUT
            | Reason::STOPPED => reason,
            _ => Reason::OTHER_SIDE,
        };
        self.close_with(partner, reason, end, None);
    }

    /// Whether a connection whose other side is broken has still something to deliver, and delivers it: the last bytes, or that
    /// they were the last.
    fn outlive(&mut self, token: Token, whole: bool) -> bool {
        let unsent = self.reactor.unsent(token);
        let Some(conn) = self.conns.get_mut(token) else { return false };
        if !whole && conn.output.is_none() && !unsent {
            return false;
        }
        conn.state = State::Flushing(Reason::OTHER_SIDE);
        conn.over_water = false;
        conn.reading.paused = false;
        conn.sending = if whole { conn.sending } else { Sending::Breaking };
        true
    }

    /// Ends a pair in order: what is queued is sent, then FIN, each on its own.
    pub(super) fn part(&mut self, token: Token, reason: Reason) {
        let Some(partner) = self.conns.get_mut(token).map(|conn| conn.partner()) else { return };
        for token in [token, partner] {
            if let Some(conn) = self.conns.get_mut(token) {
                conn.state = State::Flushing(reason);
                conn.over_water = false;
                conn.reading.paused = false;
            }
        }
        self.settle(token);
        self.settle(partner);
    }
}

/// What is still to be passed on.
enum Rest<'a> {
    /// A part of what was received last.
    Received(Range<usize>),
    /// What was kept.
    Kept(&'a [u8]),
}

impl Rest<'_> {
    fn len(&self) -> usize {
        match self {
            Self::Received(range) => range.len(),
            Self::Kept(bytes) => bytes.len(),
        }
    }
}
