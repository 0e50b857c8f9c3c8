//! `Acceptor`: the main reactor, which accepts for several loops that serve.
//!
//! It has only listeners and its waker. For each connection it chooses a loop and counts the connection in there; at the end
//! of a turn each loop is given what was chosen for it, in one post and with one wake. It never reads from a connection,
//! knows no service, and makes no system call for a loop that is awake.
//!
//! Invariant: between turns every connection that was accepted has been handed over, and listeners accept only while
//! some loop has room.

mod balance;
mod builder;
mod handle;

pub use balance::Balance;
pub use builder::AcceptorBuilder;
pub use handle::AcceptorHandle;

use std::io;
use std::sync::Arc;

use tidegate_reactor::{Completion, Errno, ListenerId, Reactor};
use tidegate_timer::Instant;

use self::balance::Balancer;
use self::handle::Orders;
use crate::accepting::{Accepting, LAST_ACCEPTS, Moment};
use crate::handle::Command;
use crate::intake::{Arrival, Room};
use crate::metrics::{ListenerWord, ProcessMetrics, ProcessWord};

/// Accepts connections for loops. Made by [`AcceptorBuilder`]; [`run`](Self::run) returns when it was told to end.
pub struct Acceptor<R: Reactor> {
    reactor: R,
    accepting: Accepting,
    balancer: Balancer,
    orders: Arc<Orders>,
    room: Arc<Room>,
    metrics: ProcessMetrics,
    now: Instant,
}

/// What a turn has brought.
#[derive(Clone, Copy, Debug, Default)]
struct Brought {
    /// The waker was used: there is an order, or room, or a loop less.
    woken: bool,
    /// Something had happened at a listener.
    anything: bool,
}

/// Turns in which a reactor whose accepts are under way reports what they have brought before they were called off.
const LAST_TURNS: usize = 64;

impl<R: Reactor> std::fmt::Debug for Acceptor<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Acceptor").field("balancer", &self.balancer).finish_non_exhaustive()
    }
}

impl<R: Reactor> Acceptor<R> {
    /// Accepts until it is told to end by its [`AcceptorHandle`]. The loops are then told the same.
    ///
    /// # Errors
    ///
    /// The kernel's, when the reactor cannot wait any more, or that every loop has ended or was told to without this
    /// acceptor. The loops are not told to end then.
    pub fn run(&mut self) -> io::Result<()> {
        let outcome = self.turns();
        self.accepting.unlisten_all(&mut self.reactor);
        self.metrics.set(ProcessWord::TurnSince, 0);
        self.orders.end();
        outcome
    }

    fn turns(&mut self) -> io::Result<()> {
        // A loop may have ended, and an order may have come, before anybody listened to them.
        let mut brought = Brought { woken: true, anything: false };
        loop {
            if brought.woken {
                if let Some(order) = self.orders.take() {
                    return self.carry_out(order);
                }
                if !self.balancer.has_takers() {
                    return Err(io::Error::other("no event loop is left that takes connections"));
                }
            }
            self.look_for_room(brought.woken);
            brought = self.turn(self.accepting.retry_at())?;
        }
    }

    /// One wait and what follows from it.
    fn turn(&mut self, deadline: Option<Instant>) -> Result<Brought, Errno> {
        self.metrics.set(ProcessWord::TurnSince, 0);
        self.reactor.wait(deadline)?;
        self.now = self.reactor.now();
        self.metrics.set(ProcessWord::TurnSince, self.now.as_nanos());
        if self.metrics.get(ProcessWord::LoopTurns) > 0 {
            self.metrics.record_turn(self.reactor.busy());
        }
        self.metrics.add(ProcessWord::LoopTurns, 1);
        let mut brought = Brought::default();
        while let Some(completion) = self.reactor.next() {
            match completion {
                Completion::Accepted { listener, socket, peer } => {
                    brought.anything = true;
                    if let Some(site) = self.accepting.site_of(listener) {
                        self.assign(Arrival { site, socket, peer });
                    }
                }
                Completion::AcceptFailed { listener, error } => {
                    brought.anything = true;
                    self.on_accept_failed(listener, error);
                }
                Completion::Woken => brought.woken = true,
                Completion::Received(_)
                | Completion::Ended(_)
                | Completion::Failed(..)
                | Completion::Ready(_)
                | Completion::Stalled(_)
                | Completion::Writable(_) => {
                    unreachable!("no connection is ever opened here")
                }
            }
        }
        self.hand_over();
        Ok(brought)
    }

