//! `Accepting`: the listeners of a reactor, and why and until when they are paused.
//!
//! Used by whoever accepts: a loop with listeners of its own, and the acceptor of several loops. It knows nothing of
//! connections but how many there are: whether there is room for another is its owner's to say. Never a spin: a paused
//! listener brings no event, and it is tried again when a connection has ended or after [`RETRY_AFTER`].

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{AcceptError, ListenerId, PeerAddress, Reactor};
use tidegate_timer::Instant;

use crate::BoxError;
use crate::intake::{Arrival, Handed};
use crate::metrics::{ListenerMetrics, ListenerWord, ProcessMetrics, ProcessWord};

mod ports;

pub(crate) use ports::Port;

/// When a listener without descriptors is tried again, or a channel that was full.
pub(crate) const RETRY_AFTER: Duration = Duration::from_millis(10);
/// Peers refused in a row before other work has its turn.
const REFUSE_BATCH: usize = 64;
/// How many connections a listener that is given up still takes from its queue.
pub(crate) const LAST_ACCEPTS: usize = 65_536;
/// One record a second of each kind, however often it happens.
const REPORT_EVERY: Duration = Duration::from_secs(1);

/// The listeners of a reactor.
#[derive(Debug)]
pub(crate) struct Accepting {
    /// By site.
    doors: Vec<Door>,
    /// The sockets of all sites, and those that were given up and of which something may still be reported.
    ports: Vec<Port>,
    metrics: ProcessMetrics,
    /// Listeners wait for a descriptor, and when they are tried again.
    exhausted: Option<Instant>,
    /// There is no room for another connection.
    full: bool,
    shortages: Reports,
    fullness: Reports,
    pressures: Reports,
}

/// A site, as far as accepting is concerned.
#[derive(Debug)]
pub(crate) struct Door {
    /// Nothing is accepted for it: its connections are outgoing ones.
    pub(crate) outgoing: bool,
    /// It has no sockets: an acceptor hands its connections over.
    pub(crate) handed_over: bool,
    /// It is one of datagrams, and has no connections.
    pub(crate) vacant: bool,
    /// By the operator.
    pub(crate) paused: bool,
    pub(crate) name: Arc<str>,
    pub(crate) metrics: ListenerMetrics,
    pub(crate) overload_answer: Option<&'static [u8]>,
}

impl Door {
    fn handed(&self) -> Handed {
        Handed { name: Arc::clone(&self.name), overload_answer: self.overload_answer }
    }
}

/// When something happened, and among how many connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Moment {
    pub(crate) now: Instant,
    pub(crate) connections: usize,
}

/// Lets one record through in [`REPORT_EVERY`].
#[derive(Debug, Default)]
pub(crate) struct Reports {
    last: Option<Instant>,
    suppressed: u64,
}

impl Reports {
    /// Whether to report now; then also how many times it was not reported before.
    pub(crate) fn pass(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + REPORT_EVERY) {
            self.suppressed += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.suppressed))
    }
}

impl Accepting {
    /// Without a listener; `metrics` counts what goes wrong.
    pub(crate) fn new(metrics: ProcessMetrics) -> Self {
        Self {
            doors: Vec::new(),
            ports: Vec::new(),
            metrics,
            exhausted: None,
            full: false,
            shortages: Reports::default(),
            fullness: Reports::default(),
            pressures: Reports::default(),
        }
    }

    pub(crate) fn add(&mut self, door: Door) {
        self.doors.push(door);
    }

