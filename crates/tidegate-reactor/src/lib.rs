//! Operations in, completions out.
//!
//! The engine asks for operations on sockets by opaque [`Token`]s and receives [`Completion`]s. On epoll the reactor makes
//! the non-blocking call when the descriptor is ready and then reports what came of it: a simulated proactor. The
//! [`Reactor`] trait is the seam behind which other kernels' interfaces stand.
//!
//! The reactor never calls its user, and it alone reads a clock. Read [`Reactor`] and [`Completion`] first.
#![forbid(unsafe_code)]

mod accepting;
mod clock;
mod completion;
mod datagrams;
mod epoll;
mod last_words;
mod slots;
mod target;
mod trigger;
mod uring;
mod waker;
mod watch;

pub use accepting::turn_away;
pub use completion::{AcceptError, Completion, DatagramId, ListenerId, PeerAddress, Token};
pub use epoll::{Epoll, Got, Loan, Patience, Poller};
pub use target::{BadTarget, Target};
pub use trigger::Trigger;
pub use uring::Uring;
pub use waker::Waker;
pub use watch::{Watch, Watched};

use std::io::IoSlice;
use std::ops::Range;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

pub use rustix::io::Errno;
pub use tidegate_sys::datagram::{Address, Arrival, Datagram, Inbound, Outbound};
pub use tidegate_sys::uring::Unavailable as UringUnavailable;
pub use tidegate_timer::Instant;

/// How the server's side of a connection ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// In order: what was queued is delivered, then FIN.
    Fin,
    /// At once: queued bytes are thrown away and the peer sees a reset. The server keeps no TIME_WAIT.
    Reset,
}

/// Whether more bytes follow at once, so that the kernel may wait for them before it sends a segment (`MSG_MORE`, send(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// This is all for now.
    No,
    /// More follows in the same turn.
    Follows,
}

/// An event interface of the kernel, as completions.
///
/// One turn: [`wait`](Self::wait) once, then [`next`](Self::next) until it answers `None`. Bytes of a
/// [`Completion::Received`] are read with [`received`](Self::received) before the following `next`.
pub trait Reactor {
    /// Whether [`send_received`](Self::send_received) saves a copy.
    #[inline]
    fn forwards(&self) -> bool {
        false
    }

    /// Starts accepting from a listening socket. With `shared`, other processes poll the same socket, and one of
    /// them is woken for a connection (`EPOLLEXCLUSIVE`, epoll_ctl(2)).
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot watch the socket.
    fn listen(&mut self, socket: OwnedFd, shared: bool) -> Result<ListenerId, Errno>;

    /// Stops accepting without closing the socket; what waits in its queue stays there.
    fn pause_accept(&mut self, listener: ListenerId);

    /// Accepts again after [`pause_accept`](Self::pause_accept).
    ///
    /// # Errors
    ///
    /// The kernel's, when it has no memory to watch the socket: the listener stays paused.
    fn resume_accept(&mut self, listener: ListenerId) -> Result<(), Errno>;

    /// Stops watching a listener for good, and closes this process's descriptor of it. What was accepted before is still
    /// reported under its id, which is another listener's only when nothing more can come.
    fn unlisten(&mut self, listener: ListenerId);

