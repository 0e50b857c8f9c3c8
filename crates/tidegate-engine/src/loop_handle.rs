//! `LoopHandle`: what other threads ask of a loop as a whole, and `Running`: a loop on a thread of its own.
//!
//! Everything goes through the loop's mailbox and is done by its thread in its next turn; nothing here waits for it but
//! [`LoopHandle::connections_page`], and that not for ever.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread::JoinHandle;
use std::time::Duration;

use crate::conn_info::{ConnInfo, Unanswered};
use crate::handle::{Command, ConnId, HandleError, Letter, Shared};
use crate::order::{Order, Question};
use crate::{Connect, ConnectError, Reason, Socket, Upstream, connect};

/// Tells a loop what to do, from any thread.
#[derive(Clone, Debug)]
pub struct LoopHandle {
    pub(crate) shared: Arc<Shared>,
}

impl LoopHandle {
    /// Stop accepting; end when the connections have, or have been closed after `grace`. With [`Duration::MAX`] there is no
    /// limit, and services leave those alone that have nothing in flight: see [`Io::draining`](crate::Io::draining).
    /// Told again, a loop goes by what it was told last; but connections that it has ended are not taken back.
    pub fn quit(&self, grace: Duration) {
        self.shared.command(Command::Quit { grace });
    }

    /// Close everything and end.
    pub fn stop(&self) {
        self.shared.command(Command::Stop);
    }

    /// Accept from this socket too, for the listener with the number `site`, until it is [released](Self::release) under the
    /// same key. The caller keeps a descriptor of its own: a loop that retires, or whose listeners are all handed
    /// over by an acceptor, drops the one that it is given.
    pub fn adopt(&self, key: u64, site: usize, socket: Socket) {
        self.shared.order(Order::Adopt { key, site, socket });
    }

    /// Let go of all sockets that were adopted under the key: what waits in their queues by then is accepted, as far as
    /// there is room, and the descriptors are closed.
    pub fn release(&self, key: u64) {
        self.shared.order(Order::Release { key });
    }

    /// Accept no connections for one listener, or for any, until [`resume`](Self::resume). What has arrived before is
    /// accepted; what arrives from now on waits in the kernel's queue, and is left there when the loop retires. A
    /// loop whose connections are handed over by an acceptor has nothing to pause.
    pub fn pause(&self, site: Option<usize>) {
        self.shared.order(Order::Pause { site });
    }

    /// Accept again after [`pause`](Self::pause), as soon as there is room.
    pub fn resume(&self, site: Option<usize>) {
        self.shared.order(Order::Resume { site });
    }

    /// The connections in the order of their slots, from the first behind `after` on: at most `limit` of them, and never more
    /// than [`MAX_PAGE`](crate::MAX_PAGE). The next page is what comes after the last of them; an empty page is the end. A
    /// loop that has ended has no connections.
    ///
    /// # Errors
    ///
    /// [`Unanswered`]: the loop did not answer within `timeout`, or others wait for it already.
    pub fn connections_page(
        &self,
        after: Option<ConnId>,
        limit: usize,
        timeout: Duration,
    ) -> Result<Vec<ConnInfo>, Unanswered> {
        let (answer, answered) = sync_channel(1);
        if !self.shared.ask(Question { after, limit, answer }) {
            return Err(Unanswered);
        }
        match answered.recv_timeout(timeout) {
            Ok(page) => Ok(page),
            Err(std::sync::mpsc::RecvTimeoutError::Timeout) => Err(Unanswered),
            // It has ended with the question unread.
            Err(std::sync::mpsc::RecvTimeoutError::Disconnected) => Ok(Vec::new()),
        }
    }

    /// Asks for an outgoing connection of the client `name`, as [`Io::connect`](crate::Io::connect) does. `N` is the `Note` of
    /// the client's service. A retiring loop still connects; one that ends first says so.
    ///
    /// # Errors
    ///
    /// [`ConnectError`]: nothing follows then.
    pub fn connect<N: Send + 'static>(
        &self,
        name: &str,
        connect: Connect,
        note: N,
    ) -> Result<(), ConnectError> {
        self.shared.dial(connect::dial(&self.shared.clients, name, connect, note)?)
    }

    /// The connections that this loop keeps open to an upstream, as [`Io::upstream`](crate::Io::upstream) has them.
    ///
    /// # Errors
    ///
    /// [`ConnectError::Unknown`] or [`ConnectError::WrongNote`].
    pub fn upstream<N: Send + 'static>(&self, name: &str) -> Result<Upstream<N>, ConnectError> {
        connect::upstream(&self.shared, name)
    }

    /// Closes one connection: what is queued is delivered first when the reason ends with FIN.
    ///
    /// # Errors
    ///
    /// [`HandleError`], as [`ConnHandle::close`](crate::ConnHandle::close).
    pub fn close(&self, id: ConnId, reason: Reason) -> Result<(), HandleError> {
        self.shared.post(id.0, Letter::Close(reason))
    }

    /// How many connections the loop has, with those that an [`Acceptor`](crate::Acceptor) has chosen it for and that it
    /// has not taken yet.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.intake.connections()
    }
}

/// A loop on a thread of its own.
#[derive(Debug)]
pub struct Running {
    handle: LoopHandle,
    thread: JoinHandle<io::Result<()>>,
}

impl Running {
    pub(crate) fn new(handle: LoopHandle, thread: JoinHandle<io::Result<()>>) -> Self {
        Self { handle, thread }
    }

    /// See [`LoopHandle::quit`].
    pub fn quit(&self, grace: Duration) {
        self.handle.quit(grace);
    }

    /// See [`LoopHandle::stop`].
    pub fn stop(&self) {
        self.handle.stop();
    }

    /// A handle that outlives this value.
    #[must_use]
    pub fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Whether the loop has ended.
    #[must_use]
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for the end of the loop.
    ///
    /// # Errors
    ///
    /// The loop's, or that it panicked, which is a bug of the engine.
    pub fn join(self) -> io::Result<()> {
        self.thread.join().unwrap_or_else(|_| Err(io::Error::other("the event loop panicked")))
    }
}
