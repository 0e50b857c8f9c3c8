//! The end of connections.
//!
//! Every connection that was opened ends in [`Loop::close_with`], which is the only place where a slot is given up and
//! `on_close` is called, so each sees exactly one.
//!
//! A peer that died may have said something just before, and the server learns of its death first when it answers what
//! came earlier. Over a Unix socket the last words are still there then, and are heard; a TCP connection is reset by such
//! a peer, which means that it is over in both directions (RFC 9293, section 3.5.3).

use tidegate_reactor::{End, Errno, Reactor, Token};
use tidegate_timer::TimerQueue;

use super::Loop;
use crate::conn::{Conn, Ending, Sending, State};
use crate::handle::ConnId;
use crate::host::Event;
use crate::io::security_of;
use crate::metrics::{ListenerWord, ProcessWord};
use crate::{Closed, Reason};

impl<R: Reactor> Loop<R> {
    /// Ends a connection now, as its reason says.
    pub(super) fn close(&mut self, token: Token, reason: Reason, errno: Option<i32>) {
        self.close_with(token, reason, reason.end(), errno);
    }

    /// The kernel says that the connection is broken.
    pub(super) fn close_broken(&mut self, token: Token, errno: Errno) {
        let reason = match errno {
            Errno::CONNRESET | Errno::PIPE | Errno::TIMEDOUT | Errno::HOSTUNREACH | Errno::NETUNREACH => {
                Reason::PEER_RESET
            }
            _ => Reason::IO_ERROR,
        };
        let finishing = self.conns.get_mut(token).and_then(|conn| match conn.state {
            // The answer was delivered; how the peer goes away afterwards is its own affair.
            State::Lingering(reason) => Some(reason),
            // So were all answers here; what was lost is that none follows.
            State::Flushing(reason) if conn.layer().is_some_and(|layer| layer.closed) => Some(reason),
            State::Connecting
            | State::Greeting
            | State::Handshaking
            | State::Open
            | State::Tied
            | State::Flushing(_) => None,
        });
        let cause = if finishing.is_none() { Some(errno.raw_os_error()) } else { None };
        self.close_with(token, finishing.unwrap_or(reason), End::Reset, cause);
    }

