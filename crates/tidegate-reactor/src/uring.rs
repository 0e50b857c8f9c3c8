//! `Uring`: completions by io_uring(7), a real proactor.
//!
//! Listeners have a multishot accept, connections a multishot receive into a ring of provided buffers. What is sent is
//! gathered per connection and submitted in [`wait`](Reactor::wait), with everything else that was asked for in the turn:
//! one system call submits, does the kernel's share of the work and waits.
//!
//! ```text
//!   next() ─▶ the owner: send, pause, close, open ... ─▶ wait(): sync what was touched ─▶ io_uring_enter ─▶ next()
//! ```
//!
//! A send *takes* bytes, up to [`CONN_BYTES`] of a connection and [`ALL_BYTES`] of all, and is answered before the kernel
//! has them. They are offered without waiting first, which is over when it was submitted and says nothing when it went
//! well; only what is left over then waits for room, by a send of its own, see [`conn`]. Beyond the limit of all, a send
//! is a plain send(2), so that peers that do not read cannot keep the others from being answered.
//!
//! Invariant: each operation carries slot and generation, so what comes for a connection that was closed finds nobody; and
//! its memory is the ring's, so it need not be waited for.

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use rustix::io::Errno;
use rustix::net::Shutdown;
use tidegate_sys::uring::{Event, Operation, Readiness, Ring, Tell, Unavailable};
use tidegate_timer::Instant;

use self::conn::{Conn, Next, Receiving};
use self::listeners::Listeners;
use crate::clock::{self, Clocks};
use crate::datagrams::DatagramSockets;
use crate::slots::Slots;
use crate::target::begin_connect;
use crate::{
    AcceptError, Completion, DatagramId, End, Inbound, ListenerId, More, Outbound, PeerAddress, Reactor,
    Target, Token, Waker,
};

mod conn;
mod datagrams;
mod events;
mod listeners;
mod sending;
mod word;

/// The reactor over io_uring(7). Made on any thread, it belongs to the first one that waits.
pub struct Uring {
    /// Before `conns`, so that nothing is in flight when their descriptors are closed.
    ring: Ring,
    waker: Waker,
    /// The waker is polled; and it has been reported in this turn.
    polls_waker: bool,
    woken: bool,
    listeners: Listeners,
    datagrams: DatagramSockets<datagrams::Watch>,
    /// What some socket for datagrams is watched for is to be looked at before the next wait.
    datagrams_unsynced: bool,
    conns: Slots<Conn>,
    /// The connections to look at before the next wait (`Conn::unsynced`). Some may have been closed since.
    unsynced: Vec<Token>,
    /// Connections with something held back that is wanted: those of this turn, and those for the next.
    again_now: Vec<Token>,
    again: Vec<Token>,
    /// What attempts to send have come to, to be reported when the turn's events have been.
    ready: Vec<Completion>,
    /// What was held back and is now being reported; otherwise the ring has what was received.
    piece: Option<Vec<u8>>,
    /// Bytes taken from all owners that have not left.
    taken: usize,
    clocks: Clocks,
}

impl std::fmt::Debug for Uring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Uring")
            .field("ring", &self.ring)
            .field("listeners", &self.listeners)
            .field("clocks", &self.clocks)
            .finish_non_exhaustive()
    }
}

/// Bytes taken of one connection that have not left, at most.
const CONN_BYTES: usize = 128 << 10;
/// Bytes taken of all connections that have not left, at most.
const ALL_BYTES: usize = 64 << 20;

impl Uring {
    /// What a connection costs here, in bytes, while nothing waits to be sent.
    pub const BYTES_PER_CONNECTION: usize = Slots::<Conn>::SLOT_BYTES;

