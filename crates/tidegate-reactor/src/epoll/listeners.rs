//! `Listeners`: the listening sockets of an epoll reactor.
//!
//! Registered level-triggered, so that what a bounded batch leaves in the queue is reported again. Invariant: a paused
//! listener is not registered, so it brings no event whatever waits in its queue.
//!
//! An id is used again once its listener was given up. An event of that one that was waited for in the same turn is then
//! taken for the new one's, which only finds nothing to accept.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{EventData, EventFlags};
use rustix::io::Errno;
use rustix::net::SocketFlags;

use super::control;
use crate::accepting::{self, Reserve};
use crate::{AcceptError, ListenerId, PeerAddress};

#[derive(Debug)]
pub(super) struct Listeners {
    /// By id.
    places: Vec<Option<Listener>>,
    reserve: Reserve,
}

#[derive(Debug)]
struct Listener {
    socket: OwnedFd,
    paused: bool,
    shared: bool,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), reserve: Reserve::new() }
    }

    /// Takes a socket over and registers it under the word that `word` makes of its id.
    pub(super) fn add(
        &mut self,
        epoll: impl AsFd,
        socket: OwnedFd,
        shared: bool,
        word: impl FnOnce(ListenerId) -> EventData,
    ) -> Result<ListenerId, Errno> {
        let at = self.places.iter().position(Option::is_none).unwrap_or(self.places.len());
        let id = ListenerId(u32::try_from(at).map_err(|_| Errno::NOSPC)?);
        control::add(epoll, &socket, word(id), accept_flags(shared))?;
        let listener = Some(Listener { socket, paused: false, shared });
        match self.places.get_mut(at) {
            Some(place) => *place = listener,
            None => self.places.push(listener),
        }
        Ok(id)
    }

    pub(super) fn pause(&mut self, epoll: impl AsFd, id: ListenerId) {
        let Some(Some(listener)) = self.places.get_mut(id.0 as usize) else { return };
        if !listener.paused {
            // EPOLLEXCLUSIVE cannot be modified, so the registration goes and comes. Taking back what was registered
            // cannot fail (epoll_ctl(2)).
            let taken_back = control::delete(epoll, &listener.socket);
            debug_assert!(taken_back.is_ok(), "{taken_back:?}");
            listener.paused = true;
        }
    }

    pub(super) fn resume(&mut self, epoll: impl AsFd, id: ListenerId, word: EventData) -> Result<(), Errno> {
        let Some(Some(listener)) = self.places.get_mut(id.0 as usize) else { return Ok(()) };
        if listener.paused {
            control::add(epoll, &listener.socket, word, accept_flags(listener.shared))?;
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
        accepting::accept(self.socket(id)?, SocketFlags::NONBLOCK)
    }

    /// See [`Reserve::refuse_one`].
    pub(super) fn refuse_one(
        &mut self,
        id: ListenerId,
        answer: &[u8],
        scratch: &mut [u8],
    ) -> Result<(), AcceptError> {
        let Some(Some(listener)) = self.places.get(id.0 as usize) else {
            return Err(AcceptError::Broken(Errno::BADF));
        };
        self.reserve.refuse_one(&listener.socket, answer, scratch)
    }

    fn socket(&self, id: ListenerId) -> Result<&OwnedFd, AcceptError> {
        match self.places.get(id.0 as usize) {
            Some(Some(listener)) => Ok(&listener.socket),
            _ => Err(AcceptError::Broken(Errno::BADF)),
        }
    }
}

fn accept_flags(shared: bool) -> EventFlags {
    if shared { EventFlags::IN | EventFlags::EXCLUSIVE } else { EventFlags::IN }
}