    /// Accepts one connection, or says why not; used to empty a queue before a listener is given up.
    ///
    /// # Errors
    ///
    /// The kernel's answer to accept4(2).
    fn accept_now(&mut self, listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError>;

    /// A connection that was accepted and not reported yet, without asking the kernel for another one; of a reactor that
    /// accepts before it is asked to.
    ///
    /// # Errors
    ///
    /// [`AcceptError::Empty`] when there is none, or that it was lost since.
    fn take_accepted(&mut self, _listener: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        Err(AcceptError::Empty)
    }

    /// With descriptors exhausted: accepts one connection by the reserve descriptor, sends it `answer` and closes it.
    ///
    /// # Errors
    ///
    /// The kernel's answer to accept4(2); `MFILE` also when the reserve is not there.
    fn refuse_one(&mut self, listener: ListenerId, answer: &[u8]) -> Result<(), AcceptError>;

    /// Takes a connected socket over under `token` and starts receiving from it. The token's slot must be free.
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot watch the socket; the socket is closed.
    fn open(&mut self, token: Token, socket: OwnedFd) -> Result<(), Errno>;

    /// Has a socket connect, which is not connected and does not block, and takes it over under `token`, whose slot must be
    /// free. What comes first is [`Completion::Connected`], from when on it is as if it had been [opened](Self::open), or
    /// [`Completion::Failed`]. Until then only [`close`](Self::close) may name the token; there is no time limit.
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot connect or cannot watch the socket; the socket is closed. `EAGAIN`: the queue of a Unix
    /// socket is full, and nothing says when it is not (unix(7)).
    fn connect(&mut self, token: Token, socket: OwnedFd, target: &Target) -> Result<(), Errno>;

    /// Closes a connection. No completion names the token afterwards.
    fn close(&mut self, token: Token, end: End);

    /// Ends the sending direction; the peer reads FIN after what was sent.
    fn shutdown_send(&mut self, token: Token);

    /// Stops receiving: the kernel's buffer fills, and the peer's window closes.
    fn pause(&mut self, token: Token);

    /// Receives again; what arrived meanwhile is reported in this or the next turn.
    fn resume(&mut self, token: Token);

    /// Sends, and answers how many bytes were taken. Fewer than all: the rest after [`Completion::Writable`], which is
    /// asked for with [`await_writable`](Self::await_writable).
    ///
    /// # Errors
    ///
    /// The kernel's; the connection is broken.
    fn send(&mut self, token: Token, bytes: &[u8], more: More) -> Result<usize, Errno>;

    /// As [`send`](Self::send), for a part of what was [`received`](Self::received) last, which need not be copied. It may have
    /// been received from another connection.
    ///
    /// # Errors
    ///
    /// The kernel's; the connection is broken.
    ///
    /// # Panics
    ///
    /// When the range is not in what was received.
    fn send_received(&mut self, token: Token, range: Range<usize>, more: More) -> Result<usize, Errno> {
        let bytes = self.received()[range].to_vec();
        self.send(token, &bytes, more)
    }

    /// As [`send`](Self::send), from several buffers.
    ///
    /// # Errors
    ///
    /// The kernel's; the connection is broken.
    fn send_vectored(&mut self, token: Token, parts: &[IoSlice<'_>]) -> Result<usize, Errno>;

    /// Sends bytes of a file, and answers how many were taken; `None` when the file ends before `offset + 1`. Fewer than
    /// all are taken when the kernel's buffer is full and also when the file ends early: only 0 says that it is full.
    ///
    /// # Errors
    ///
    /// The kernel's; the connection is broken or the file cannot be read.
    fn send_file(
        &mut self,
        token: Token,
        file: BorrowedFd<'_>,
        offset: u64,
        len: u64,
    ) -> Result<Option<usize>, Errno>;

    /// Reads bytes of a file from `offset` that are to be worked on before they are sent (pread(2)). Answers how many were
    /// read: 0 at the end of the file.
    ///
    /// # Errors
    ///
    /// The kernel's; the file cannot be read.
    fn read_file(&mut self, file: BorrowedFd<'_>, offset: u64, into: &mut [u8]) -> Result<usize, Errno> {
        rustix::io::retry_on_intr(|| rustix::io::pread(file, &mut *into, offset))
    }

    /// Whether bytes that were taken by a send have not left yet, so that ending the connection might cost some of them.
    /// [`Completion::Writable`], when it is awaited, comes after the last of them.
    fn unsent(&self, token: Token) -> bool;

    /// How many bytes are [`unsent`](Self::unsent).
    fn unsent_bytes(&self, _token: Token) -> usize {
        0
    }

    /// Asks for one [`Completion::Writable`] when the kernel takes bytes again. To be asked after a send that took
    /// less than all, or while something is [`unsent`](Self::unsent), and only then: else it may never be reported.
    fn await_writable(&mut self, token: Token);

    /// Takes a bound socket for datagrams over and starts watching it. Other processes may watch the same socket: a datagram
    /// wakes one of them.
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot watch the socket; `EPROTOTYPE` for one of another type, and `EOPNOTSUPP` by a reactor
    /// that has no datagrams.
    fn open_datagrams(&mut self, _socket: OwnedFd) -> Result<DatagramId, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Closes this process's descriptor of the socket. What is told of it afterwards is another's, who finds nothing.
    fn close_datagrams(&mut self, _id: DatagramId) {}

    /// Stops watching for datagrams, which wait in the kernel's buffer as far as there is room.
    fn pause_datagrams(&mut self, _id: DatagramId) {}

    /// Watches for them again.
    ///
    /// # Errors
    ///
    /// The kernel's, when it has no memory to watch the socket: it stays paused.
    fn resume_datagrams(&mut self, _id: DatagramId) -> Result<(), Errno> {
        Ok(())
    }

    /// Receives what waits, as much as one call brings, in place of what the batch held. How many datagrams it is.
    ///
    /// # Errors
    ///
    /// The kernel's: `EAGAIN` when nothing waits; anything else may be what an earlier send has come to, and says nothing
    /// about what can be received next.
    fn receive_datagrams(&mut self, _id: DatagramId, _into: &mut Inbound) -> Result<usize, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Sends from the front of the queue, as many datagrams as one call takes. How many have left.
    ///
    /// # Errors
    ///
    /// The kernel's for the first of the queue, which stays there: `EAGAIN` when its buffer is full.
    fn send_datagrams(&mut self, _id: DatagramId, _from: &mut Outbound) -> Result<usize, Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Asks for one [`Completion::DatagramRoom`], to be asked after a send that found the buffer full.
    ///
    /// # Errors
    ///
    /// The kernel's, when it has no memory to watch for it: it will not be told.
    fn await_datagram_room(&mut self, _id: DatagramId) -> Result<(), Errno> {
        Err(Errno::OPNOTSUPP)
    }

    /// Waits until something completes or `deadline` has passed. A signal ends the wait early.
    ///
    /// # Errors
    ///
    /// The kernel's, other than `EINTR`: the reactor cannot go on.
    fn wait(&mut self, deadline: Option<Instant>) -> Result<(), Errno>;

    /// The next completion of this turn.
    fn next(&mut self) -> Option<Completion>;

    /// The bytes of the last [`Completion::Received`].
    fn received(&self) -> &[u8];

    /// The monotonic clock as of the last [`wait`](Self::wait).
    fn now(&self) -> Instant;

    /// The monotonic clock at this moment. It is read for that, which takes some 20 ns: not for each message.
    fn clock(&self) -> Instant;

    /// The wall clock in whole seconds since 1970 as of the last [`wait`](Self::wait).
    fn unix_time(&self) -> u64;

    /// How long the last turn took: from the end of the last wait but one to the beginning of the last.
    fn busy(&self) -> Duration;

    /// Gives a connection to another thread, when this reactor lends its connections: see [`Epoll::lending`]. Until it is
    /// given back its token finds nothing here.
    fn lend(&mut self, _token: Token) -> Option<Loan> {
        None
    }

    /// Takes a connection back.
    fn give_back(&mut self, loan: Loan) {
        drop(loan);
    }

    /// Receives from a connection that was reported [`Completion::Ready`] and is not lent.
    fn receive_now(&mut self, _token: Token) -> Option<Completion> {
        None
    }

    /// What another thread wakes this reactor with.
    fn waker(&self) -> Waker;
}
