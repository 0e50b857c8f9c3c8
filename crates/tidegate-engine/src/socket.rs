//! `Sockets`: where the connections of a listener come from.
//!
//! A listener has any number of sockets, or none of its own because somebody else accepts for it. Which one a connection
//! came through makes no difference afterwards.

use std::net::{TcpListener, UdpSocket};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener};

use rustix::net::{AddressFamily, SocketType, sockopt};
use tidegate_reactor::{Errno, ListenerId, Reactor};

/// A listening socket, and how it is shared with other processes.
#[derive(Debug)]
pub struct Socket {
    /// `None`: somebody else has it, who hands over the connections.
    fd: Option<OwnedFd>,
    shared: bool,
    nodelay: bool,
}

impl Socket {
    /// A socket of which every connection wakes this loop: its own of a `SO_REUSEPORT` group, or one that others may poll
    /// too and are all woken for.
    #[must_use]
    pub fn own(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: Some(fd.into()), shared: false, nodelay: true }
    }

    /// One socket that several processes poll; each connection wakes one of them.
    #[must_use]
    pub fn shared(fd: impl Into<OwnedFd>) -> Self {
        Self { fd: Some(fd.into()), shared: true, nodelay: true }
    }

    /// None: an [`Acceptor`](crate::Acceptor) accepts, and hands the connections over to this loop. A loop has either only
    /// such listeners or none.
    #[must_use]
    pub fn handed_over() -> Self {
        Self { fd: None, shared: false, nodelay: true }
    }

    /// Whether what is sent leaves at once (`TCP_NODELAY`, tcp(7)), which is the default: a batch leaves in one call, so
    /// there is nothing to wait for. It is set on the listening socket, and inherited by the connections; a Unix socket has
    /// no such option.
    #[must_use]
    pub fn nodelay(self, nodelay: bool) -> Self {
        Self { nodelay, ..self }
    }
}

impl<T: Into<OwnedFd>> From<T> for Socket {
    fn from(fd: T) -> Self {
        Self::own(fd)
    }
}

/// All sockets of a listener. Made from a [`Socket`], from a standard library's listener, or from a vector of sockets: an
/// empty one is a listener that has none before it [adopts](crate::LoopHandle::adopt) one.
#[derive(Debug)]
pub struct Sockets {
    sockets: Vec<Socket>,
    paused: bool,
    proxied: bool,
}

impl Sockets {
    /// Nothing is accepted from them before somebody [resumes](crate::LoopHandle::resume) the listener: what waits in their
    /// queues stays there.
    #[must_use]
    pub fn paused(self) -> Self {
        Self { paused: true, ..self }
    }

    /// Whether each connection begins with a header of the PROXY protocol, version 1 or 2, from a balancer: the peer's address
    /// is the one that it names. A connection without one is reset with
    /// [`Reason::PROXY_HEADER`](crate::Reason::PROXY_HEADER); a header may take the service's
    /// [`head_timeout`](crate::Limits::head_timeout). Whoever reaches such a listener can name any address, so nobody but
    /// the balancer should. A header that names none (`LOCAL`, `UNKNOWN`) leaves the address as it is.
    #[must_use]
    pub fn proxy_protocol(self, proxied: bool) -> Self {
        Self { proxied, ..self }
    }

    pub(crate) fn is_proxied(&self) -> bool {
        self.proxied
    }

    pub(crate) fn is_paused(&self) -> bool {
        self.paused
    }

    /// Those to accept from.
    pub(crate) fn open(self) -> impl Iterator<Item = ListeningSocket> {
        self.sockets.into_iter().filter_map(Socket::open)
    }

    /// Whether somebody else accepts: the only socket is [handed over](Socket::handed_over).
    pub(crate) fn is_handed_over(&self) -> bool {
        matches!(&self.sockets[..], [socket] if socket.fd.is_none())
    }

    /// Whether one socket of several is handed over.
    pub(crate) fn is_mixed(&self) -> bool {
        self.sockets.len() > 1 && self.sockets.iter().any(|socket| socket.fd.is_none())
    }
}

impl From<Vec<Socket>> for Sockets {
    fn from(sockets: Vec<Socket>) -> Self {
        Self { sockets, paused: false, proxied: false }
    }
}

impl From<Socket> for Sockets {
    fn from(socket: Socket) -> Self {
        vec![socket].into()
    }
}

impl From<OwnedFd> for Sockets {
    fn from(socket: OwnedFd) -> Self {
        Socket::own(socket).into()
    }
}

impl From<TcpListener> for Sockets {
    fn from(socket: TcpListener) -> Self {
        Socket::own(socket).into()
    }
}

impl From<UnixListener> for Sockets {
    fn from(socket: UnixListener) -> Self {
        Socket::own(socket).into()
    }
}

impl From<UdpSocket> for Sockets {
    fn from(socket: UdpSocket) -> Self {
        Socket::own(socket).into()
    }
}

impl From<UnixDatagram> for Sockets {
    fn from(socket: UnixDatagram) -> Self {
        Socket::own(socket).into()
    }
}

impl From<ListeningSocket> for OwnedFd {
    fn from(socket: ListeningSocket) -> Self {
        socket.fd
    }
}

/// A socket that is there.
#[derive(Debug)]
pub(crate) struct ListeningSocket {
    fd: OwnedFd,
    shared: bool,
    nodelay: bool,
}

impl Socket {
    /// The socket, unless somebody else has it.
    pub(crate) fn open(self) -> Option<ListeningSocket> {
        let Self { fd, shared, nodelay } = self;
        fd.map(|fd| ListeningSocket { fd, shared, nodelay })
    }
}

impl ListeningSocket {
    /// Has a reactor accept from it.
    pub(crate) fn listen<R: Reactor>(self, reactor: &mut R) -> Result<ListenerId, Errno> {
        prepare(&self.fd, self.nodelay)?;
        reactor.listen(self.fd, self.shared)
    }
}

/// Makes a listening socket fit for a loop, whoever opened it.
fn prepare(socket: &OwnedFd, nodelay: bool) -> Result<(), Errno> {
    if ![SocketType::STREAM, SocketType::SEQPACKET].contains(&sockopt::socket_type(socket)?) {
        return Err(Errno::PROTOTYPE);
    }
    rustix::io::ioctl_fionbio(socket, true)?;
    let domain = sockopt::socket_domain(socket)?;
    if domain == AddressFamily::INET || domain == AddressFamily::INET6 {
        // The connections that the kernel makes from now on inherit it (tcp(7)).
        sockopt::set_tcp_nodelay(socket, nodelay)?;
    }
    Ok(())
}
