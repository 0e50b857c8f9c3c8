//! Sockets for datagrams on io_uring: polled, and then received from by the batch, since an operation for each datagram is more
//! work than one call for 32.
//!
//! A poll reports once and is queued anew in the next wait, at no system call of its own. So it tells again what is still
//! there, as epoll by level; and whoever handles datagrams is in no queue of those who wait, so that the next datagram wakes
//! another process that polls the same socket.

use std::os::fd::OwnedFd;

use rustix::io::Errno;
use tidegate_sys::uring::{Operation, Readiness};

use super::{Uring, word};
use crate::datagrams::DatagramSocket;
use crate::{Completion, DatagramId};

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    pub(super) paused: bool,
    pub(super) awaits_room: bool,
    /// What it is polled for.
    polls_input: bool,
    polls_room: bool,
}

impl Uring {
    pub(super) fn add_datagrams(&mut self, socket: OwnedFd) -> Result<DatagramId, Errno> {
        let id = self.datagrams.next_id()?;
        self.datagrams.insert(id, DatagramSocket::new(socket, Watch::default())?);
        self.datagrams_unsynced = true;
        Ok(id)
    }

    pub(super) fn remove_datagrams(&mut self, id: DatagramId) {
        self.watch_datagrams(id, |watch| watch.paused = true);
        let Some(socket) = self.datagrams.remove(id) else { return };
        if socket.watch.polls_input || socket.watch.polls_room {
            self.ring.end(socket.fd);
        }
    }

    pub(super) fn watch_datagrams(&mut self, id: DatagramId, change: impl FnOnce(&mut Watch)) {
        let Some(socket) = self.datagrams.find(id) else { return };
        change(&mut socket.watch);
        self.datagrams_unsynced = true;
        // At once: what comes from now on is for others who poll the socket.
        let arrivals = Operation::Poll(Readiness::Arrival);
        if socket.watch.paused
            && socket.watch.polls_input
            && self.ring.cancel_now(arrivals, word::of_datagrams(id)).is_err()
        {
            // It has ended by itself, or this is not the ring's thread.
            self.ring.cancel(arrivals, word::of_datagrams(id));
        }
    }

    /// Queues the polls that are wanted.
    pub(super) fn sync_datagrams(&mut self) {
        for (id, socket) in self.datagrams.iter_mut() {
            let (watch, word) = (&mut socket.watch, word::of_datagrams(id));
            if !watch.paused && !watch.polls_input {
                watch.polls_input = true;
                self.ring.poll(word, &socket.fd, Readiness::Arrival);
            }
            if watch.awaits_room && !watch.polls_room {
                watch.polls_room = true;
                self.ring.poll(word, &socket.fd, Readiness::Output);
            }
        }
    }

    /// A poll for input has ended.
    pub(super) fn on_arrival(&mut self, id: DatagramId) -> Option<Completion> {
        let socket = self.datagrams.find(id)?;
        socket.watch.polls_input = false;
        self.datagrams_unsynced = true;
        (!socket.watch.paused).then_some(Completion::Datagrams(id))
    }

    /// A poll for room has ended.
    pub(super) fn on_datagram_room(&mut self, id: DatagramId) -> Option<Completion> {
        let socket = self.datagrams.find(id)?;
        socket.watch.polls_room = false;
        std::mem::take(&mut socket.watch.awaits_room).then_some(Completion::DatagramRoom(id))
    }
}
