//! `Intake`: where a loop takes over connections that an acceptor has accepted for it.
//!
//! The acceptor counts a connection in before it hands it over, and the loop counts it out when it has ended: so the
//! count is never lower than what the loop has and what it is about to get, and one that was counted in below the limit
//! finds a place. Handing over wakes the loop once for all that wait; the loop wakes the acceptor only when it was asked to.

use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use tidegate_reactor::{PeerAddress, Waker};

/// A connection that was just accepted, before it has a slot.
#[derive(Debug)]
pub(crate) struct Arrival {
    pub(crate) site: usize,
    pub(crate) socket: OwnedFd,
    pub(crate) peer: PeerAddress,
}

/// What an acceptor has to know of a site that it accepts for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Handed {
    pub(crate) name: Arc<str>,
    pub(crate) overload_answer: Option<&'static [u8]>,
}

/// A loop's side of being handed connections; for a loop that accepts for itself, only the count of them.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Connections of the loop, and those on the way to it. At most `limit` where an acceptor counts them in.
    connections: AtomicUsize,
    limit: usize,
    /// The sites that are handed connections: all of the loop's, or none.
    sites: Vec<Handed>,
    mailbox: Mutex<Mailbox>,
    /// As in the mailbox, for who only chooses a loop.
    closed: AtomicBool,
    /// The loop has hardly memory for the connections that it has.
    held: AtomicBool,
    waker: Waker,
    /// Who hands over; set once.
    acceptor: OnceLock<Arc<Room>>,
}

#[derive(Debug, Default)]
struct Mailbox {
    arrivals: Vec<Arrival>,
    /// The loop retires or has ended: it takes no other.
    closed: bool,
}

impl Intake {
    pub(crate) fn new(waker: Waker, limit: usize, sites: Vec<Handed>) -> Self {
        Self {
            connections: AtomicUsize::new(0),
            limit,
            sites,
            mailbox: Mutex::default(),
            closed: AtomicBool::new(false),
            held: AtomicBool::new(false),
            waker,
            acceptor: OnceLock::new(),
        }
    }

    pub(crate) fn sites(&self) -> &[Handed] {
        &self.sites
    }

    pub(crate) fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }

    pub(crate) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether another connection may be counted in.
    pub(crate) fn has_room(&self) -> bool {
        !self.is_closed() && !self.held.load(Ordering::SeqCst) && self.connections() < self.limit
    }

    /// Counts one in that the loop asks for itself. False when there is no room; a retiring loop has some.
    pub(crate) fn try_enter(&self) -> bool {
        let one_more = |connections| (connections < self.limit).then_some(connections + 1);
        self.connections.fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).is_ok()
    }

    /// Counts a connection in.
    pub(crate) fn enter(&self) {
        self.connections.fetch_add(1, Ordering::SeqCst);
    }

    /// Counts a connection out, and tells an acceptor that waits for it.
    pub(crate) fn leave(&self) {
        self.connections.fetch_sub(1, Ordering::SeqCst);
        if let Some(room) = self.acceptor.get() {
            room.there_is();
        }
    }

    /// Takes no other connection for the time being; or takes them again, and tells an acceptor that waits for it.
    pub(crate) fn hold(&self, held: bool) {
        self.held.store(held, Ordering::SeqCst);
        if !held && let Some(room) = self.acceptor.get() {
            room.there_is();
        }
    }

    /// Names the one acceptor of this loop; `false` when there is one already.
    pub(crate) fn attach(&self, acceptor: Arc<Room>) -> bool {
        self.acceptor.set(acceptor).is_ok()
    }

    /// Hands over connections that were counted in. `false`: the loop takes no other, and they are all still in `batch`.
    pub(crate) fn hand_over(&self, batch: &mut Vec<Arrival>) -> bool {
        let mut mailbox = self.lock();
        if mailbox.closed {
            return false;
        }
        let wake = mailbox.arrivals.is_empty();
        mailbox.arrivals.append(batch);
        drop(mailbox);
        if wake {
            self.waker.wake();
        }
        true
    }

    /// Takes what was handed over, and gives the emptied vector for what comes next.
    pub(crate) fn collect(&self, arrivals: &mut Vec<Arrival>) {
        // A loop that accepts for itself need not lock what is always empty.
        if !self.sites.is_empty() {
            std::mem::swap(&mut self.lock().arrivals, arrivals);
        }
    }

    /// From now on nothing can be handed over. Answers what had been and was not taken.
    pub(crate) fn close(&self) -> Vec<Arrival> {
        let mut mailbox = self.lock();
        let first = !std::mem::replace(&mut mailbox.closed, true);
        let left = std::mem::take(&mut mailbox.arrivals);
        self.closed.store(true, Ordering::Release);
        drop(mailbox);
        if first && let Some(room) = self.acceptor.get() {
            // It may have been the last loop.
            room.waker.wake();
        }
        left
    }

    fn lock(&self) -> MutexGuard<'_, Mailbox> {
        // A panic while the lock is held leaves a whole mailbox: every change of it is one operation.
        self.mailbox.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How an acceptor without room hears that there is some again.
#[derive(Debug)]
pub(crate) struct Room {
    asked: AtomicBool,
    waker: Waker,
}

impl Room {
    pub(crate) fn new(waker: Waker) -> Self {
        Self { asked: AtomicBool::new(false), waker }
    }

    /// The next connection that ends wakes the acceptor, which then looks once more: one may have ended just before. Both
    /// sides write first and read then, in one order for all threads, so that one of them sees the other.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    /// The acceptor has found room by itself.
    pub(crate) fn forget(&self) {
        self.asked.store(false, Ordering::SeqCst);
    }

    pub(crate) fn wake(&self) {
        self.waker.wake();
    }

    fn there_is(&self) {
        if self.asked.load(Ordering::SeqCst) && self.asked.swap(false, Ordering::SeqCst) {
            self.waker.wake();
        }
    }
}
