//! Input: from received bytes to messages, and the peer's end.
//!
//! Messages are handled where they were received; only what is left over is copied, and a connection whose input has all
//! been handled holds no buffer. Invariant: a connection that is held receives nothing, so the input that is kept grows by
//! at most one receive over what `max_input_bytes` allows.

use tidegate_reactor::{Reactor, Token};

use super::Loop;
use crate::conn::{Conn, Eof, State};
use crate::host::{Event, Input, Then};
use crate::io::security_of;
use crate::metrics::ListenerWord;
use crate::record::Received;
use crate::spares::Spares;
use crate::{Flow, Phase, Reason};

/// What a peer may still send after its last message was handled.
const LINGER_BYTES: u32 = 1 << 20;

impl<R: Reactor> Loop<R> {
    pub(super) fn on_received(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let data = self.reactor.received();
        conn.bytes_in += data.len() as u64;
        let site = &self.sites[usize::from(conn.site)];
        site.metrics.add(ListenerWord::BytesIn, data.len() as u64);
        if conn.aside.is_some() && conn.layer().is_some() {
            // A record that never becomes whole says nothing: an idle peer is idle until the layer has unsealed something.
            if conn.state != State::Open || conn.reading.phase != Phase::Idle {
                conn.last_in = self.turn.now;
            }
            return self.on_sealed(token);
        }
        conn.last_in = self.turn.now;
        if conn.state != State::Open || conn.is_over() {
            match conn.state {
                State::Tied => return self.pass_on(token),
                State::Greeting => return self.hear_greeting(token),
                _ => {}
            }
            let n = u32::try_from(data.len()).unwrap_or(u32::MAX);
            return self.throw_away(token, n);
        }
        if self.crew.is_some() || !conn.input.is_empty() || conn.is_held() {
            keep(conn, &mut self.spares, data);
            return self.pump(token);
        }
        let host = &mut self.hosts[usize::from(conn.site)];
        let queued = conn.queued();
        let mut io = self.turn.io(&conn.who, queued, site);
        if self.reactor.forwards() {
            io.received = Received::at(data);
        }
        let Input { consumed, then } = host.input(conn.session, &mut io, &mut conn.reading, data);
        if consumed < data.len() && !then.ends_input() {
            keep(conn, &mut self.spares, &data[consumed..]);
        }
        self.turn.carry_out(conn);
        let site = conn.site;
        self.follow(token, then);
        if consumed > 0 && then.is_answered() {
            self.answered(site, self.turn.now);
        }
    }

    /// Handles what input waits, as far as the connection may go on.
    pub(super) fn pump(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.is_held() || conn.away || conn.state != State::Open || conn.input.is_empty() {
            return self.settle(token);
        }
        if conn.input.len() < conn.reading.need as usize {
            return self.follow(token, Then::NeedMore);
        }
        if self.crew.is_some() {
            return self.send_off(token);
        }
        if self.visits.is_some() {
            self.lend(token);
            return self.settle(token);
        }
        let mut input = std::mem::take(&mut conn.input);
        let site = &self.sites[usize::from(conn.site)];
        let host = &mut self.hosts[usize::from(conn.site)];
        let queued = conn.queued();
        let mut io = self.turn.io(&conn.who, queued, site);
        io.security = security_of(&conn.aside);
        let Input { consumed, then } = host.input(conn.session, &mut io, &mut conn.reading, &input);
        self.turn.carry_out(conn);
        if consumed < input.len() && !then.ends_input() {
            input.drain(..consumed);
            conn.input = input;
        } else {
            self.spares.keep(input);
        }
        let (site, since) = (conn.site, conn.last_in);
        self.follow(token, then);
        if consumed > 0 && then.is_answered() {
            self.answered(site, since);
        }
    }

    /// Does what the end of a batch asks for.
    pub(super) fn follow(&mut self, token: Token, then: Then) {
        match then {
            Then::NeedMore => {
                let Some(conn) = self.conns.get_mut(token) else { return };
                let limit = self.sites[usize::from(conn.site)].limits.max_input_bytes;
                // What needs more than the limit never comes whole, so it is not waited for.
                if conn.input.len().max(conn.reading.need as usize) > limit {
                    return self.close(token, Reason::INPUT_OVERFLOW, None);
                }
                self.settle(token);
            }
            // Over the high-water mark, settling lists the connection as soon as its output has been taken.
            Then::Later => self.settle(token),
            Then::Flow(flow) => self.apply(token, flow),
        }
    }

    pub(super) fn on_ended(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if !conn.has_ended() {
            conn.eof = Eof::Came;
        }
        match conn.state {
            State::Lingering(_) => self.end_lingering(token),
            State::Connecting | State::Flushing(_) => {}
            State::Handshaking => self.on_handshake_ended(token),
            State::Tied => self.on_tied_ended(token),
            State::Greeting => self.greeting_ended(token),
            State::Open => self.tell_eof(token),
        }
    }

    /// Calls `on_eof` once all complete messages before the end have been handled.
    pub(super) fn tell_eof(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let waiting = conn.suspended || conn.away || (conn.is_held() && !conn.input.is_empty());
        if conn.eof == Eof::Came && !waiting && conn.state == State::Open {
            if let Some(errno) = conn.unheard {
                return self.close_broken(token, errno);
            }
            conn.eof = Eof::Told;
            self.notify(token, Event::Eof);
        }
    }

    /// The connection is ending; the peer does not know it yet.
    pub(super) fn throw_away(&mut self, token: Token, n: u32) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.lingered = conn.lingered.saturating_add(n);
        if conn.state != State::Open && conn.lingered > LINGER_BYTES {
            // It is to read, not to write. How long it may take for that, the write time-out says, and then the time it is
            // lingered for: closed at once, its last bytes might be thrown away with a reset on their way to it.
            conn.deaf = true;
            self.settle(token);
        }
    }
}

impl Then {
    /// Whether what is left of the input will not be handled.
    pub(crate) fn ends_input(self) -> bool {
        matches!(self, Self::Flow(Flow::CloseAfterFlush(_) | Flow::Abort(_)))
    }

    /// Whether the messages that were handled have their answers, as far as their service has any: what it suspends its
    /// connection for is answered with a note.
    pub(crate) fn is_answered(self) -> bool {
        !matches!(self, Self::Flow(Flow::Suspend | Flow::Abort(_)))
    }
}

/// Copies what is left of the input.
pub(super) fn keep(conn: &mut Conn, spares: &mut Spares, rest: &[u8]) {
    if conn.input.capacity() == 0 {
        conn.input = spares.take();
    }
    conn.input.extend_from_slice(rest);
}