    /// Makes a reactor without sources, when the kernel has shown that it can do all that this needs.
    ///
    /// # Errors
    ///
    /// What the kernel lacks or forbids, and what it answered.
    pub fn new() -> Result<Self, Unavailable> {
        let ring = Ring::new()?;
        let waker = Waker::new().map_err(|errno| Unavailable { step: "eventfd", errno })?;
        Ok(Self {
            ring,
            waker,
            polls_waker: false,
            woken: false,
            listeners: Listeners::new(),
            datagrams: DatagramSockets::default(),
            datagrams_unsynced: false,
            conns: Slots::default(),
            unsynced: Vec::new(),
            again_now: Vec::new(),
            again: Vec::new(),
            ready: Vec::new(),
            piece: None,
            taken: 0,
            clocks: Clocks::read(),
        })
    }

    /// Looks at a connection before the next wait.
    #[inline]
    fn review(unsynced: &mut Vec<Token>, token: Token, conn: &mut Conn) {
        if !conn.unsynced {
            conn.unsynced = true;
            unsynced.push(token);
        }
    }

    /// Queues what each source that was touched wants now.
    #[inline]
    fn sync_all(&mut self) {
        self.sync_conns();
        self.listeners.sync(&mut self.ring);
        if std::mem::take(&mut self.datagrams_unsynced) {
            self.sync_datagrams();
        }
        if !self.polls_waker {
            self.polls_waker = true;
            self.ring.poll(word::WAKER, self.waker.fd(), Readiness::Input);
        }
    }

    #[inline]
    fn sync_conns(&mut self) {
        while let Some(token) = self.unsynced.pop() {
            if let Some(conn) = self.conns.find(token) {
                conn.unsynced = false;
                if conn.connecting {
                    sync_connecting(&mut self.ring, token, conn);
                    continue;
                }
                sync_input(&mut self.ring, token, conn);
                sending::sync_output(&mut self.ring, token, conn);
            }
        }
    }

    /// What was held back of a connection, a piece in each turn.
    fn next_again(&mut self) -> Option<Completion> {
        while let Some(token) = self.again_now.pop() {
            let Some(conn) = self.conns.find(token) else { continue };
            conn.listed = false;
            if conn.paused {
                continue;
            }
            let next = conn.next_held();
            if conn.held.is_some() {
                conn.listed = true;
                self.again.push(token);
            }
            Self::review(&mut self.unsynced, token, conn);
            match next {
                Some(Next::Piece(piece)) => {
                    self.piece = Some(piece);
                    return Some(Completion::Received(token));
                }
                Some(Next::End(ending)) => return Some(events::end(token, conn, ending)),
                None => {}
            }
        }
        None
    }

    /// What attempts have come to, unless the connection was closed since.
    fn next_ready(&mut self) -> Option<Completion> {
        while let Some(completion) = self.ready.pop() {
            let (Completion::Writable(token) | Completion::Stalled(token) | Completion::Failed(token, _)) =
                completion
            else {
                return Some(completion);
            };
            if self.conns.look(token).is_some() {
                return Some(completion);
            }
        }
        None
    }
}

/// Waits until a connection is there or is not to be had: either way there is room to write.
fn sync_connecting(ring: &mut Ring, token: Token, conn: &mut Conn) {
    if !conn.polls_room && !conn.failed {
        conn.polls_room = true;
        ring.poll(word::of_token(token), &conn.fd, Readiness::Output);
    }
}

/// Receives or stops receiving, and listens for a reset.
#[inline]
fn sync_input(ring: &mut Ring, token: Token, conn: &mut Conn) {
    let word = word::of_token(token);
    match conn.receiving {
        Receiving::Idle if conn.wants_input() => {
            conn.receiving = Receiving::Armed;
            ring.receive(word, &conn.fd);
        }
        Receiving::Armed if conn.paused => {
            conn.receiving = Receiving::Cancelling;
            ring.cancel(Operation::Receive, word);
        }
        Receiving::Idle | Receiving::Armed | Receiving::Cancelling => {}
    }
    if conn.wants_hangups() {
        conn.listens = true;
        ring.poll(word, &conn.fd, Readiness::Hangup);
    }
}

impl Reactor for Uring {
    fn listen(&mut self, socket: OwnedFd, _shared: bool) -> Result<ListenerId, Errno> {
        self.listeners.add(socket)
    }

