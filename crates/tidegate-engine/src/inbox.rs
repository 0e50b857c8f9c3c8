//! `Inbox`: what an acceptor or a receiver was told, and which loops are told next.
//!
//! The command to end goes to it first and from there to the loops, so that what it has for them reaches them before. When
//! it has ended already, the command goes to the loops at once: no command is lost. Orders are carried out one after the
//! other, and those that come after the end are for nobody.

use std::fmt::Debug;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::LoopHandle;
use crate::handle::Command;
use crate::intake::Room;
use crate::order::MAX_ORDERS;

/// Between the handles of an acceptor or a receiver and its thread. `O`: what it can be told to do in passing.
#[derive(Debug)]
pub(crate) struct Inbox<O> {
    state: Mutex<State<O>>,
    room: Arc<Room>,
    loops: Vec<LoopHandle>,
}

#[derive(Debug)]
struct State<O> {
    command: Option<Command>,
    orders: Vec<O>,
    /// Nobody is there any more.
    ended: bool,
}

impl<O: Debug> Inbox<O> {
    pub(crate) fn new(room: Arc<Room>, loops: Vec<LoopHandle>) -> Self {
        let state = State { command: None, orders: Vec::new(), ended: false };
        Self { state: Mutex::new(state), room, loops }
    }

    /// Whether and how it is to end.
    pub(crate) fn take_command(&self) -> Option<Command> {
        self.lock().command.take()
    }

    /// Whether it is to end at once.
    pub(crate) fn is_stopped(&self) -> bool {
        self.lock().command == Some(Command::Stop)
    }

    /// What is to be done in passing.
    pub(crate) fn take_orders(&self) -> Vec<O> {
        std::mem::take(&mut self.lock().orders)
    }

    /// Nobody is there any more; what was commanded since concerns the loops alone.
    pub(crate) fn end(&self) {
        let mut state = self.lock();
        state.ended = true;
        let (late, orders) = (state.command.take(), std::mem::take(&mut state.orders));
        drop(state);
        drop(orders);
        if let Some(command) = late {
            self.tell_loops(command);
        }
    }

    /// Tells it to end.
    pub(crate) fn command(&self, command: Command) {
        let mut state = self.lock();
        if state.ended {
            drop(state);
            return self.tell_loops(command);
        }
        // Told to stop, it does not wait for anybody, whatever it is told next.
        if state.command != Some(Command::Stop) {
            state.command = Some(command);
        }
        drop(state);
        self.room.wake();
    }

    /// Has something done in passing.
    pub(crate) fn order(&self, order: O) {
        let mut state = self.lock();
        if state.ended {
            return;
        }
        if state.orders.len() >= MAX_ORDERS {
            drop(state);
            return tracing::error!(?order, "{MAX_ORDERS} orders wait to be carried out; this one is lost");
        }
        state.orders.push(order);
        drop(state);
        self.room.wake();
    }

    pub(crate) fn tell_loops(&self, command: Command) {
        self.loops.iter().for_each(|event_loop| event_loop.shared.command(command));
    }

    fn lock(&self) -> MutexGuard<'_, State<O>> {
        // A panic while the lock is held leaves a whole state: every change of it is one operation.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
