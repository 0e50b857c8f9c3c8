//! Ready connections that leave the loop with their sockets, for threads that receive, handle and send by themselves.
//!
//! Invariant: a connection that is lent has its session and its socket in exactly one visit, and is `away` until that is
//! back, so whatever concerns it meanwhile waits.

use std::collections::VecDeque;

use tidegate_reactor::{Epoll, Got, Reactor, Token};

use super::Loop;
use super::relief::Buffers;
use crate::Phase;
use crate::conn::State;
use crate::errand::Errand;
use crate::layered::Layered;
use crate::metrics::ListenerWord;
use crate::visit::{Came, Visit};

/// Emptied visits that are kept for the next connections.
const SPARES: usize = 256;

/// The visits of a loop. Each connection has at most one, which bounds them all.
#[derive(Debug, Default)]
pub(crate) struct Visits {
    /// Those that wait for a thread, in order.
    ready: VecDeque<Box<Visit>>,
    /// Those that wait or are with a thread.
    pub(super) out: usize,
    spares: VecDeque<Box<Visit>>,
}

impl Visits {
    /// The next one for a thread to make.
    pub(crate) fn take(&mut self) -> Option<Box<Visit>> {
        self.ready.pop_front()
    }

    /// Frees the buffers of the visits that are kept.
    pub(super) fn free_idle(&mut self) {
        self.spares.iter_mut().for_each(|visit| visit.free_buffers());
    }

    /// How many wait for a thread.
    pub(crate) fn waiting(&self) -> usize {
        self.ready.len()
    }
}

impl Loop<Epoll> {
    /// The time goes on between two turns, too.
    pub(crate) fn read_clock(&mut self) {
        self.reactor.read_clock();
        self.read_now();
    }
}

impl<R: Reactor> Loop<R> {
    /// There may be something to receive.
    pub(super) fn on_ready(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.state == State::Open && !conn.away && !conn.is_held() {
            self.lend(token);
        } else if let Some(completion) = self.reactor.receive_now(token) {
            self.complete(completion);
        }
    }

    /// Puts a connection on the list of those that wait for a thread.
    pub(super) fn lend(&mut self, token: Token) {
        let (Some(conn), Some(visits)) = (self.conns.get_mut(token), &mut self.visits) else { return };
        let Some(loan) = self.reactor.lend(token) else { return };
        let Some(away) = self.hosts[usize::from(conn.site)].depart(conn.session) else {
            return self.reactor.give_back(loan);
        };
        let (moment, site) = (self.turn.moment(), &self.sites[usize::from(conn.site)]);
        let mut visit = self.memory.take_idle(visits.spares.pop_front()).unwrap_or_else(|| {
            Box::new(Visit::new(Errand::new(conn, moment, site, &self.turn.shared), conn.reading))
        });
        visit.errand.renew(conn, moment, site);
        visit.errand.away = Some(away);
        visit.loan = Some(loan);
        visit.layer = conn.aside.as_deref_mut().and_then(|aside| aside.layer.take());
        visit.reading = conn.reading;
        self.spares.keep(std::mem::replace(&mut visit.input, std::mem::take(&mut conn.input)));
        let layer = visit.layer.as_ref().map_or(0, Layered::buffer_bytes);
        self.memory.lend(&mut visit.errand, visit.input.capacity() + layer);
        conn.away = true;
        visits.out += 1;
        visits.ready.push_back(visit);
    }

    /// Takes a connection back, and does what its callbacks asked for and what happened meanwhile.
    pub(crate) fn end_visit(&mut self, mut visit: Box<Visit>) {
        let token = visit.errand.who.id;
        if let Some(loan) = visit.loan.take() {
            self.reactor.give_back(loan);
        }
        let came = visit.came;
        let (site, since) = (visit.errand.site.index, visit.errand.moment.now);
        if let Some(conn) = self.conns.get_mut(token) {
            let metrics = &self.sites[usize::from(conn.site)].metrics;
            conn.reading = visit.reading;
            if let Some(layer) = visit.layer.take() {
                conn.aside.get_or_insert_default().layer = Some(layer);
            }
            if !visit.input.is_empty() {
                conn.input = std::mem::replace(&mut visit.input, self.spares.take());
            }
            if came.received > 0 {
                conn.bytes_in += came.received;
                // As for `on_received`: sealed bytes that mean nothing yet do not keep an idle peer.
                let says_something = came.messages > 0 || !conn.input.is_empty();
                if says_something || conn.reading.phase != Phase::Idle || conn.layer().is_none() {
                    conn.last_in = self.turn.now;
                }
                metrics.add(ListenerWord::BytesIn, came.received);
            }
            if came.sent > 0 {
                conn.bytes_out += came.sent;
                metrics.add(ListenerWord::BytesOut, came.sent);
            }
        }
        let (sealed, failed) = (std::mem::take(&mut visit.sealed), visit.failed.take());
        self.keep_sealed(token, &sealed);
        let absence = self.come_home(&mut visit.errand, came.messages);
        if let Some(visits) = &mut self.visits {
            visits.out -= 1;
            if visits.spares.len() < SPARES {
                visit.errand.record.clear();
                self.memory.keep_idle(&mut *visit);
                visits.spares.push_back(visit);
            }
        }
        match absence {
            Some(absence) => self.catch_up(token, *absence, |this| this.conclude(token, &came)),
            None => self.conclude(token, &came),
        }
        if came.messages > 0 && came.then.is_answered() {
            self.answered(site, since);
        }
        if let Some(error) = failed {
            self.layer_failed(token, &error);
        }
        self.pump(token);
        self.tell_eof(token);
        self.grant_wishes();
        self.relieve();
    }

    fn conclude(&mut self, token: Token, came: &Came) {
        if let Some(errno) = came.broken
            && !self.on_unsendable(token, errno)
        {
            return;
        }
        match came.end {
            Some(Got::Failed(errno)) => self.on_failed(token, errno),
            Some(Got::Ended) => {
                self.follow(token, came.then);
                self.on_fin(token);
            }
            _ => self.follow(token, came.then),
        }
    }

    pub(crate) fn take_visit(&mut self) -> Option<Box<Visit>> {
        self.visits.as_mut()?.take()
    }

    pub(crate) fn visits_waiting(&self) -> usize {
        self.visits.as_ref().map_or(0, Visits::waiting)
    }

    /// After the end: visits that no thread made come back as they left.
    pub(crate) fn cancel_visits(&mut self) {
        while let Some(mut visit) = self.visits.as_mut().and_then(Visits::take) {
            visit.came = Came::default();
            self.end_visit(visit);
        }
    }
}