    /// The kernel says so when it is asked for more input, of which there is no more.
    pub(super) fn on_failed(&mut self, token: Token, errno: Errno) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.state == State::Connecting {
            return self.on_connect_failed(token, errno);
        }
        let unhandled = !conn.input.is_empty();
        if unhandled && self.hear_on(token, errno) {
            return self.on_ended(token);
        }
        self.close_broken(token, errno);
    }

    /// A send failed. Answers whether the connection goes on: without its output, until the end of its input.
    pub(super) fn on_unsendable(&mut self, token: Token, errno: Errno) -> bool {
        let tied = self.conns.get_mut(token).is_some_and(|conn| conn.state == State::Tied);
        if tied && matches!(errno, Errno::PIPE | Errno::CONNRESET) {
            return self.on_unpassable(token, errno);
        }
        let goes_on = self.hear_on(token, errno);
        if !goes_on {
            self.close_broken(token, errno);
        }
        goes_on
    }

    /// The peer is gone, but what it has said may not all have been handled. False when that is not to be.
    fn hear_on(&mut self, token: Token, errno: Errno) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        let left = conn.is_unix && matches!(errno, Errno::PIPE | Errno::CONNRESET);
        if !left || conn.state != State::Open || conn.has_ended() || conn.is_over() {
            return false;
        }
        conn.unheard = Some(errno);
        conn.send_later = false;
        conn.stalled = false;
        if let Some(mut output) = conn.output.take() {
            output.clear(&mut self.turn.pool);
        }
        self.turn.record.clear_output();
        self.leave_pool(token);
        true
    }

    pub(super) fn close_with(&mut self, token: Token, reason: Reason, end: End, errno: Option<i32>) {
        // What its callbacks have just written is for nobody now, least of all for the next peer.
        self.turn.record.clear();
        if self.is_unconnected(token) {
            return self.on_unagreed(token, reason, errno);
        }
        if let Some(conn) = self.conns.get_mut(token)
            && conn.end_later(Ending { reason, end, errno })
        {
            return;
        }
        // In any other end a part of a batch may have been lost on its way.
        if end == End::Fin && errno.is_none() {
            self.tell_sent_at_last(token);
        }
        if end == End::Fin {
            self.say_goodbye(token);
        }
        let Some(mut conn) = self.conns.remove(token) else { return };
        self.leave_handshake(&mut conn);
        self.turn.shared.set_generation(token.slot, 0);
        let bytes_taken = conn.bytes_taken(self.reactor.unsent_bytes(token));
        if let Some(mut output) = conn.output.take() {
            output.clear(&mut self.turn.pool);
        }
        self.reactor.close(token, end);
        if let Some(key) = conn.deadline.take() {
            self.turn.timers.cancel(key);
        }
        for (_, key) in conn.timers.drain(..) {
            self.turn.timers.cancel(key);
        }
        self.memory.forget(&conn);
        if conn.counted {
            self.addresses.leave(conn.who.peer);
        }
        let site = usize::from(conn.site);
        self.publish_open(site, -1);
        self.sites[site].metrics.add_closed(reason);
        // A FIN that comes while we linger answers ours.
        let by_peer =
            !matches!(conn.state, State::Lingering(_)) && (conn.has_ended() || reason == Reason::PEER_RESET);
        let first = if by_peer { ListenerWord::ClosedByPeer } else { ListenerWord::ClosedByServer };
        self.sites[site].metrics.add(first, 1);
        if reason == Reason::PANIC {
            self.metrics.add(ProcessWord::Panics, 1);
        }
        let closed = Closed { bytes_taken, ..self.closed(&conn, reason, errno) };
        tracing::debug!(
            conn = %closed.id,
            listener = &*self.sites[site].name,
            peer = %closed.address,
            reason = reason.name(),
            number = reason.number(),
            age_ms = u64::try_from(closed.age.as_millis()).unwrap_or(u64::MAX),
            bytes_in = closed.bytes_in,
            bytes_out = closed.bytes_out,
            errno,
            "connection closed"
        );
        if reason.is_bad_peer() {
            self.report_bad_peer(site, &closed);
        }
        if self.hosts[site].close(&conn, &closed, &self.metrics).is_err() {
            self.metrics.add(ProcessWord::Panics, 1);
        }
        self.room_again();
        if !self.pools.is_empty() {
            self.member_closed(&conn);
        }
        if conn.state == State::Tied {
            self.end_partner(&conn, reason, end, errno);
        }
    }

    /// Such ends come by the thousand, so it is one record a second for each cause.
    fn report_bad_peer(&mut self, site: usize, closed: &Closed) {
        let reports = &mut self.bad_peers[usize::from(closed.reason.number())];
        if let Some(suppressed) = reports.pass(self.turn.now) {
            tracing::info!(
                listener = &*self.sites[site].name,
                peer = %closed.address,
                reason = closed.reason.name(),
                age_ms = u64::try_from(closed.age.as_millis()).unwrap_or(u64::MAX),
                bytes_in = closed.bytes_in,
                bytes_out = closed.bytes_out,
                suppressed,
                "a peer was closed for what it did"
            );
        }
    }

    /// The peer may have gone before its service was told that the kernel had taken everything for it.
    fn tell_sent_at_last(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if !conn.awaits_sent || conn.output.is_some() || conn.unheard.is_some() || self.reactor.unsent(token)
        {
            return;
        }
        let site = usize::from(conn.site);
        let mut io = self.turn.io(&conn.who, conn.queued(), &self.sites[site]);
        io.security = security_of(&conn.aside);
        // What it answers, or asks for, comes too late.
        let _ = self.hosts[site].call(conn.session, &mut io, Event::Sent);
        self.turn.record.clear();
    }

    /// All output is sent: FIN, then the peer's last bytes are thrown away until its own FIN.
    pub(super) fn begin_lingering(&mut self, token: Token, reason: Reason) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.sending == Sending::Breaking {
            return self.close_with(token, reason, End::Reset, None);
        }
        if conn.has_ended() {
            return self.close_with(token, reason, End::Fin, None);
        }
        conn.state = State::Lingering(reason);
        conn.last_out = self.turn.now;
        conn.lingered = 0;
        conn.deaf = false;
        self.reactor.shutdown_send(token);
        self.settle(token);
    }

    /// The peer is done, or has had its time.
    pub(super) fn end_lingering(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if let State::Lingering(reason) = conn.state {
            self.close_with(token, reason, End::Fin, None);
        }
    }

    /// What `on_close` and the log are told of a connection.
    fn closed(&self, conn: &Conn, reason: Reason, errno: Option<i32>) -> Closed {
        Closed {
            reason,
            id: ConnId(conn.who.id),
            address: conn.who.peer,
            age: self.turn.now.saturating_duration_since(conn.opened),
            bytes_in: conn.bytes_in,
            bytes_out: conn.bytes_out,
            bytes_taken: conn.bytes_out,
            errno,
        }
    }
}
