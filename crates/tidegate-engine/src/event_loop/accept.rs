//! Accepting: new connections, the limit on them, and running out of descriptors.
//!
//! At the limit of connections, listeners are paused and peers wait in the kernel's queue. Out of descriptors or memory, a
//! service that has an answer for it gives it through the reserve descriptor; for the others listeners are paused, and
//! tried again at the next close or after [`RETRY_AFTER`]. Never a spin: a paused listener brings no event.

use std::os::fd::OwnedFd;
use std::time::Duration;

use tidegate_reactor::{AcceptError, ListenerId, PeerAddress, Reactor, Token};
use tidegate_timer::Instant;

use super::{Loop, Stage};
use crate::Refusal;
use crate::conn::{Conn, State};
use crate::io::Queued;
use crate::metrics::{ListenerWord, ProcessWord};

/// When a listener without descriptors is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Peers refused in a row before the loop looks at its connections again.
const REFUSE_BATCH: usize = 64;
/// One record a second of each kind, however often it happens.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// Why and until when listeners are paused.
#[derive(Debug, Default)]
pub(crate) struct Accepting {
    /// Listeners wait for a descriptor, and when they are tried again.
    exhausted: Option<Instant>,
    /// The table is full.
    full: bool,
    shortages: Reports,
    fullness: Reports,
}

/// Lets one record through in [`REPORT_EVERY`].
#[derive(Debug, Default)]
struct Reports {
    last: Option<Instant>,
    suppressed: u64,
}

/// A connection that was just accepted, before it has a slot.
pub(super) struct Arrival {
    pub(super) site: usize,
    pub(super) socket: OwnedFd,
    pub(super) peer: PeerAddress,
}

impl Accepting {
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.exhausted
    }
}

impl Reports {
    /// Whether to report now; then also how many times it was not reported before.
    fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + REPORT_EVERY) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl<R: Reactor> Loop<R> {
    pub(super) fn on_accepted(&mut self, listener: ListenerId, socket: OwnedFd, peer: PeerAddress) {
        let Some(site) = self.site_of(listener) else { return };
        self.admit(Arrival { site, socket, peer });
        if self.conns.is_full() && !self.accepting.full {
            self.accepting.full = true;
            for listener in &self.listeners {
                self.reactor.pause_accept(*listener);
            }
            if let Some(suppressed) = self.accepting.fullness.pass(self.turn.now) {
                let limit = self.conns.len();
                tracing::warn!(
                    limit,
                    suppressed,
                    "engine.max_connections reached; peers wait until a connection ends"
                );
            }
        }
    }

    /// Gives a connection a slot and opens it.
    pub(super) fn admit(&mut self, arrival: Arrival) {
        let Arrival { site, socket, peer } = arrival;
        let index = u16::try_from(site).expect("the builder limits the number of listeners");
        let now = self.turn.now;
        let Some(token) = self.conns.insert(|id| Conn::new(id, index, peer, now)) else {
            return self.sites[site].metrics.add(ListenerWord::Overloaded, 1);
        };
        if let Err(errno) = self.reactor.open(token, socket) {
            tracing::error!(listener = &*self.sites[site].name, %errno, "connection cannot be watched");
            self.conns.remove(token);
            self.sites[site].metrics.add(ListenerWord::Overloaded, 1);
            return self.shortage(site);
        }
        self.sites[site].metrics.add(ListenerWord::Accepted, 1);
        self.turn.shared.set_generation(token.slot, token.generation);
        self.publish_open(site, 1);
        self.open(token, site);
    }

    fn open(&mut self, token: Token, site: usize) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let opened =
            self.hosts[site].open(&mut self.turn.io(&conn.who, Queued::default(), &self.sites[site]));
        match opened {
            Ok(session) => {
                conn.session = session;
                self.turn.carry_out(conn);
                self.settle(token);
            }
            Err(refusal) => self.refuse(token, refusal),
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
        let Some(site) = self.site_of(listener) else { return };
        match error {
            AcceptError::Empty => {}
            AcceptError::Lost(_) => self.sites[site].metrics.add(ListenerWord::AcceptLost, 1),
            AcceptError::Exhausted(_) => self.shortage(site),
            AcceptError::Broken(errno) => {
                tracing::error!(listener = &*self.sites[site].name, %errno, "listener is broken and given up");
                self.reactor.unlisten(listener);
            }
        }
    }

    /// No descriptor, or no memory for one.
    fn shortage(&mut self, site: usize) {
        self.metrics.add(ProcessWord::AcceptExhausted, 1);
        if let Some(suppressed) = self.accepting.shortages.pass(self.turn.now) {
            let (listener, connections) = (&*self.sites[site].name, self.conns.len());
            tracing::warn!(
                listener,
                connections,
                suppressed,
                "out of descriptors or memory for a new connection; raise the limit of open files"
            );
        }
        let listener = self.listeners[site];
        if let Some(answer) = self.hosts[site].overload_answer() {
            for _ in 0..REFUSE_BATCH {
                match self.reactor.refuse_one(listener, answer) {
                    Ok(()) => self.sites[site].metrics.add(ListenerWord::Overloaded, 1),
                    Err(AcceptError::Lost(_)) => self.sites[site].metrics.add(ListenerWord::AcceptLost, 1),
                    Err(AcceptError::Empty) => return,
                    Err(AcceptError::Exhausted(_) | AcceptError::Broken(_)) => break,
                }
            }
        }
        self.reactor.pause_accept(listener);
        self.accepting.exhausted = Some(self.turn.now + RETRY_AFTER);
    }

    pub(super) fn retry_accepts(&mut self) {
        if self.accepting.exhausted.is_some_and(|at| at <= self.turn.now) {
            self.resume_all();
        }
    }

    /// A connection ended: there is a slot and a descriptor again.
    pub(super) fn room_again(&mut self) {
        if self.accepting.full || self.accepting.exhausted.is_some() {
            self.resume_all();
        }
    }

    fn resume_all(&mut self) {
        self.accepting.exhausted = None;
        self.accepting.full = self.conns.is_full();
        if self.accepting.full || self.stage != Stage::Serving {
            return;
        }
        for listener in &self.listeners {
            if self.reactor.resume_accept(*listener).is_err() {
                // It stays paused, as for want of any other memory, and is tried again.
                self.accepting.exhausted = Some(self.turn.now + RETRY_AFTER);
            }
        }
    }

    pub(super) fn publish_open(&mut self, site: usize, change: i64) {
        let metrics = &self.sites[site].metrics;
        let open = metrics.get(ListenerWord::Open);
        metrics.set(ListenerWord::Open, open.saturating_add_signed(change));
    }
}