    fn pause_accept(&mut self, listener: ListenerId) {
        self.listeners.pause(&mut self.ring, listener);
    }

    fn resume_accept(&mut self, listener: ListenerId) -> Result<(), Errno> {
        self.listeners.resume(listener);
        Ok(())
    }

    fn unlisten(&mut self, listener: ListenerId) {
        self.listeners.remove(&mut self.ring, listener);
    }

    fn accept_now(&mut self, listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        self.listeners.accept_now(&mut self.ring, listener)
    }

    fn take_accepted(&mut self, listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        self.listeners.take_accepted(&mut self.ring, listener)
    }

    fn refuse_one(&mut self, listener: ListenerId, answer: &[u8]) -> Result<(), AcceptError> {
        let mut scratch = self.ring.spare();
        scratch.resize(sending::FILE_BYTES, 0);
        let outcome = self.listeners.refuse_one(listener, answer, &mut scratch);
        self.ring.keep(scratch);
        outcome
    }

    fn open(&mut self, token: Token, socket: OwnedFd) -> Result<(), Errno> {
        if token.slot >= word::SLOT_LIMIT {
            return Err(Errno::NOSPC);
        }
        // A send that waits for room waits only on a blocking descriptor, and an acceptor may have made it otherwise.
        rustix::io::ioctl_fionbio(&socket, false)?;
        let mut conn = Conn::new(socket, token.generation);
        Self::review(&mut self.unsynced, token, &mut conn);
        self.conns.insert(token.slot, conn);
        Ok(())
    }

    fn connect(&mut self, token: Token, socket: OwnedFd, target: &Target) -> Result<(), Errno> {
        if token.slot >= word::SLOT_LIMIT {
            return Err(Errno::NOSPC);
        }
        begin_connect(&socket, target)?;
        let mut conn = Conn::new(socket, token.generation);
        conn.connecting = true;
        Self::review(&mut self.unsynced, token, &mut conn);
        self.conns.insert(token.slot, conn);
        Ok(())
    }

    fn close(&mut self, token: Token, end: End) {
        let Some(conn) = self.conns.remove(token) else { return };
        let at_rest = conn.is_at_rest() && conn.gathered.is_empty();
        let unsent = conn.gathered.len();
        if end == End::Reset {
            // It fails only for what is no TCP socket, and there a close is all there is.
            let _ = tidegate_sys::socket::reset_on_close(&conn.fd);
        }
        if unsent > 0 && end == End::Fin && conn.in_flight == 0 && !conn.failed {
            // The last chance for these bytes; what they came to will find nobody.
            self.ring.attempt(word::of_token(token), &conn.fd, conn.gathered, Tell::Shortfall);
        } else {
            self.taken -= unsent;
            self.ring.keep(conn.gathered);
        }
        if at_rest {
            drop(conn.fd);
        } else {
            self.ring.end(conn.fd);
        }
    }

    fn shutdown_send(&mut self, token: Token) {
        let Some(conn) = self.conns.find(token) else { return };
        if conn.unsent() > 0 {
            conn.shuts = true;
            Self::review(&mut self.unsynced, token, conn);
        } else {
            // ENOTCONN means that the peer has gone, which the receive reports.
            let _ = rustix::net::shutdown(&conn.fd, Shutdown::Write);
        }
    }

    fn pause(&mut self, token: Token) {
        if let Some(conn) = self.conns.find(token) {
            conn.paused = true;
            Self::review(&mut self.unsynced, token, conn);
        }
    }

    fn resume(&mut self, token: Token) {
        let Some(conn) = self.conns.find(token) else { return };
        conn.paused = false;
        conn.hung_up = false;
        if conn.held.is_some() && !conn.listed {
            conn.listed = true;
            self.again.push(token);
        }
        Self::review(&mut self.unsynced, token, conn);
    }

    #[inline]
    fn send(&mut self, token: Token, bytes: &[u8], _more: More) -> Result<usize, Errno> {
        // What more follows is gathered anyway.
        self.gather(token, bytes)
    }

