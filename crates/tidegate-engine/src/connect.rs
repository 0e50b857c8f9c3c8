//! `Connect`: a connection that is wanted, and what becomes of the wish.
//!
//! Whoever wants a connection does not wait for it: the loop connects, and tells the service of the client by `on_open` or by
//! `on_connect_failed`, exactly one of the two.

use std::any::{Any, TypeId};
use std::fmt;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{Errno, Target};

use crate::event_loop::upstreams::Seat;
use crate::handle::Shared;
use crate::upstream::OpenSet;
use crate::{LayerError, Reason, Upstream};

/// Where to connect, from where, and for how long to try.
///
/// Names of hosts are not resolved: that waits, and nothing in an event loop may. Resolve them before, or on a thread of your own.
///
/// ```
/// use std::time::Duration;
/// use tidegate_engine::{Connect, Target};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let target: Target = "127.0.0.1:5432".parse()?;
/// let connect = Connect::to(target).deadline(Duration::from_secs(2));
/// assert_eq!(connect.target().to_string(), "127.0.0.1:5432");
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Connect {
    pub(crate) target: Target,
    pub(crate) deadline: Duration,
    from: Option<IpAddr>,
    name: Option<Arc<str>>,
}

impl Connect {
    /// How long a connection may take when nothing else is said.
    pub const DEFAULT_DEADLINE: Duration = Duration::from_secs(10);

    /// To this target.
    #[must_use]
    pub fn to(target: impl Into<Target>) -> Self {
        Self { target: target.into(), deadline: Self::DEFAULT_DEADLINE, from: None, name: None }
    }

    /// It is given up after so long, the handshake of a layer included. Default [`DEFAULT_DEADLINE`](Self::DEFAULT_DEADLINE).
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline, ..self }
    }

    /// It comes from this address of the machine, in place of the one that the kernel chooses (ip(7)). A Unix socket has
    /// none.
    #[must_use]
    pub fn from(self, address: IpAddr) -> Self {
        Self { from: Some(address), ..self }
    }

    /// By this name the client's [layer](crate::ClientLayer) asks for the peer, and has it show that it is the one. Default: the
    /// layer's own, if it has one, or else the address.
    #[must_use]
    pub fn server_name(self, name: impl Into<Arc<str>>) -> Self {
        Self { name: Some(name.into()), ..self }
    }

    pub(crate) fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Where it goes to.
    #[must_use]
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// A socket for it.
    pub(crate) fn socket(&self) -> Result<OwnedFd, Errno> {
        let socket = match (&self.target, self.from) {
            (Target::Inet(to), from) => tidegate_sys::socket::outgoing_tcp(*to, from),
            (Target::Unix(_), _) => tidegate_sys::socket::outgoing_unix(),
        };
        // What is no error of the kernel is that the families differ.
        socket.map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::AFNOSUPPORT))
    }
}

/// Why a connection cannot even be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectError {
    /// The loop has no client of this name: see [`LoopBuilder::client`](crate::LoopBuilder::client).
    #[error("the event loop has no client of this name")]
    Unknown,
    /// The client's service has another type of notes.
    #[error("the service of the client has notes of another type")]
    WrongNote,
    /// As many connections have been asked for as may wait; the loop is stuck or flooded.
    #[error("{MAX_CONNECTS} connections have been asked for already, and wait for the event loop")]
    Full,
    /// The loop has ended.
    #[error("the event loop has ended")]
    Ended,
}

/// How many connections that were asked for wait at the most until their loop begins with them.
pub const MAX_CONNECTS: usize = 65_536;

/// A connection that could not be had: see [`Service::on_connect_failed`](crate::Service::on_connect_failed).
#[derive(Debug)]
pub struct ConnectFailed<N> {
    /// Where it was to go.
    pub target: Target,
    /// Why it did not get there.
    pub error: ConnectFailure,
    /// What came with the wish; `None` for a connection that the engine wanted by itself
    /// ([`LoopBuilder::upstream`](crate::LoopBuilder::upstream)).
    pub note: Option<N>,
}

/// Why a connection could not be had.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConnectFailure {
    /// The kernel's answer, or the target's: `ECONNREFUSED`, `ENOENT`, `EHOSTUNREACH` (connect(2)), `EMFILE` and others.
    #[error("{0}")]
    Refused(Errno),
    /// It took longer than [`Connect::deadline`].
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// It came about, but its [layer](crate::ClientLayer) and the peer did not agree.
    #[error("the handshake failed: {0}")]
    Handshake(LayerError),
    /// The loop has as many connections as it may, or no memory for another.
    #[error("the event loop has no room for another connection")]
    NoRoom,
    /// Somebody closed it first, as [`LoopHandle::close`](crate::LoopHandle::close) does.
    #[error("closed before it was connected ({0})")]
    Closed(Reason),
    /// The loop ended first.
    #[error("the event loop has ended")]
    Stopped,
}

/// A wish on its way to the loop.
pub(crate) struct Dial {
    pub(crate) site: u16,
    pub(crate) connect: Connect,
    pub(crate) note: Option<Box<dyn Any + Send>>,
    /// The place that it is for, when the loop wants it by itself.
    pub(crate) seat: Option<Seat>,
}

impl fmt::Debug for Dial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Dial")
            .field("site", &self.site)
            .field("connect", &self.connect)
            .finish_non_exhaustive()
    }
}

/// A site without sockets, as those see it who want a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) name: Arc<str>,
    pub(crate) note: TypeId,
    pub(crate) site: u16,
    /// The connections that the loop keeps open for it.
    pub(crate) open: Option<Arc<OpenSet>>,
}

/// A wish for the client of this name.
pub(crate) fn dial<N: Send + 'static>(
    clients: &[Client],
    name: &str,
    connect: Connect,
    note: N,
) -> Result<Dial, ConnectError> {
    let client = find::<N>(clients, name)?;
    Ok(Dial { site: client.site, connect, note: Some(Box::new(note)), seat: None })
}

/// The connections that are kept open for the client of this name.
pub(crate) fn upstream<N: Send + 'static>(
    shared: &Arc<Shared>,
    name: &str,
) -> Result<Upstream<N>, ConnectError> {
    let open = find::<N>(&shared.clients, name)?.open.clone().ok_or(ConnectError::Unknown)?;
    Ok(Upstream::new(open, Arc::clone(shared)))
}

fn find<'a, N: 'static>(clients: &'a [Client], name: &str) -> Result<&'a Client, ConnectError> {
    let client = clients.iter().find(|client| &*client.name == name).ok_or(ConnectError::Unknown)?;
    if client.note == TypeId::of::<N>() { Ok(client) } else { Err(ConnectError::WrongNote) }
}
