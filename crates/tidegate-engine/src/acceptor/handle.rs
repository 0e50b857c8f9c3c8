//! `AcceptorHandle`: tells an acceptor and its loops to end, from any thread.
//!
//! The order goes to the acceptor first and from there to the loops, so that what it has accepted reaches them before.
//! When there is no acceptor any more, it goes to the loops at once: no order is lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::LoopHandle;
use crate::handle::Command;
use crate::intake::Room;

/// Ends an [`Acceptor`](crate::Acceptor) and the loops that it accepts for.
#[derive(Clone, Debug)]
pub struct AcceptorHandle {
    orders: Arc<Orders>,
}

impl AcceptorHandle {
    pub(super) fn new(orders: Arc<Orders>) -> Self {
        Self { orders }
    }

    /// Stop accepting: the loops get what the queues of the listeners hold, and are then told to end when their connections
    /// have, or after `grace`. See [`LoopHandle::quit`].
    pub fn quit(&self, grace: Duration) {
        self.orders.give(Command::Quit { grace });
    }

    /// Close everything and end, the loops too. See [`LoopHandle::stop`].
    pub fn stop(&self) {
        self.orders.give(Command::Stop);
    }
}

/// What an acceptor was told, and who is told next.
#[derive(Debug)]
pub(super) struct Orders {
    state: Mutex<State>,
    room: Arc<Room>,
    loops: Vec<LoopHandle>,
}

#[derive(Debug, Default)]
struct State {
    command: Option<Command>,
    /// Nobody accepts any more.
    ended: bool,
}

impl Orders {
    pub(super) fn new(room: Arc<Room>, loops: Vec<LoopHandle>) -> Self {
        Self { state: Mutex::default(), room, loops }
    }

    /// What is to be done now.
    pub(super) fn take(&self) -> Option<Command> {
        self.lock().command.take()
    }

    /// Nobody accepts any more; what was ordered since concerns the loops alone.
    pub(super) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let late = state.command.take();
        drop(state);
        if let Some(command) = late {
            self.tell_loops(command);
        }
    }

    fn give(&self, command: Command) {
        let mut state = self.lock();
        if state.ended {
            drop(state);
            return self.tell_loops(command);
        }
        // Told to stop, an acceptor does not wait for anybody, whatever it is told next.
        if state.command != Some(Command::Stop) {
            state.command = Some(command);
        }
        drop(state);
        self.room.wake();
    }

    pub(super) fn tell_loops(&self, command: Command) {
        self.loops.iter().for_each(|event_loop| event_loop.shared.command(command));
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic while the lock is held leaves a whole state: every change of it is one operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
