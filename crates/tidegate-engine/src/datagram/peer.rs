//! `DatagramPeer`: who has sent a datagram, and how an answer gets back.

use std::fmt;
use std::net::SocketAddr;
use std::path::Path;

use tidegate_reactor::{Address, Arrival, Datagram};

/// Who has sent a datagram, with what is needed to answer from the address that it was sent to. May be kept, to send to
/// the peer [later](crate::DatagramIo::send_to).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DatagramPeer {
    pub(crate) address: Address,
    pub(crate) arrival: Option<Arrival>,
}

impl DatagramPeer {
    #[inline]
    pub(crate) fn of(datagram: &Datagram<'_>) -> Self {
        Self { address: *datagram.from, arrival: datagram.arrival }
    }

    /// Its Internet address; `None` on a Unix socket.
    #[must_use]
    pub fn inet(&self) -> Option<SocketAddr> {
        self.address.inet()
    }

    /// The path that its Unix socket is bound to, if it is one and has one.
    #[must_use]
    pub fn path(&self) -> Option<&Path> {
        self.address.path()
    }

    /// Whether it has an address that an answer could go to. A Unix socket that is bound to nothing has none.
    #[must_use]
    pub fn has_address(&self) -> bool {
        !self.address.is_unnamed()
    }

    /// Whether its datagram was sent to many at once, by broadcast or multicast. RFC 1122, section 3.2.2, has such
    /// datagrams answered by no error; a service that answers them serves whoever forges a source address.
    #[must_use]
    pub fn sent_to_many(&self) -> bool {
        self.arrival.is_some_and(|arrival| arrival.to_many)
    }
}

/// A peer that nothing has come from.
impl<T: Into<Address>> From<T> for DatagramPeer {
    fn from(address: T) -> Self {
        Self { address: address.into(), arrival: None }
    }
}

impl fmt::Display for DatagramPeer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.address.fmt(f)
    }
}
