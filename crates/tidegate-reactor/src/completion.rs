//! What the reactor reports, and the opaque handles it reports it by.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use rustix::io::Errno;

/// A connection, as its owner names it: a slot, and the generation that tells one user of the slot from the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token {
    /// The place in the owner's table.
    pub slot: u32,
    /// Never 0, which is for what is not a connection.
    pub generation: u32,
}

/// A listener of this reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ListenerId(pub u32);

/// A socket for datagrams of this reactor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DatagramId(pub u32);

/// The address of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PeerAddress {
    /// A TCP peer.
    Inet(SocketAddr),
    /// A peer on a Unix socket; such peers have no address.
    Unix,
}

impl std::fmt::Display for PeerAddress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Inet(address) => address.fmt(f),
            Self::Unix => f.write_str("unix"),
        }
    }
}

/// Why a connection was not accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// The queue is empty.
    #[error("no connection waits")]
    Empty,
    /// Descriptors or memory are exhausted (`EMFILE`, `ENFILE`, `ENOBUFS`, `ENOMEM`): the connection waits on.
    #[error("descriptors or memory exhausted: {0}")]
    Exhausted(Errno),
    /// The connection was lost while it waited (`ECONNABORTED` and the network's errors, accept(2)): try the next.
    #[error("connection lost before it was accepted: {0}")]
    Lost(Errno),
    /// The listener itself is broken.
    #[error("listener broken: {0}")]
    Broken(Errno),
}

impl From<Errno> for AcceptError {
    fn from(errno: Errno) -> Self {
        match errno {
            Errno::AGAIN => Self::Empty,
            Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM => Self::Exhausted(errno),
            Errno::BADF | Errno::INVAL | Errno::NOTSOCK | Errno::FAULT => Self::Broken(errno),
            _ => Self::Lost(errno),
        }
    }
}

/// The outcome of an operation.
#[derive(Debug)]
pub enum Completion {
    /// A connection was accepted; it is nobody's until it is opened under a token.
    Accepted {
        /// By which listener.
        listener: ListenerId,
        /// The connected socket, fit for [`Reactor::open`](crate::Reactor::open) of a reactor of the same kind.
        socket: OwnedFd,
        /// Who it is.
        peer: PeerAddress,
    },
    /// A connection waits and could not be accepted.
    AcceptFailed {
        /// At which listener.
        listener: ListenerId,
        /// Why.
        error: AcceptError,
    },
    /// The connection that was asked for is there: see [`Reactor::connect`](crate::Reactor::connect).
    Connected(Token),
    /// Bytes came: see [`Reactor::received`](crate::Reactor::received).
    Received(Token),
    /// There may be something to receive. Reported in place of `Received` by a reactor that lends its connections: see
    /// [`Epoll::lending`](crate::Epoll::lending).
    Ready(Token),
    /// The peer ended its side; nothing more will be received.
    Ended(Token),
    /// The connection broke.
    Failed(Token, Errno),
    /// All that was taken has left, and bytes are taken again.
    Writable(Token),
    /// The kernel has not taken all at once of what was taken from the owner; told again each time it has taken some more
    /// but not all. A peer that brings neither this nor [`Writable`](Self::Writable) does not read. Only a reactor of
    /// which [`unsent`](crate::Reactor::unsent) may be true reports it.
    Stalled(Token),
    /// There may be datagrams to [receive](crate::Reactor::receive_datagrams). Told in each turn while there are.
    Datagrams(DatagramId),
    /// A socket may take datagrams again, for which somebody [waits](crate::Reactor::await_datagram_room).
    DatagramRoom(DatagramId),
    /// Another thread used the [`Waker`](crate::Waker).
    Woken,
}