    /// The sites that an acceptor hands connections over for.
    ///
    /// # Errors
    ///
    /// When these are some of the sites and not all: what an acceptor counts in would not be all that fills the loop.
    pub(crate) fn handed(&self) -> Result<Vec<Handed>, BoxError> {
        let doors = || self.doors.iter().filter(|door| !door.vacant && !door.outgoing);
        let (count, own) = (doors().count(), doors().filter(|door| !door.handed_over).count());
        if own > 0 && own < count {
            return Err(format!(
                "{own} of {count} listeners have a socket: a loop accepts from all of its listeners or from none"
            )
            .into());
        }
        // With those that have no connections, so that the numbers of the others are the acceptor's too. Outgoing connections
        // are nobody else's business, and their sites come last.
        let listeners = self.doors.iter().filter(|door| !door.outgoing);
        Ok(if own == 0 { listeners.map(Door::handed).collect() } else { Vec::new() })
    }

    /// The site that a listener accepts for.
    pub(crate) fn site_of(&self, listener: ListenerId) -> Option<usize> {
        self.ports.iter().find(|port| port.listener == listener).map(|port| port.site)
    }

    pub(crate) fn metrics_of(&self, site: usize) -> &ListenerMetrics {
        &self.doors[site].metrics
    }

    /// When listeners without descriptors are to be tried again.
    pub(crate) fn retry_at(&self) -> Option<Instant> {
        self.exhausted
    }

    pub(crate) fn is_retry_due(&self, now: Instant) -> bool {
        self.exhausted.is_some_and(|at| at <= now)
    }

    /// Whether a listener is paused until a connection ends.
    pub(crate) fn is_waiting(&self) -> bool {
        self.full || self.exhausted.is_some()
    }

    pub(crate) fn is_full(&self) -> bool {
        self.full
    }

    pub(crate) fn pause_all<R: Reactor>(&self, reactor: &mut R) {
        self.active().for_each(|port| reactor.pause_accept(port.listener));
    }

    /// Gives every socket up for good.
    pub(crate) fn unlisten_all<R: Reactor>(&mut self, reactor: &mut R) {
        for port in self.ports.iter_mut().filter(|port| port.open) {
            port.open = false;
            reactor.unlisten(port.listener);
        }
    }

    /// There is no room for another connection: peers wait in the kernel's queue.
    pub(crate) fn fill_up<R: Reactor>(&mut self, reactor: &mut R, moment: Moment) {
        if self.full {
            return;
        }
        self.full = true;
        self.pause_all(reactor);
        if let Some(suppressed) = self.fullness.pass(moment.now) {
            let limit = moment.connections;
            tracing::warn!(
                limit,
                suppressed,
                "engine.max_connections reached; peers wait until a connection ends"
            );
        }
    }

    /// No worker takes another connection at the moment: peers wait in the kernel's queue.
    pub(crate) fn back_up<R: Reactor>(&mut self, reactor: &mut R, moment: Moment) {
        if self.full {
            return;
        }
        self.full = true;
        self.pause_all(reactor);
        if let Some(suppressed) = self.fullness.pass(moment.now) {
            let connections = moment.connections;
            tracing::warn!(
                connections,
                suppressed,
                "the channels of all workers are full; peers wait until a worker has taken some"
            );
        }
    }

    /// There is hardly memory for the connections that are there.
    pub(crate) fn hold<R: Reactor>(&mut self, reactor: &mut R, moment: Moment, held_bytes: usize) {
        self.full = true;
        self.pause_all(reactor);
        self.metrics.add(ProcessWord::AcceptsHeld, 1);
        if let Some(suppressed) = self.pressures.pass(moment.now) {
            let connections = moment.connections;
            tracing::warn!(
                held_bytes,
                connections,
                suppressed,
                "buffers are nearly full; peers wait until connections hold less"
            );
        }
    }

    /// There is room: accepts again from every socket that is left.
    pub(crate) fn resume<R: Reactor>(&mut self, reactor: &mut R, now: Instant) {
        self.full = false;
        self.exhausted = None;
        let mut refused = false;
        for port in self.active() {
            refused |= reactor.resume_accept(port.listener).is_err();
        }
        if refused {
            // It stays paused, as for want of any other memory, and is tried again.
            self.exhausted = Some(now + RETRY_AFTER);
        }
    }

