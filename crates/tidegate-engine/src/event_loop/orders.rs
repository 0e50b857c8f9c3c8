//! Orders: sockets that come and go, accepting that pauses, and connections that are asked about, while the loop serves.

use tidegate_reactor::{Reactor, Token};
use tidegate_timer::Instant;

use super::deadline::LINGER;
use super::{Loop, Stage};
use crate::accepting::{LAST_ACCEPTS, Port};
use crate::conn::{Conn, State};
use crate::conn_info::{ConnInfo, ConnState, MAX_PAGE};
use crate::io::Retirement;
use crate::order::{Order, Question};
use crate::{ConnId, Reason, Socket};

impl<R: Reactor> Loop<R> {
    pub(super) fn carry_out(&mut self, order: Order) {
        match order {
            Order::Adopt { key, site, socket } => self.adopt(key, site, socket),
            Order::Release { key } => self.release(key),
            Order::Pause { site } => self.pause(site),
            Order::Resume { site } => self.resume(site),
            Order::List(question) => self.answer(&question),
        }
    }

    fn adopt(&mut self, key: u64, site: usize, socket: Socket) {
        if self.stage == Stage::Serving && self.datagrams.has_site(site) {
            self.adopt_datagrams(key, site, socket);
        } else if self.stage == Stage::Serving {
            self.accepting.adopt(&mut self.reactor, key, site, socket);
        } else {
            // Its owner has it still, and does not count on a loop that it has told to end.
            tracing::debug!(site, key, "retiring: socket not adopted");
        }
    }

    fn release(&mut self, key: u64) {
        self.release_datagrams(key);
        for port in self.accepting.release(&mut self.reactor, key) {
            if self.accepting.is_paused(port.site) {
                self.take_what_was_accepted(port);
            } else {
                self.take_what_waits(port);
            }
            self.accepting.close(&mut self.reactor, port);
        }
    }

    fn pause(&mut self, site: Option<usize>) {
        self.pause_datagrams(site, true);
        for port in self.accepting.pause_site(&mut self.reactor, site) {
            self.take_what_waits(port);
        }
    }

    fn resume(&mut self, site: Option<usize>) {
        self.pause_datagrams(site, false);
        self.accepting.resume_site(site);
        // A loop without room, or one that retires, stays as it is.
        if !self.accepting.is_waiting() && self.stage == Stage::Serving {
            self.accepting.resume(&mut self.reactor, self.turn.now);
        }
    }

    /// Takes what came to a paused socket before it was paused, as far as there is room. A connection that waits in the
    /// kernel's queue can be left to others; one that the reactor has accepted cannot.
    pub(super) fn take_what_waits(&mut self, port: Port) {
        for _ in 0..LAST_ACCEPTS {
            if self.conns.is_full() || (self.stage == Stage::Serving && self.memory.refuses()) {
                break;
            }
            let Some(arrival) = self.accepting.accept_last(&mut self.reactor, port) else { break };
            self.take_in(arrival);
        }
        self.take_what_was_accepted(port);
    }

    fn take_what_was_accepted(&mut self, port: Port) {
        while let Some(arrival) = self.accepting.take_accepted(&mut self.reactor, port) {
            self.take_in(arrival);
        }
    }

    fn answer(&self, question: &Question) {
        let Question { after, limit, answer } = question;
        let from = after.map_or(0, |id| id.slot().saturating_add(1));
        let page = self.conns.iter_from(from).take((*limit).min(MAX_PAGE));
        let page = page.map(|(token, conn)| self.info(token, conn)).collect();
        // Whoever asked may have given up by now.
        let _ = answer.try_send(page);
    }

    fn info(&self, token: Token, conn: &Conn) -> ConnInfo {
        let now = self.turn.now;
        ConnInfo {
            id: ConnId(token),
            site: usize::from(conn.site),
            peer: conn.who.peer,
            age: now.saturating_duration_since(conn.opened),
            state: self.state_of(conn),
            bytes_in: conn.bytes_in,
            bytes_out: conn.bytes_out,
            queued: conn.queued().bytes + self.reactor.unsent_bytes(token),
            next_close: self.next_close(conn).map(|(reason, at)| (reason, at.saturating_duration_since(now))),
        }
    }

    fn state_of(&self, conn: &Conn) -> ConnState {
        match conn.state {
            State::Connecting => ConnState::Connecting,
            State::Greeting => ConnState::Greeting,
            State::Handshaking => ConnState::Handshaking,
            State::Tied => ConnState::Tied,
            State::Flushing(_) => ConnState::Flushing,
            State::Lingering(_) => ConnState::Lingering,
            State::Open if conn.suspended || conn.away || conn.unqueued => ConnState::Handling,
            State::Open if self.turn.retirement != Retirement::None => ConnState::Retiring,
            State::Open => ConnState::Open,
        }
    }

    /// The first of the limits that it is under.
    fn next_close(&self, conn: &Conn) -> Option<(Reason, Instant)> {
        let limits = &self.sites[usize::from(conn.site)].limits;
        let own = conn.due(limits, LINGER).map(|(phase, at)| match conn.state {
            State::Lingering(reason) => (reason, at),
            State::Handshaking => (Reason::TLS_TIMEOUT, at),
            State::Connecting | State::Greeting | State::Open | State::Tied | State::Flushing(_) => {
                (phase.timeout_reason(), at)
            }
        });
        let pace = conn.pace().and_then(|pace| Some((pace.reason(), pace.until()?)));
        let end = match self.stage {
            Stage::LastReads { until, .. } | Stage::Retiring { until } if until < Instant::MAX => {
                Some((Reason::SHUTDOWN_TIMEOUT, until))
            }
            _ => None,
        };
        // Of a session that is away nothing is known.
        let service = match conn.state {
            State::Open => self.hosts[usize::from(conn.site)].next_close(conn.session),
            State::Connecting
            | State::Greeting
            | State::Handshaking
            | State::Tied
            | State::Flushing(_)
            | State::Lingering(_) => None,
        };
        own.into_iter().chain(pace).chain(end).chain(service).min_by_key(|(_, at)| *at)
    }
}
