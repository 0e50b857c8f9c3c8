//! Queuing operations.
//!
//! A descriptor must stay open until its operation has been submitted, by the next [`Ring::enter`]; from then on the
//! kernel keeps the file. An operation on a number that was closed before fails, or reaches what took the number over.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use io_uring::squeue::{Entry, Flags};
use io_uring::types::{CancelBuilder, Fd};
use io_uring::{opcode, types};
use rustix::io::Errno;

use super::buffers::GROUP;
use super::event::{Kind, Operation, Readiness};
use super::{Attempt, Ring, Sending};

const ACCEPT_POLL_FIRST: u16 = 1 << 2;
const POLL_IN: u32 = libc::POLLIN.cast_unsigned() as u32;
const POLL_OUT: u32 = libc::POLLOUT.cast_unsigned() as u32;

/// Whether a successful attempt to send brings an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tell {
    /// Only when not all bytes were taken.
    Shortfall,
    /// In any case.
    Always,
}

impl Ring {
    /// Accepts every connection of a listening socket until it is cancelled or fails, by a multishot accept.
    ///
    /// It polls first, so that an empty queue needs no descriptor.
    pub fn accept(&mut self, word: u64, listener: impl AsFd) {
        let fd = Fd(listener.as_fd().as_raw_fd());
        let mut entry = opcode::AcceptMulti::new(fd).flags(libc::SOCK_CLOEXEC).build();
        // SAFETY: an entry is a `struct io_uring_sqe`, whose bytes 2 and 3 are `ioprio`, which carries an accept's flags.
        unsafe { *(&raw mut entry).cast::<u16>().add(1) |= ACCEPT_POLL_FIRST };
        self.start(Kind::Accept, word, entry);
    }

    /// Receives from a connected socket until it is cancelled, ends or fails, by a multishot receive into the ring's
    /// buffers. `ENOBUFS` ends it too: it is to be started anew.
    pub fn receive(&mut self, word: u64, socket: impl AsFd) {
        let fd = Fd(socket.as_fd().as_raw_fd());
        self.start(Kind::Receive, word, opcode::RecvMulti::new(fd, GROUP).build());
    }

    /// Sends as many bytes as the socket takes at once. `EAGAIN` when it takes none.
    pub fn attempt(&mut self, word: u64, socket: impl AsFd, bytes: Vec<u8>, tell: Tell) {
        let fd = Fd(socket.as_fd().as_raw_fd());
        let len = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        // With MSG_WAITALL less than all is a failure, whose completion is not left out; it does not wait for the rest
        // either, since with MSG_DONTWAIT nothing does.
        let flags = libc::MSG_DONTWAIT | libc::MSG_WAITALL | libc::MSG_NOSIGNAL;
        let mut entry = opcode::Send::new(fd, bytes.as_ptr(), len).flags(flags).build();
        if tell == Tell::Shortfall {
            entry = entry.flags(Flags::SKIP_SUCCESS);
        }
        let name = Kind::Attempt.name(self.attempts.len() as u64);
        self.attempts.push(Attempt { word, bytes, result: None });
        self.push(entry.user_data(name));
    }

    /// Sends the bytes from `from` on, as soon as the socket takes some of them.
    pub fn send(&mut self, word: u64, socket: impl AsFd, bytes: Vec<u8>, from: usize) {
        let fd = Fd(socket.as_fd().as_raw_fd());
        let rest = bytes.get(from..).unwrap_or_default();
        let len = u32::try_from(rest.len()).unwrap_or(u32::MAX);
        let entry = opcode::Send::new(fd, rest.as_ptr(), len).flags(libc::MSG_NOSIGNAL).build();
        let number = self.sends.insert(Sending { word, bytes, from });
        self.start(Kind::Send, number, entry);
    }

    /// Waits until a descriptor is ready.
    pub fn poll(&mut self, word: u64, fd: impl AsFd, readiness: Readiness) {
        let (events, again) = match readiness {
            Readiness::Input => (POLL_IN, true),
            Readiness::Arrival => (POLL_IN | libc::EPOLLEXCLUSIVE.cast_unsigned(), false),
            Readiness::Output => (POLL_OUT, false),
            // A half-closed stream counts as hung up here, so the first report is not the last that matters.
            Readiness::Hangup => (0, true),
        };
        let fd = Fd(fd.as_fd().as_raw_fd());
        let entry = opcode::PollAdd::new(fd, events).multi(again).build();
        self.start(Kind::of_poll(readiness), word, entry);
    }

    /// Cancels an operation. What it brought before is still told, and that it ended (`ECANCELED`, or something else that
    /// came first).
    pub fn cancel(&mut self, operation: Operation, word: u64) {
        let name = Kind::from(operation).name(word);
        self.order(opcode::AsyncCancel::new(name).build());
    }

    /// Cancels an operation that has been submitted, before this returns.
    ///
    /// # Errors
    ///
    /// What io_uring_register(2) answered: `ENOENT` when there is no such operation, `EEXIST` on another thread than the
    /// ring's.
    pub fn cancel_now(&mut self, operation: Operation, word: u64) -> Result<(), Errno> {
        let which = CancelBuilder::user_data(Kind::from(operation).name(word));
        self.ring
            .submitter()
            .register_sync_cancel(None, which)
            .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::INVAL))
    }

    /// Cancels all operations on a socket and closes it, after what was queued before.
    pub fn end(&mut self, socket: OwnedFd) {
        let fd = socket.as_raw_fd();
        let which = CancelBuilder::fd(Fd(fd)).all();
        self.order(opcode::AsyncCancel2::new(which).build());
        // By an operation, so that its place in the order is after what is queued, and without another system call.
        self.order(opcode::Close::new(types::Fd(fd)).build());
        self.ending.push(socket);
    }

    fn order(&mut self, entry: Entry) {
        self.push(entry.flags(Flags::SKIP_SUCCESS).user_data(Kind::Order.name(0)));
    }

    fn start(&mut self, kind: Kind, word: u64, entry: Entry) {
        self.in_flight += 1;
        self.push(entry.user_data(kind.name(word)));
    }

    #[inline]
    fn push(&mut self, entry: Entry) {
        // SAFETY: what the entry points to is the ring's own until its completion has been seen: a buffer of `attempts` or
        // of `sends`, which moving the vector that holds it does not move.
        if !self.backlog.is_empty() || unsafe { self.ring.submission().push(&entry) }.is_err() {
            self.backlog.push_back(entry);
        }
    }

    /// Moves submissions to the queue; answers whether all of them have room.
    #[inline]
    pub(super) fn fill(&mut self) -> bool {
        while let Some(entry) = self.backlog.front() {
            // SAFETY: as in `push`.
            if unsafe { self.ring.submission().push(entry) }.is_err() {
                return false;
            }
            self.backlog.pop_front();
        }
        true
    }

    /// How many submissions the kernel has not taken.
    #[inline]
    pub(super) fn queued(&mut self) -> u32 {
        u32::try_from(self.ring.submission().len()).unwrap_or(u32::MAX)
    }
}