    #[inline]
    fn send_received(&mut self, token: Token, range: Range<usize>, _more: More) -> Result<usize, Errno> {
        self.gather_received(token, range)
    }

    fn send_vectored(&mut self, token: Token, parts: &[IoSlice<'_>]) -> Result<usize, Errno> {
        let mut taken = 0;
        for part in parts {
            match self.gather(token, part) {
                Ok(n) => {
                    taken += n;
                    if n < part.len() {
                        break;
                    }
                }
                Err(_) if taken > 0 => break,
                Err(errno) => return Err(errno),
            }
        }
        Ok(taken)
    }

    fn send_file(
        &mut self,
        token: Token,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Errno> {
        self.gather_file(token, file, offset, len)
    }

    fn unsent(&self, token: Token) -> bool {
        self.conns.look(token).is_some_and(|conn| conn.unsent() > 0)
    }

    fn unsent_bytes(&self, token: Token) -> usize {
        self.conns.look(token).map_or(0, Conn::unsent)
    }

    fn await_writable(&mut self, token: Token) {
        let Some(conn) = self.conns.find(token) else { return };
        conn.awaits_writable = true;
        Self::review(&mut self.unsynced, token, conn);
    }

    fn open_datagrams(&mut self, socket: OwnedFd) -> Result<DatagramId, Errno> {
        self.add_datagrams(socket)
    }

    fn close_datagrams(&mut self, id: DatagramId) {
        self.remove_datagrams(id);
    }

    fn pause_datagrams(&mut self, id: DatagramId) {
        self.watch_datagrams(id, |watch| watch.paused = true);
    }

    fn resume_datagrams(&mut self, id: DatagramId) -> Result<(), Errno> {
        self.watch_datagrams(id, |watch| watch.paused = false);
        Ok(())
    }

    #[inline]
    fn receive_datagrams(&mut self, id: DatagramId, into: &mut Inbound) -> Result<usize, Errno> {
        self.datagrams.receive(id, into)
    }

    #[inline]
    fn send_datagrams(&mut self, id: DatagramId, from: &mut Outbound) -> Result<usize, Errno> {
        self.datagrams.send(id, from)
    }

    fn await_datagram_room(&mut self, id: DatagramId) -> Result<(), Errno> {
        self.watch_datagrams(id, |watch| watch.awaits_room = true);
        Ok(())
    }

    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Errno> {
        self.sync_all();
        std::mem::swap(&mut self.again_now, &mut self.again);
        let at_once = !self.again_now.is_empty() || !self.ready.is_empty() || self.listeners.has_waiting();
        let timeout = self.clocks.begin_wait(deadline, at_once);
        self.piece = None;
        self.woken = false;
        let waited = self.ring.enter(timeout);
        self.clocks.end_wait();
        self.taken -= self.ring.take_sent();
        while let Some(event) = self.ring.next_attempt() {
            if let Event::Send { word, bytes, from, result } = event {
                let told = self.on_sent(word::token(word), bytes, from, result);
                self.ready.extend(told);
            }
        }
        waited
    }

    #[inline]
    fn next(&mut self) -> Option<Completion> {
        self.piece = None;
        while let Some(event) = self.ring.next_event() {
            let completion = self.on_event(event);
            if completion.is_some() {
                return completion;
            }
        }
        self.listeners.next().or_else(|| self.next_again()).or_else(|| self.next_ready())
    }

    #[inline]
    fn received(&self) -> &[u8] {
        self.piece.as_deref().unwrap_or_else(|| self.ring.received())
    }

    fn now(&self) -> Instant {
        self.clocks.now()
    }

    fn clock(&self) -> Instant {
        clock::monotonic()
    }

    fn unix_time(&self) -> u64 {
        self.clocks.unix_time()
    }

    fn busy(&self) -> Duration {
        self.clocks.busy()
    }

    fn waker(&self) -> Waker {
        self.waker.clone()
    }
}

impl Drop for Uring {
    fn drop(&mut self) {
        // What was taken is offered once; the ring submits it when it is dropped. Nothing is accepted that nobody would see.
        self.sync_conns();
    }
}
