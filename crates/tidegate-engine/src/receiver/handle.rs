//! `ReceiverHandle`: tells a receiver what to do, from any thread, and its loops to end.
//!
//! What it is told is done by its own thread in its next turn. See [`Inbox`] for what becomes of it at the end.

use std::sync::Arc;
use std::time::Duration;

use tidegate_sys::fd_channel::FdChannel;

use crate::handle::Command;
use crate::inbox::Inbox;

/// Tells a [`Receiver`](crate::Receiver) what to do, and ends it and the loops that it receives for.
#[derive(Clone, Debug)]
pub struct ReceiverHandle {
    inbox: Arc<Inbox<Order>>,
}

/// What a receiver does in passing.
#[derive(Debug)]
pub(super) enum Order {
    Adopt {
        key: u64,
        channel: FdChannel,
    },
    Release {
        key: u64,
    },
    Pause,
    Resume,
    /// Whoever hands over has not ended yet, but is about to.
    AwaitEnd,
}

impl ReceiverHandle {
    pub(super) fn new(inbox: Arc<Inbox<Order>>) -> Self {
        Self { inbox }
    }

    /// The loops get what is in the channels, which is to be said when the acceptor has ended; only then are they told to
    /// end when their connections have, or when `grace` has passed since this call was heeded. See
    /// [`LoopHandle::quit`](crate::LoopHandle::quit).
    ///
    /// Loops that are full are waited for, and serve on meanwhile: for `grace` at the most, and with [`Duration::MAX`] as long
    /// as it takes, or until this is called again with a limit. What finds no room by then is left in the channel, and
    /// reported.
    pub fn quit(&self, grace: Duration) {
        self.inbox.command(Command::Quit { grace });
    }

    /// As [`quit`](Self::quit), where the acceptor is about to end by itself: the channels are read until nobody holds their other
    /// ends any more, for 3 s at the most.
    pub fn quit_behind_acceptor(&self, grace: Duration) {
        self.inbox.order(Order::AwaitEnd);
        self.inbox.command(Command::Quit { grace });
    }

    /// Close everything and end, the loops too. See [`LoopHandle::stop`](crate::LoopHandle::stop). What is in the
    /// channels stays there, for whoever reads them next.
    pub fn stop(&self) {
        self.inbox.command(Command::Stop);
    }

    /// Receive from this channel too, until it is [released](Self::release) under the same key. Others may read it at the
    /// same time: each connection reaches one of them.
    pub fn adopt(&self, key: u64, channel: FdChannel) {
        self.inbox.order(Order::Adopt { key, channel });
    }

    /// Close all channels that were adopted under the key. What is in them stays there, for whoever reads them next.
    pub fn release(&self, key: u64) {
        self.inbox.order(Order::Release { key });
    }

    /// Receive nothing until [`resume`](Self::resume), from any channel. With the number of a listener there is nothing to
    /// pause here: its acceptor stops accepting, and what it has handed over is served.
    pub fn pause(&self, site: Option<usize>) {
        if site.is_none() {
            self.inbox.order(Order::Pause);
        }
    }

    /// Receive again after [`pause`](Self::pause), as soon as there is room.
    pub fn resume(&self, site: Option<usize>) {
        if site.is_none() {
            self.inbox.order(Order::Resume);
        }
    }
}
