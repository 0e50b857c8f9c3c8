//! `Listeners`: the listening sockets of an epoll reactor, and the reserve descriptor for when there is no other.
//!
//! Registered level-triggered, so that what a bounded batch leaves in the queue is reported again. Invariant: a paused
//! listener is not registered, so it brings no event whatever waits in its queue.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, EventData, EventFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{SendFlags, Shutdown, SocketFlags};

use crate::{AcceptError, ListenerId, PeerAddress};

#[derive(Debug)]
pub(super) struct Listeners {
    /// By id; an id is not used again.
    places: Vec<Option<Listener>>,
    /// Given up for a moment when no other descriptor is left, so that a peer can be told.
    reserve: Option<OwnedFd>,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    paused: bool,
    shared: bool,
}

impl Listeners {
    pub(super) fn new() -> Self {
        // Without it now, `refuse_one` tries again when it is needed.
        Self { places: Vec::new(), reserve: open_reserve().ok() }
    }

    /// Takes a socket over and registers it under the word that `word` makes of its id.
    pub(super) fn add(
        &mut self,
        epoll: impl AsFd,
        socket: OwnedFd,
        shared: bool,
        word: impl FnOnce(ListenerId) -> EventData,
    ) -> Result<ListenerId, Errno> {
        let id = ListenerId(u32::try_from(self.places.len()).map_err(|_| Errno::NOSPC)?);
        epoll::add(epoll, &socket, word(id), accept_flags(shared))?;
        self.places.push(Some(Listener { socket, paused: false, shared }));
        Ok(id)
    }

    pub(super) fn pause(&mut self, epoll: impl AsFd, id: ListenerId) {
        let Some(Some(listener)) = self.places.get_mut(id.0 as usize) else { return };
        if !listener.paused {
            // EPOLLEXCLUSIVE cannot be modified, so the registration goes and comes. Taking back what was registered
            // cannot fail (epoll_ctl(2)).
            let taken_back = epoll::delete(epoll, &listener.socket);
            debug_assert!(taken_back.is_ok(), "{taken_back:?}");
            listener.paused = true;
        }
    }

    pub(super) fn resume(&mut self, epoll: impl AsFd, id: ListenerId, word: EventData) -> Result<(), Errno> {
        let Some(Some(listener)) = self.places.get_mut(id.0 as usize) else { return Ok(()) };
        if listener.paused {
            epoll::add(epoll, &listener.socket, word, accept_flags(listener.shared))?;
            listener.paused = false;
        }
        Ok(())
    }

    pub(super) fn remove(&mut self, epoll: impl AsFd, id: ListenerId) {
        // Closing alone would not end the events: the socket lives on in the processes it is shared with (epoll(7), Q6).
        self.pause(epoll, id);
        if let Some(place) = self.places.get_mut(id.0 as usize) {
            *place = None;
        }
    }

    pub(super) fn is_accepting(&self, id: ListenerId) -> bool {
        matches!(self.places.get(id.0 as usize), Some(Some(listener)) if !listener.paused)
    }

    pub(super) fn accept(&self, id: ListenerId) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        let Some(Some(listener)) = self.places.get(id.0 as usize) else {
            return Err(AcceptError::Broken(Errno::BADF));
        };
        let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
        loop {
            match rustix::net::acceptfrom_with(&listener.socket, flags) {
                Ok((fd, peer)) => {
                    let inet = peer.and_then(|address| std::net::SocketAddr::try_from(address).ok());
                    return Ok((fd, inet.map_or(PeerAddress::Unix, PeerAddress::Inet)));
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }

    /// Accepts by the reserve descriptor, answers and closes. What the peer has sent already is read into `scratch`.
    pub(super) fn refuse_one(
        &mut self,
        id: ListenerId,
        answer: &[u8],
        scratch: &mut [u8],
    ) -> Result<(), AcceptError> {
        if self.reserve.take().is_none() {
            self.reserve = open_reserve().ok();
            return Err(AcceptError::Exhausted(Errno::MFILE));
        }
        let accepted = self.accept(id);
        if let Ok((socket, _)) = &accepted {
            // The peer gets what fits at once; a peer that cannot even take that is closed without.
            let _ = rustix::net::send(socket, answer, SendFlags::NOSIGNAL | SendFlags::DONTWAIT);
            let _ = rustix::net::shutdown(socket, Shutdown::Write);
            // Unread bytes would turn the close into a reset and cost the peer the answer (RFC 9112, section 9.6).
            let _ = rustix::io::read(socket, scratch);
        }
        let outcome = accepted.map(drop);
        self.reserve = open_reserve().ok();
        outcome
    }
}

fn accept_flags(shared: bool) -> EventFlags {
    if shared { EventFlags::IN | EventFlags::EXCLUSIVE } else { EventFlags::IN }
}

fn open_reserve() -> Result<OwnedFd, Errno> {
    rustix::fs::open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
}
