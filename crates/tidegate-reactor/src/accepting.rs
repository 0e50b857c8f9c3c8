//! What every reactor does with a listening socket by hand: accepting one connection, and refusing one.

use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, Shutdown, SocketFlags};

use crate::{AcceptError, PeerAddress};

/// Accepts one connection without waiting, which wants a non-blocking listener. `flags` are the connection's.
pub(crate) fn accept(listener: impl AsFd, flags: SocketFlags) -> Result<(OwnedFd, PeerAddress), AcceptError> {
    loop {
        match rustix::net::acceptfrom_with(&listener, flags | SocketFlags::CLOEXEC) {
            Ok((fd, peer)) => {
                let inet = peer.and_then(|address| SocketAddr::try_from(address).ok());
                return Ok((fd, inet.map_or(PeerAddress::Unix, PeerAddress::Inet)));
            }
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno.into()),
        }
    }
}

/// Tells the peer of a connection that nobody will serve it, after which the connection is to be closed. What the peer has
/// sent already is read into `scratch`: unread bytes would turn the close into a reset and cost it the answer (RFC 9112,
/// section 9.6). It never waits, whether the socket is a non-blocking one or not.
pub fn turn_away(socket: impl AsFd, answer: &[u8], scratch: &mut [u8]) {
    // The peer gets what fits at once; a peer that cannot even take that is closed without.
    let _ = rustix::net::send(&socket, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
    let _ = rustix::net::shutdown(&socket, Shutdown::Write);
    let _ = rustix::net::recv(&socket, scratch, RecvFlags::DONTWAIT);
}

/// A descriptor that is given up for a moment when no other is left, so that a peer can be told.
#[derive(Debug)]
pub(crate) struct Reserve(Option<OwnedFd>);

impl Reserve {
    pub(crate) fn new() -> Self {
        // Without it now, `refuse_one` tries again when it is needed.
        Self(open_reserve().ok())
    }

    /// Accepts by the reserve descriptor, answers and closes. What the peer has sent already is read into `scratch`.
    pub(crate) fn refuse_one(
        &mut self,
        listener: impl AsFd,
        answer: &[u8],
        scratch: &mut [u8],
    ) -> Result<(), AcceptError> {
        if self.0.take().is_none() {
            self.0 = open_reserve().ok();
            return Err(AcceptError::Exhausted(Errno::MFILE));
        }
        let accepted = accept(listener, SocketFlags::NONBLOCK);
        if let Ok((socket, _)) = &accepted {
            turn_away(socket, answer, scratch);
        }
        let outcome = accepted.map(drop);
        self.0 = open_reserve().ok();
        outcome
    }
}

fn open_reserve() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
