//! Sockets for datagrams on epoll: level-triggered whatever the trigger of connections is, and exclusive, so that a datagram
//! wakes one of the processes that watch the same socket.
//!
//! Invariant: a socket is registered for exactly what its [`Watch`] asks for, and not at all when that is nothing.

use std::os::fd::OwnedFd;

use rustix::event::epoll::EventFlags;
use rustix::io::Errno;

use super::{Epoll, control, word};
use crate::datagrams::DatagramSocket;
use crate::{Completion, DatagramId};

/// What a socket is watched for.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Watch {
    pub(super) paused: bool,
    pub(super) awaits_room: bool,
    /// As the kernel has it.
    registered: EventFlags,
    /// The event under the reactor's hands has been told as readable, and is still to be told as writable.
    half_done: bool,
}

impl Watch {
    fn wanted(self) -> EventFlags {
        let mut wanted = EventFlags::empty();
        wanted.set(EventFlags::IN, !self.paused);
        wanted.set(EventFlags::OUT, self.awaits_room);
        wanted
    }
}

impl Epoll {
    pub(super) fn add_datagrams(&mut self, socket: OwnedFd) -> Result<DatagramId, Errno> {
        let id = self.datagrams.next_id()?;
        let mut socket = DatagramSocket::new(socket, Watch::default())?;
        control::add(
            &self.epoll,
            &socket.fd,
            word::of_datagrams(id),
            EventFlags::IN | EventFlags::EXCLUSIVE,
        )?;
        socket.watch.registered = EventFlags::IN;
        self.datagrams.insert(id, socket);
        Ok(id)
    }

    pub(super) fn remove_datagrams(&mut self, id: DatagramId) {
        // Closing alone would not end the events: the socket lives on in the processes it is shared with (epoll(7), Q6).
        // Taking back what was registered cannot fail.
        let _ = self.watch_datagrams(id, |watch| (watch.paused, watch.awaits_room) = (true, false));
        self.datagrams.remove(id);
    }

    /// Changes what a socket is watched for.
    pub(super) fn watch_datagrams(
        &mut self,
        id: DatagramId,
        change: impl FnOnce(&mut Watch),
    ) -> Result<(), Errno> {
        let socket = self.datagrams.find(id).ok_or(Errno::BADF)?;
        change(&mut socket.watch);
        let wanted = socket.watch.wanted();
        if wanted == socket.watch.registered {
            return Ok(());
        }
        // EPOLLEXCLUSIVE cannot be modified, so the registration goes and comes.
        if !socket.watch.registered.is_empty() {
            control::delete(&self.epoll, &socket.fd)?;
            socket.watch.registered = EventFlags::empty();
        }
        if !wanted.is_empty() {
            let flags = wanted | EventFlags::EXCLUSIVE;
            control::add(&self.epoll, &socket.fd, word::of_datagrams(id), flags)?;
            socket.watch.registered = wanted;
        }
        Ok(())
    }

    /// What an event means for a socket, one thing at a time; and whether that was the last of it.
    pub(super) fn datagrams_event(
        &mut self,
        id: DatagramId,
        flags: EventFlags,
    ) -> (Option<Completion>, bool) {
        let Some(socket) = self.datagrams.find(id) else { return (None, true) };
        let broken = flags.intersects(EventFlags::ERR | EventFlags::HUP);
        let room = socket.watch.awaits_room && (broken || flags.contains(EventFlags::OUT));
        let input = !socket.watch.paused && (broken || flags.contains(EventFlags::IN));
        if input && !socket.watch.half_done {
            socket.watch.half_done = room;
            return (Some(Completion::Datagrams(id)), !room);
        }
        socket.watch.half_done = false;
        if !room {
            return (None, true);
        }
        // Taking back a part of what is watched for fails only for want of memory, and is tried again with the next change.
        let _ = self.watch_datagrams(id, |watch| watch.awaits_room = false);
        (Some(Completion::DatagramRoom(id)), true)
    }
}