    /// There is no room yet, whatever else was waited for.
    pub(crate) fn stay_paused(&mut self) {
        self.full = true;
        self.exhausted = None;
    }

    /// The reactor could not accept a connection that waits.
    pub(crate) fn failed<R: Reactor>(
        &mut self,
        reactor: &mut R,
        listener: ListenerId,
        error: AcceptError,
        moment: Moment,
    ) {
        let Some(site) = self.site_of(listener) else { return };
        let door = &self.doors[site];
        match error {
            AcceptError::Empty => {}
            AcceptError::Lost(_) => door.metrics.add(ListenerWord::AcceptLost, 1),
            AcceptError::Exhausted(_) => self.shortage(reactor, site, moment),
            AcceptError::Broken(errno) => {
                tracing::error!(listener = &*door.name, %errno, "listener is broken and given up");
                self.ports
                    .iter_mut()
                    .filter(|port| port.listener == listener)
                    .for_each(|port| port.open = false);
                reactor.unlisten(listener);
            }
        }
    }

    /// No descriptor, or no memory for one. A service that has an answer for it gives it through the reserve descriptor;
    /// the peers of the others wait.
    pub(crate) fn shortage<R: Reactor>(&mut self, reactor: &mut R, site: usize, moment: Moment) {
        self.metrics.add(ProcessWord::AcceptExhausted, 1);
        let mut exhausted = false;
        let door = &self.doors[site];
        if let Some(suppressed) = self.shortages.pass(moment.now) {
            let (listener, connections) = (&*door.name, moment.connections);
            tracing::warn!(
                listener,
                connections,
                suppressed,
                "out of descriptors or memory for a new connection; raise the limit of open files"
            );
        }
        for port in self.active().filter(|port| port.site == site) {
            if let Some(answer) = door.overload_answer
                && refuse(reactor, port.listener, door, answer)
            {
                continue;
            }
            reactor.pause_accept(port.listener);
            exhausted = true;
        }
        if exhausted {
            self.exhausted = Some(moment.now + RETRY_AFTER);
        }
    }

    /// The next connection that waits at a paused socket, before it is given up. `None`: there is no other, or no
    /// descriptor for it.
    pub(crate) fn accept_last<R: Reactor>(&self, reactor: &mut R, port: Port) -> Option<Arrival> {
        self.next_of(port, || reactor.accept_now(port.listener))
    }

    /// The next connection that the reactor has accepted already at a paused socket.
    pub(crate) fn take_accepted<R: Reactor>(&self, reactor: &mut R, port: Port) -> Option<Arrival> {
        self.next_of(port, || reactor.take_accepted(port.listener))
    }

    fn next_of(
        &self,
        Port { site, .. }: Port,
        mut next: impl FnMut() -> Result<(OwnedFd, PeerAddress), AcceptError>,
    ) -> Option<Arrival> {
        for _ in 0..LAST_ACCEPTS {
            match next() {
                Ok((socket, peer)) => return Some(Arrival { site, socket, peer }),
                Err(AcceptError::Lost(_)) => self.doors[site].metrics.add(ListenerWord::AcceptLost, 1),
                Err(_) => return None,
            }
        }
        None
    }
}

/// Tells peers that there is no descriptor for them. False when that wants one too, or has been enough for one turn.
fn refuse<R: Reactor>(reactor: &mut R, listener: ListenerId, door: &Door, answer: &[u8]) -> bool {
    for _ in 0..REFUSE_BATCH {
        match reactor.refuse_one(listener, answer) {
            Ok(()) => door.metrics.add(ListenerWord::Overloaded, 1),
            Err(AcceptError::Lost(_)) => door.metrics.add(ListenerWord::AcceptLost, 1),
            Err(AcceptError::Empty) => return true,
            Err(AcceptError::Exhausted(_) | AcceptError::Broken(_)) => return false,
        }
    }
    false
}
