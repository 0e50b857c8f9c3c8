//! Accepting: new connections, the limit on them, and running out of descriptors.
//!
//! At the limit of connections, listeners are paused and peers wait in the kernel's queue. Out of descriptors or memory, a
//! service that has an answer for it gives it through the reserve descriptor; for the others listeners are paused, and
//! tried again later: see [`Accepting`](crate::accepting::Accepting).
//!
//! A connection is counted in the loop's intake before it is admitted, by whoever accepted it, and counted out when it has
//! ended or was not admitted.

use std::os::fd::OwnedFd;

use tidegate_reactor::{AcceptError, ListenerId, PeerAddress, Reactor, Token};

use super::{Loop, Stage};
use crate::Refusal;
use crate::accepting::Moment;
use crate::conn::{Conn, State};
use crate::intake::Arrival;
use crate::io::{Queued, security_of};
use crate::metrics::ListenerWord;

impl<R: Reactor> Loop<R> {
    pub(super) fn on_accepted(&mut self, listener: ListenerId, socket: OwnedFd, peer: PeerAddress) {
        let Some(site) = self.accepting.site_of(listener) else { return };
        self.take_in(Arrival { site, socket, peer });
    }

    /// Admits a connection that the loop has accepted for itself; the last one there is room for pauses the listeners.
    pub(super) fn take_in(&mut self, arrival: Arrival) {
        if self.conns.is_full() {
            // It is too late to leave it in the kernel's queue.
            return self.strays.push_back(arrival);
        }
        self.turn.shared.intake.enter();
        self.admit(arrival);
        if self.conns.is_full() {
            let moment = self.moment();
            self.accepting.fill_up(&mut self.reactor, moment);
        }
    }

    /// Admits those that there is room for now. False when there was none.
    pub(super) fn take_in_strays(&mut self) -> bool {
        let mut any = false;
        while !self.conns.is_full()
            && let Some(arrival) = self.strays.pop_front()
        {
            self.take_in(arrival);
            any = true;
        }
        if any && let Stage::Retiring { until } = self.stage {
            // What they have sent is read before their services are told.
            self.read_last(until);
        }
        any
    }

    /// Gives a connection a slot and opens it.
    pub(super) fn admit(&mut self, arrival: Arrival) {
        let Arrival { site, socket, peer } = arrival;
        let index = u16::try_from(site).expect("the builder limits the number of listeners");
        let now = self.turn.now;
        let Some(token) = self.conns.insert(|id| Conn::new(id, index, peer, now)) else {
            self.sites[site].metrics.add(ListenerWord::Overloaded, 1);
            return self.turn.shared.intake.leave();
        };
        if let Err(errno) = self.reactor.open(token, socket) {
            tracing::error!(listener = &*self.sites[site].name, %errno, "connection cannot be watched");
            self.conns.remove(token);
            self.sites[site].metrics.add(ListenerWord::Overloaded, 1);
            self.turn.shared.intake.leave();
            let moment = self.moment();
            return self.accepting.shortage(&mut self.reactor, site, moment);
        }
        self.sites[site].metrics.add(ListenerWord::Accepted, 1);
        self.turn.shared.set_generation(token.slot, token.generation);
        self.publish_open(site, 1);
        self.greet(token, site);
    }

    pub(super) fn open(&mut self, token: Token, site: usize) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let mut io = self.turn.io(&conn.who, Queued::default(), &self.sites[site]);
        io.security = security_of(&conn.aside);
        let opened = self.hosts[site].open(&mut io);
        match opened {
            Ok(session) => {
                conn.session = session;
                self.turn.carry_out(conn);
                self.settle(token);
            }
            Err(refusal) => {
                // What it has asked for besides is not its own affair alone.
                self.turn.wishes.extend(self.turn.record.wishes.drain(..));
                self.refuse(token, refusal);
            }
        }
    }

    /// Ends a connection that its service does not want: at once, or with an answer that reaches the peer.
    fn refuse(&mut self, token: Token, refusal: Refusal) {
        if refusal.answer.is_empty() {
            return self.close(token, refusal.reason, None);
        }
        self.turn.record.clear();
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.state = State::Flushing(refusal.reason);
        self.turn.record.out.extend_from_slice(refusal.answer);
        self.settle(token);
    }

    pub(super) fn on_accept_failed(&mut self, listener: ListenerId, error: AcceptError) {
        let moment = self.moment();
        self.accepting.failed(&mut self.reactor, listener, error, moment);
    }

    pub(super) fn retry_accepts(&mut self) {
        if self.accepting.is_retry_due(self.turn.now) {
            self.resume_all();
        }
    }

    /// A connection ended: there is a slot and a descriptor again.
    pub(super) fn room_again(&mut self) {
        self.turn.shared.intake.leave();
        if self.accepting.is_waiting() {
            self.resume_all();
        }
    }

    pub(super) fn resume_all(&mut self) {
        if self.conns.is_full() || self.memory.refuses() || self.stage != Stage::Serving {
            return self.accepting.stay_paused();
        }
        self.accepting.resume(&mut self.reactor, self.turn.now);
    }

    pub(super) fn publish_open(&mut self, site: usize, change: i64) {
        let metrics = &self.sites[site].metrics;
        let open = metrics.get(ListenerWord::Open);
        metrics.set(ListenerWord::Open, open.saturating_add_signed(change));
    }

    pub(super) fn moment(&self) -> Moment {
        Moment { now: self.turn.now, connections: self.conns.len() }
    }
}
