//! `Listeners`: the listening sockets of an io_uring reactor, each with a multishot accept.
//!
//! The kernel accepts what comes as soon as it comes, so accepted connections wait here for their turn: at most
//! [`ACCEPT_BATCH`] of a listener are reported in one. Invariant: what was accepted is reported, by `next` or by
//! `accept_now`, whatever becomes of the listener.
//!
//! Several processes may poll one socket: an accept that waits in io_uring waits exclusively (its poll is
//! `EPOLLEXCLUSIVE`), so a connection wakes one of them without being asked for.

use std::collections::VecDeque;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use rustix::net::SocketFlags;
use rustix::time::Timespec;
use tidegate_sys::uring::{Event, Operation, Ring, accepted_peer};

use super::word;
use crate::accepting::{self, Reserve};
use crate::{AcceptError, Completion, ListenerId, PeerAddress};

/// Connections reported of one listener in one turn.
const ACCEPT_BATCH: u32 = 64;

#[derive(Debug)]
pub(super) struct Listeners {
    /// By id, which is used again when its listener was given up and nothing more can come of it.
    places: Vec<Listener>,
    /// Some listener's accept is to be looked at before the next wait.
    unsynced: bool,
    /// Accepted connections and failures that wait here, of all listeners.
    waiting: usize,
    reserve: Reserve,
}

#[derive(Debug)]
struct Listener {
    /// `None` when it was given up.
    socket: Option<OwnedFd>,
    paused: bool,
    /// An accept is in flight.
    armed: bool,
    accepted: VecDeque<OwnedFd>,
    /// How its last accept failed, to be reported after what was accepted before.
    failure: Option<AcceptError>,
    /// How many were reported in this turn.
    reported: u32,
}

impl Listeners {
    pub(super) fn new() -> Self {
        Self { places: Vec::new(), unsynced: false, waiting: 0, reserve: Reserve::new() }
    }

    pub(super) fn add(&mut self, socket: OwnedFd) -> Result<ListenerId, Errno> {
        let at = self.places.iter().position(Listener::is_over).unwrap_or(self.places.len());
        let id = ListenerId(u32::try_from(at).map_err(|_| Errno::NOSPC)?);
        let listener = Listener {
            socket: Some(socket),
            paused: false,
            armed: false,
            accepted: VecDeque::new(),
            failure: None,
            reported: 0,
        };
        match self.places.get_mut(at) {
            Some(place) => *place = listener,
            None => self.places.push(listener),
        }
        self.unsynced = true;
        Ok(id)
    }

    /// Queues the accepts that are wanted and not in flight. To be called before each wait.
    #[inline]
    pub(super) fn sync(&mut self, ring: &mut Ring) {
        if self.waiting > 0 {
            self.places.iter_mut().for_each(|listener| listener.reported = 0);
        }
        if !std::mem::take(&mut self.unsynced) {
            return;
        }
        for (id, listener) in (0..).map(ListenerId).zip(&mut self.places) {
            if let Some(socket) = &listener.socket
                && !listener.paused
                && !listener.armed
                && listener.failure.is_none()
            {
                listener.armed = true;
                ring.accept(word::of_listener(id), socket);
            }
        }
    }

    pub(super) fn pause(&mut self, ring: &mut Ring, id: ListenerId) {
        let Some(listener) = self.places.get_mut(id.0 as usize) else { return };
        if listener.paused || listener.socket.is_none() {
            return;
        }
        listener.paused = true;
        // It may be over when accepting goes on, and is found out again if it is not.
        self.waiting -= usize::from(listener.failure.take().is_some());
        // At once: what arrives from now on is for the others who listen to the socket. `ENOENT` means that the accept
        // has ended by itself; anything else leaves it to the next wait.
        if listener.armed && ring.cancel_now(Operation::Accept, word::of_listener(id)).is_err() {
            ring.cancel(Operation::Accept, word::of_listener(id));
        }
    }

    pub(super) fn resume(&mut self, id: ListenerId) {
        let Some(listener) = self.places.get_mut(id.0 as usize) else { return };
        listener.paused = false;
        self.unsynced = true;
    }

    pub(super) fn remove(&mut self, ring: &mut Ring, id: ListenerId) {
        self.pause(ring, id);
        self.pull(ring, id);
        let Some(listener) = self.places.get_mut(id.0 as usize) else { return };
        if let Some(socket) = listener.socket.take() {
            if listener.armed { ring.end(socket) } else { drop(socket) }
        }
    }

    /// Moves what the ring has of a listener's accepts here.
    fn pull(&mut self, ring: &mut Ring, id: ListenerId) {
        while let Some(Event::Accept { result, more, .. }) = ring.next_accept(word::of_listener(id)) {
            self.on_accept(id, result, more);
        }
    }

