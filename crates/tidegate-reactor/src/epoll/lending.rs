//! Lending: connections in the hands of other threads, and a wait that does not need the reactor.
//!
//! A reactor that lends does not receive: it reports [`Completion::Ready`](crate::Completion::Ready), and its owner gives the connection to a thread
//! that receives, handles and sends by itself. Each event disarms its connection (`EPOLLONESHOT`), so no second thread
//! hears of it before it has been given back.
//!
//! Invariant: a lent connection is in nobody's table; what the kernel reports of it meanwhile is forgotten, and asked for
//! anew when it is given back.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::time::Timespec;
use tidegate_sys::event::Events;
use tidegate_timer::Instant;

use super::source::Source;
use super::{EVENTS, Epoll, receive_now, send_now};
use crate::{More, Token, Trigger};

/// A connection that is with a thread other than its reactor's.
///
/// Dropped instead of given back, it closes its socket.
#[derive(Debug)]
pub struct Loan {
    token: Token,
    source: Source,
}

/// What a [`Loan`] received.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Got {
    /// So many bytes.
    Bytes(usize),
    /// There is nothing for now.
    Nothing,
    /// The peer ended its side.
    Ended,
    /// The connection broke.
    Failed(Errno),
}

impl Loan {
    /// Which connection it is.
    #[must_use]
    pub fn token(&self) -> Token {
        self.token
    }

    /// Receives at most as much as `buf` holds. After an end there is nothing more.
    #[inline]
    pub fn receive(&mut self, buf: &mut [u8]) -> Got {
        if self.source.ended {
            return Got::Nothing;
        }
        loop {
            let got = match receive_now(&self.source.fd, buf) {
                Ok(0) => Got::Ended,
                Ok(n) => return Got::Bytes(n),
                Err(Errno::INTR) => continue,
                Err(Errno::AGAIN) => return Got::Nothing,
                Err(errno) => Got::Failed(errno),
            };
            self.source.ended = true;
            return got;
        }
    }

    /// Sends, and answers how many bytes the kernel took.
    ///
    /// # Errors
    ///
    /// The kernel's; the connection is broken.
    #[inline]
    pub fn send(&self, bytes: &[u8]) -> Result<usize, Errno> {
        send_now(&self.source.fd, bytes, More::No)
    }
}

/// Waits for the events of a reactor that lends. One thread at a time waits; each has a poller of its own.
#[derive(Debug)]
pub struct Poller {
    epoll: Arc<OwnedFd>,
    pub(super) events: Events,
}

/// How long a wait may take: see [`Epoll::end_turn`].
#[derive(Clone, Copy, Debug)]
pub struct Patience(Option<Timespec>);

impl Poller {
    /// Waits until there are events. A signal ends the wait early.
    ///
    /// # Errors
    ///
    /// The kernel's, other than `EINTR`: nobody can wait any more.
    pub fn wait(&mut self, patience: Patience) -> Result<(), Errno> {
        match self.events.wait(&self.epoll, patience.0.as_ref()) {
            Ok(()) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

impl Epoll {
    /// Makes a reactor that lends its connections, registered one-shot. Instead of
    /// [`wait`](crate::Reactor::wait) there are [`end_turn`](Self::end_turn), [`Poller::wait`] and
    /// [`begin_turn`](Self::begin_turn), so that its owner may let go of it while somebody waits.
    ///
    /// # Errors
    ///
    /// The kernel's, when there is no descriptor or memory for it.
    pub fn lending() -> Result<Self, Errno> {
        Ok(Self { lends: true, ..Self::new(Trigger::Oneshot)? })
    }

    /// What another thread waits with.
    #[must_use]
    pub fn poller(&self) -> Poller {
        Poller { epoll: Arc::clone(&self.epoll), events: Events::with_capacity(EVENTS) }
    }

    /// The events of the last turn are done with: tells the kernel what has changed, and answers how long to wait.
    pub fn end_turn(&mut self, deadline: Option<Instant>) -> Patience {
        self.sync();
        Patience(self.clocks.begin_wait(deadline, self.registrations.has_refused()))
    }

    /// Takes what a poller has waited for.
    pub fn begin_turn(&mut self, poller: &mut Poller) {
        std::mem::swap(&mut self.events, &mut poller.events);
        self.next_event = 0;
        self.accepted = 0;
        self.clocks.end_wait();
    }

    /// Tells the kernel at once what has changed, for whoever waits already. True when a turn is needed over it.
    pub fn sync(&mut self) -> bool {
        self.registrations.sync_all(self.epoll.as_fd(), &mut self.sources);
        self.registrations.has_refused()
    }

    /// Reads the clock between two turns.
    pub fn read_clock(&mut self) {
        self.clocks.end_wait();
    }

    pub(super) fn lend_source(&mut self, token: Token) -> Option<Loan> {
        let source = self.sources.remove(token)?;
        Some(Loan { token, source })
    }

    pub(super) fn take_back(&mut self, loan: Loan) {
        let Loan { token, mut source } = loan;
        // Its registration may have fired meanwhile, which nobody noticed.
        source.registered = None;
        source.unsynced = false;
        self.registrations.review(token, &mut source);
        self.sources.insert(token.slot, source);
    }
}
