//! Who is at the other end: what has to be known of a connection before its service is told of it.
//!
//! ```text
//!   accepted ──▶ Greeting (a PROXY header is due) ──▶ counted for its address ──▶ Handshaking (see `layers`) ──▶ on_open
//! ```
//!
//! On a listener without a balancer in front the first step is left out, and on one without TLS the last. Invariant: until `on_open` has answered, a connection
//! has no session, and nothing of what it has sent is given to a service.

use tidegate_reactor::{PeerAddress, Reactor, Token};

use super::Loop;
use super::input::keep;
use crate::conn::State;
use crate::io::Retirement;
use crate::proxy_header::ProxyHeader;
use crate::{Phase, Reason};

impl<R: Reactor> Loop<R> {
    /// A connection was accepted.
    pub(super) fn greet(&mut self, token: Token, site: usize) {
        if !self.sites[site].proxied {
            return self.introduce(token, site);
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.state = State::Greeting;
        conn.reading.enter(Phase::Head, self.turn.now);
        self.settle(token);
    }

    /// Who is at the other end is known.
    fn introduce(&mut self, token: Token, site: usize) {
        let limit = self.sites[site].limits.max_connections_per_address;
        if limit > 0 {
            let Some(conn) = self.conns.get_mut(token) else { return };
            conn.counted = self.addresses.enter(conn.who.peer, limit);
            if !conn.counted {
                return self.close(token, Reason::ADDRESS_LIMIT, None);
            }
        }
        self.shake_hands(token, site);
    }

    /// Something was received while the header is due.
    pub(super) fn hear_greeting(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        keep(conn, &mut self.spares, self.reactor.received());
        match ProxyHeader::parse(&conn.input) {
            Ok(ProxyHeader::Partial(_)) => self.settle(token),
            Ok(ProxyHeader::Complete { len, source }) => {
                conn.input.drain(..len);
                if let Some(source) = source {
                    conn.who.peer = PeerAddress::Inet(source);
                }
                self.end_greeting(token);
            }
            Err(error) => {
                let listener = &*self.sites[usize::from(conn.site)].name;
                tracing::debug!(listener, peer = %conn.who.peer, %error, "no PROXY header");
                self.close(token, Reason::PROXY_HEADER, None);
            }
        }
    }

    /// The header is there, and what stands behind it is the service's.
    fn end_greeting(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.state = State::Open;
        conn.reading.enter(Phase::Idle, self.turn.now);
        conn.told = Retirement::None;
        if conn.input.is_empty() {
            self.spares.keep(std::mem::take(&mut conn.input));
        }
        let site = usize::from(conn.site);
        self.introduce(token, site);
        self.pump(token);
        self.tell_eof(token);
        self.tell_late_comer(token);
    }

    /// The peer ended its side before its header was whole. One that says nothing at all asks whether the port is open, as
    /// balancers do.
    pub(super) fn greeting_ended(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let reason = if conn.input.is_empty() { Reason::PEER_CLOSED } else { Reason::PROXY_HEADER };
        self.close(token, reason, None);
    }
}
