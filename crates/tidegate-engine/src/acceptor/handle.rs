//! `AcceptorHandle`: tells an acceptor what to do, from any thread, and its loops to end.
//!
//! What it is told is done by its own thread in its next turn. See [`Inbox`] for what becomes of it at the end.

use std::sync::Arc;
use std::time::Duration;

use crate::Socket;
use crate::handle::Command;
use crate::inbox::Inbox;

/// Tells an [`Acceptor`](crate::Acceptor) what to do, and ends it and the loops that it accepts for.
#[derive(Clone, Debug)]
pub struct AcceptorHandle {
    inbox: Arc<Inbox<Order>>,
}

/// What an acceptor does in passing.
#[derive(Debug)]
pub(super) enum Order {
    Adopt { key: u64, site: usize, socket: Socket },
    Release { key: u64 },
    Pause { site: Option<usize> },
    Resume { site: Option<usize> },
}

impl AcceptorHandle {
    pub(super) fn new(inbox: Arc<Inbox<Order>>) -> Self {
        Self { inbox }
    }

    /// Stop accepting: the loops get what the queues of the listeners hold, and are then told to end when their connections
    /// have, or after `grace`. See [`LoopHandle::quit`](crate::LoopHandle::quit). Workers get it by their channels, which
    /// the acceptor waits for `grace` or [`LAST_WAIT`](crate::LAST_WAIT) at the most; they are told by whoever started them.
    pub fn quit(&self, grace: Duration) {
        self.inbox.command(Command::Quit { grace });
    }

    /// Close everything and end, the loops too. See [`LoopHandle::stop`](crate::LoopHandle::stop).
    pub fn stop(&self) {
        self.inbox.command(Command::Stop);
    }

    /// Accept from this socket too, for the listener with the number `site`, until it is [released](Self::release) under the
    /// same key. The caller keeps a descriptor of its own. See [`LoopHandle::adopt`](crate::LoopHandle::adopt).
    pub fn adopt(&self, key: u64, site: usize, socket: Socket) {
        self.inbox.order(Order::Adopt { key, site, socket });
    }

    /// Let go of all sockets that were adopted under the key: what waits in their queues by then is accepted, as far as
    /// there is room, and the descriptors are closed.
    pub fn release(&self, key: u64) {
        self.inbox.order(Order::Release { key });
    }

    /// Accept no connections for one listener, or for any, until [`resume`](Self::resume). What has arrived before is
    /// accepted, as far as there is room; what arrives from now on waits in the kernel's queue, and is left there when the
    /// acceptor ends.
    pub fn pause(&self, site: Option<usize>) {
        self.inbox.order(Order::Pause { site });
    }

    /// Accept again after [`pause`](Self::pause), as soon as there is room.
    pub fn resume(&self, site: Option<usize>) {
        self.inbox.order(Order::Resume { site });
    }
}
