//! `Accepting`: the listeners of a reactor, and why and until when they are paused.
//!
//! Used by whoever accepts: a loop with listeners of its own, and the acceptor of several loops. It knows nothing of
//! connections but how many there are: whether there is room for another is its owner's to say. Never a spin: a paused
//! listener brings no event, and it is tried again when a connection has ended or after [`RETRY_AFTER`].

use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{AcceptError, ListenerId, Reactor};
use tidegate_timer::Instant;

use crate::BoxError;
use crate::intake::{Arrival, Handed};
use crate::metrics::{ListenerMetrics, ListenerWord, ProcessMetrics, ProcessWord};

/// When a listener without descriptors is tried again.
const RETRY_AFTER: Duration = Duration::from_millis(10);
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
    metrics: ProcessMetrics,
    /// Listeners wait for a descriptor, and when they are tried again.
    exhausted: Option<Instant>,
    /// There is no room for another connection.
    full: bool,
    shortages: Reports,
    fullness: Reports,
    pressures: Reports,
}

/// Where the connections of a site come from.
#[derive(Debug)]
pub(crate) struct Door {
    /// `None`: an acceptor hands them over.
    pub(crate) listener: Option<ListenerId>,
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
        let without_listener = self.doors.iter().filter(|door| door.listener.is_none());
        let handed: Vec<Handed> = without_listener.map(Door::handed).collect();
        let (count, own) = (self.doors.len(), self.doors.len() - handed.len());
        if own > 0 && own < count {
            return Err(format!(
                "{own} of {count} listeners have a socket: a loop accepts from all of its listeners or from none"
            )
            .into());
        }
        Ok(handed)
    }

    /// The site that a listener accepts for.
    pub(crate) fn site_of(&self, listener: ListenerId) -> Option<usize> {
        self.doors.iter().position(|door| door.listener == Some(listener))
    }

    pub(crate) fn sites(&self) -> usize {
        self.doors.len()
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
        self.listeners().for_each(|listener| reactor.pause_accept(listener));
    }

    /// Closes every listener for good.
    pub(crate) fn unlisten_all<R: Reactor>(&self, reactor: &mut R) {
        self.listeners().for_each(|listener| reactor.unlisten(listener));
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

    /// There is room: accepts again from every listener that is left.
    pub(crate) fn resume<R: Reactor>(&mut self, reactor: &mut R, now: Instant) {
        self.full = false;
        self.exhausted = None;
        let mut refused = false;
        for listener in self.listeners() {
            refused |= reactor.resume_accept(listener).is_err();
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
                reactor.unlisten(listener);
            }
        }
    }

    /// No descriptor, or no memory for one. A service that has an answer for it gives it through the reserve descriptor;
    /// the peers of the others wait.
    pub(crate) fn shortage<R: Reactor>(&mut self, reactor: &mut R, site: usize, moment: Moment) {
        self.metrics.add(ProcessWord::AcceptExhausted, 1);
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
        let Some(listener) = door.listener else { return };
        if let Some(answer) = door.overload_answer {
            for _ in 0..REFUSE_BATCH {
                match reactor.refuse_one(listener, answer) {
                    Ok(()) => door.metrics.add(ListenerWord::Overloaded, 1),
                    Err(AcceptError::Lost(_)) => door.metrics.add(ListenerWord::AcceptLost, 1),
                    Err(AcceptError::Empty) => return,
                    Err(AcceptError::Exhausted(_) | AcceptError::Broken(_)) => break,
                }
            }
        }
        reactor.pause_accept(listener);
        self.exhausted = Some(moment.now + RETRY_AFTER);
    }

    /// The next connection that waits at a paused listener, before it is given up. `None`: there is no other, or no
    /// descriptor for it.
    pub(crate) fn accept_last<R: Reactor>(&self, reactor: &mut R, site: usize) -> Option<Arrival> {
        let door = &self.doors[site];
        let listener = door.listener?;
        for _ in 0..LAST_ACCEPTS {
            match reactor.accept_now(listener) {
                Ok((socket, peer)) => return Some(Arrival { site, socket, peer }),
                Err(AcceptError::Lost(_)) => door.metrics.add(ListenerWord::AcceptLost, 1),
                Err(_) => return None,
            }
        }
        None
    }

    fn listeners(&self) -> impl Iterator<Item = ListenerId> {
        self.doors.iter().filter_map(|door| door.listener)
    }
}