    /// What an accept came to.
    pub(super) fn on_accept(&mut self, id: ListenerId, result: Result<OwnedFd, Errno>, more: bool) {
        let Some(listener) = self.places.get_mut(id.0 as usize) else { return };
        if !more {
            listener.armed = false;
            self.unsynced = true;
        }
        let error = match result {
            Ok(socket) => {
                listener.accepted.push_back(socket);
                self.waiting += 1;
                return;
            }
            Err(Errno::CANCELED | Errno::INTR) => return,
            Err(errno) => AcceptError::from(errno),
        };
        let Some(socket) = listener.socket.as_ref().filter(|_| !listener.paused) else { return };
        let told = match error {
            AcceptError::Empty => false,
            // The kernel asks for a descriptor before it looks for a connection.
            AcceptError::Exhausted(_) => is_waited_for(socket),
            AcceptError::Broken(_) | AcceptError::Lost(_) => true,
        };
        if told && listener.failure.replace(error).is_none() {
            self.waiting += 1;
        }
    }

    /// Whether [`next`](Self::next) would have something in a new turn.
    #[inline]
    pub(super) fn has_waiting(&self) -> bool {
        let has = |listener: &Listener| !listener.accepted.is_empty() || listener.failure.is_some();
        self.waiting > 0 && self.places.iter().any(|listener| listener.may_report() && has(listener))
    }

    /// The next accepted connection of this turn.
    #[inline]
    pub(super) fn next(&mut self) -> Option<Completion> {
        if self.waiting == 0 {
            return None;
        }
        for (id, listener) in (0..).map(ListenerId).zip(&mut self.places) {
            if !listener.may_report() || listener.reported == ACCEPT_BATCH {
                continue;
            }
            let Some(outcome) = listener.outcome() else { continue };
            self.waiting -= 1;
            listener.reported += 1;
            self.unsynced = true;
            return Some(match outcome {
                Ok((socket, peer)) => Completion::Accepted { listener: id, socket, peer },
                Err(error) => Completion::AcceptFailed { listener: id, error },
            });
        }
        None
    }

    pub(super) fn accept_now(
        &mut self,
        ring: &mut Ring,
        id: ListenerId,
    ) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        self.pull(ring, id);
        let Some(listener) = self.places.get_mut(id.0 as usize) else {
            return Err(AcceptError::Broken(Errno::BADF));
        };
        if let Some(outcome) = listener.outcome() {
            self.waiting -= 1;
            return outcome;
        }
        let socket = listener.socket.as_ref().ok_or(AcceptError::Broken(Errno::BADF))?;
        accepting::accept(socket, SocketFlags::empty())
    }

    pub(super) fn take_accepted(
        &mut self,
        ring: &mut Ring,
        id: ListenerId,
    ) -> Result<(OwnedFd, PeerAddress), AcceptError> {
        self.pull(ring, id);
        let listener = self.places.get_mut(id.0 as usize);
        let socket = listener.and_then(|listener| listener.accepted.pop_front()).ok_or(AcceptError::Empty)?;
        self.waiting -= 1;
        with_peer(socket)
    }

    /// See [`Reserve::refuse_one`].
    pub(super) fn refuse_one(
        &mut self,
        id: ListenerId,
        answer: &[u8],
        scratch: &mut [u8],
    ) -> Result<(), AcceptError> {
        let socket = self.places.get(id.0 as usize).and_then(|listener| listener.socket.as_ref());
        self.reserve.refuse_one(socket.ok_or(AcceptError::Broken(Errno::BADF))?, answer, scratch)
    }
}

impl Listener {
    /// What a paused listener has accepted before waits; what one that was given up has accepted is told.
    fn may_report(&self) -> bool {
        !self.paused || self.socket.is_none()
    }

    /// What comes next of what waits here.
    fn outcome(&mut self) -> Option<Result<(OwnedFd, PeerAddress), AcceptError>> {
        let Some(socket) = self.accepted.pop_front() else {
            let error = self.failure.take()?;
            // It would fail again for ever.
            self.paused |= matches!(error, AcceptError::Broken(_));
            return Some(Err(error));
        };
        Some(with_peer(socket))
    }

    /// Whether it was given up, and nothing more can come of it.
    fn is_over(&self) -> bool {
        self.socket.is_none() && !self.armed && self.accepted.is_empty() && self.failure.is_none()
    }
}

/// Whether a connection is in the queue.
fn is_waited_for(listener: impl AsFd) -> bool {
    let mut fds = [PollFd::new(&listener, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// A multishot accept brings no addresses, so each connection is asked for its own.
fn with_peer(socket: OwnedFd) -> Result<(OwnedFd, PeerAddress), AcceptError> {
    let peer = accepted_peer(&socket).map_err(AcceptError::Lost)?;
    Ok((socket, peer.map_or(PeerAddress::Unix, PeerAddress::Inet)))
}