    /// Chooses a loop for a connection. The last place taken, listeners are paused.
    fn assign(&mut self, arrival: Arrival) {
        if let Err(arrival) = self.balancer.assign(arrival) {
            self.turn_away(&arrival);
        }
        if !self.balancer.has_room() {
            let moment = self.moment();
            self.accepting.fill_up(&mut self.reactor, moment);
        }
    }

    /// Gives the loops what was chosen for them. What a loop does not take, because it ends, goes to the others.
    fn hand_over(&mut self) {
        for arrival in &self.balancer.hand_over() {
            self.turn_away(arrival);
        }
    }

    /// There is no loop for a connection that was accepted: the loop that had room has just ended, and the others are full.
    fn turn_away(&self, arrival: &Arrival) {
        self.accepting.metrics_of(arrival.site).add(ListenerWord::Overloaded, 1);
        tracing::debug!(peer = %arrival.peer, "connection closed: the loop it was meant for has ended");
    }

    fn on_accept_failed(&mut self, listener: ListenerId, error: tidegate_reactor::AcceptError) {
        let moment = self.moment();
        self.accepting.failed(&mut self.reactor, listener, error, moment);
    }

    /// Listeners that wait accept again when they may; otherwise the loops are asked to say so.
    fn look_for_room(&mut self, woken: bool) {
        if !self.accepting.is_waiting() {
            return;
        }
        if woken || self.accepting.is_retry_due(self.now) {
            self.resume();
        }
        if self.accepting.is_waiting() {
            self.room.ask();
            if self.accepting.is_full() {
                // A connection may have ended before anybody asked.
                self.resume();
            }
        }
        if !self.accepting.is_waiting() {
            self.room.forget();
        }
    }

    fn resume(&mut self) {
        if self.balancer.has_room() {
            self.accepting.resume(&mut self.reactor, self.now);
        } else {
            self.accepting.stay_paused();
        }
    }

    /// Ends. The loops are told last, and whatever came of the rest.
    fn carry_out(&mut self, order: Command) -> io::Result<()> {
        let outcome = match order {
            Command::Quit { grace } => {
                tracing::debug!(connections = self.balancer.connections(), ?grace, "the acceptor retires");
                self.accept_what_waits()
            }
            Command::Stop => Ok(()),
        };
        self.accepting.unlisten_all(&mut self.reactor);
        self.orders.tell_loops(order);
        outcome.map_err(Into::into)
    }

    /// Takes what the queues hold, as far as the loops have room, and hands it over. What arrives from now on wakes another
    /// process that polls the same sockets.
    fn accept_what_waits(&mut self) -> Result<(), Errno> {
        self.accepting.pause_all(&mut self.reactor);
        for _ in 0..LAST_TURNS {
            if !self.turn(Some(self.now))?.anything {
                break;
            }
        }
        for site in 0..self.accepting.sites() {
            for _ in 0..LAST_ACCEPTS {
                if !self.balancer.has_room() {
                    break;
                }
                let Some(arrival) = self.accepting.accept_last(&mut self.reactor, site) else { break };
                self.assign(arrival);
            }
        }
        self.hand_over();
        Ok(())
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, connections: self.balancer.connections() }
    }
}

impl<R: Reactor> Drop for Acceptor<R> {
    /// Whether it ran or not: an order that nobody has carried out goes to the loops.
    fn drop(&mut self) {
        self.orders.end();
    }
}
