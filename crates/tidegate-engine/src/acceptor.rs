//! `Acceptor`: the main reactor, which accepts for several loops that serve, or for the loops of other processes.
//!
//! It has only listeners and its waker. For each connection it chooses a lane, a loop or a worker's channel, and counts the
//! connection in there; at the end of a turn each lane is given what was chosen for it: a loop in one post and with one wake,
//! a worker in messages of several descriptors. It never reads from a connection, knows no service, and makes no system call
//! for a loop that is awake.
//!
//! Invariant: between turns every connection that was accepted has been handed over, or is kept because the channels of all
//! workers are full; and listeners accept only while some lane has room and none is kept.

pub(crate) mod balance;
mod builder;
mod handle;
pub(crate) mod lane;

pub use balance::Balance;
pub use builder::AcceptorBuilder;
pub(crate) use builder::{check_sites, lanes_to_loops};
pub use handle::AcceptorHandle;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{Completion, Errno, ListenerId, Reactor};
use tidegate_timer::Instant;

use self::balance::Balancer;
use self::handle::Order;
use crate::accepting::{Accepting, LAST_ACCEPTS, Moment, Port};
use crate::handle::Command;
use crate::inbox::Inbox;
use crate::intake::{Arrival, Room};
use crate::metrics::{ListenerWord, ProcessMetrics, ProcessWord};

/// Accepts connections for loops. Made by [`AcceptorBuilder`]; [`run`](Self::run) returns when it was told to end.
pub struct Acceptor<R: Reactor> {
    reactor: R,
    accepting: Accepting,
    balancer: Balancer,
    /// Whether what no lane takes is kept until one does: a channel is full for a moment, a loop that refuses has ended.
    keeps: bool,
    /// Accepted, and not taken by any worker yet. At most what one turn has brought.
    kept: Vec<Arrival>,
    inbox: Arc<Inbox<Order>>,
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

/// How long an acceptor that is told to quit waits for workers whose channels are full.
pub const LAST_WAIT: Duration = Duration::from_secs(10);
/// Connections that an acceptor takes from a listener that it gives up before it hands them over.
const LAST_BATCH: usize = 64;
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
    /// acceptor, or that nobody will ever read any of the channels. The loops are not told to end then.
    pub fn run(&mut self) -> io::Result<()> {
        let outcome = self.turns();
        self.accepting.unlisten_all(&mut self.reactor);
        self.give_up();
        self.metrics.set(ProcessWord::TurnSince, 0);
        self.inbox.end();
        outcome
    }

    fn turns(&mut self) -> io::Result<()> {
        // A loop may have ended, and an order may have come, before anybody listened to them.
        let mut brought = Brought { woken: true, anything: false };
        loop {
            if brought.woken {
                for order in self.inbox.take_orders() {
                    self.carry_out(order);
                }
                if let Some(command) = self.inbox.take_command() {
                    return self.end(command);
                }
            }
            if !self.balancer.has_takers() {
                let whom = if self.keeps { "no worker" } else { "no event loop" };
                return Err(io::Error::other(format!("{whom} is left that takes connections")));
            }
            self.look_for_room(brought.woken);
            brought = self.turn(self.retry_at())?;
        }
    }

    /// One wait and what follows from it.
    fn turn(&mut self, deadline: Option<Instant>) -> Result<Brought, Errno> {
        self.metrics.set(ProcessWord::TurnSince, 0);
        self.reactor.wait(deadline)?;
        self.now = self.reactor.now();
        self.balancer.begin(self.now);
        self.metrics.begin_turn(self.now, || self.reactor.busy());
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
                | Completion::Connected(_)
                | Completion::Stalled(_)
                | Completion::Datagrams(_)
                | Completion::DatagramRoom(_)
                | Completion::Writable(_) => {
                    unreachable!("no connection is ever opened here")
                }
            }
        }
        self.hand_over();
        Ok(brought)
    }

    /// Chooses a lane for a connection. The last place taken, listeners are paused.
    fn assign(&mut self, arrival: Arrival) {
        if let Err(arrival) = self.balancer.assign(arrival) {
            self.not_taken(arrival);
        }
        self.fill_up_without_room();
    }

    /// Gives the lanes what was chosen for them. What one does not take goes to the others.
    fn hand_over(&mut self) {
        for arrival in self.balancer.hand_over() {
            self.not_taken(arrival);
        }
        self.fill_up_without_room();
    }

    fn fill_up_without_room(&mut self) {
        if self.has_room() {
            return;
        }
        let moment = self.moment();
        if self.keeps {
            self.accepting.back_up(&mut self.reactor, moment);
        } else {
            self.accepting.fill_up(&mut self.reactor, moment);
        }
    }

    fn has_room(&self) -> bool {
        self.kept.is_empty() && self.balancer.has_room()
    }

    /// There is no lane for a connection that was accepted.
    fn not_taken(&mut self, arrival: Arrival) {
        if self.keeps {
            return self.kept.push(arrival);
        }
        // The loop that had room has just ended, and the others are full.
        self.accepting.metrics_of(arrival.site).add(ListenerWord::Overloaded, 1);
        tracing::debug!(peer = %arrival.peer, "connection closed: the loop it was meant for has ended");
    }

    /// Tries again what was kept.
    fn offer_kept(&mut self) {
        if self.kept.is_empty() || !self.balancer.has_room() {
            return;
        }
        for arrival in std::mem::take(&mut self.kept) {
            if let Err(arrival) = self.balancer.assign(arrival) {
                self.kept.push(arrival);
            }
        }
        self.hand_over();
    }

    /// Nobody will take what is still kept.
    fn give_up(&mut self) {
        let lost = std::mem::take(&mut self.kept);
        if lost.is_empty() {
            return;
        }
        tracing::error!(
            connections = lost.len(),
            "connections closed: no worker took them before the acceptor ended"
        );
        for arrival in lost {
            self.accepting.metrics_of(arrival.site).add(ListenerWord::Overloaded, 1);
        }
    }

    fn on_accept_failed(&mut self, listener: ListenerId, error: tidegate_reactor::AcceptError) {
        let moment = self.moment();
        self.accepting.failed(&mut self.reactor, listener, error, moment);
    }

    /// When something is to be tried again that nobody reports.
    fn retry_at(&self) -> Option<Instant> {
        let channels = if self.accepting.is_full() { self.balancer.retry_at() } else { None };
        self.accepting.retry_at().into_iter().chain(channels).min()
    }

    /// Listeners that wait accept again when they may; otherwise the loops are asked to say so.
    fn look_for_room(&mut self, woken: bool) {
        if !self.accepting.is_waiting() {
            return;
        }
        if woken || self.retry_at().is_some_and(|at| at <= self.now) {
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
        self.offer_kept();
        if self.has_room() {
            self.accepting.resume(&mut self.reactor, self.now);
        } else {
            self.accepting.stay_paused();
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Adopt { key, site, socket } => self.accepting.adopt(&mut self.reactor, key, site, socket),
            Order::Release { key } => {
                for port in self.accepting.release(&mut self.reactor, key) {
                    if !self.accepting.is_paused(port.site) {
                        self.take_what_waits(port);
                    }
                    self.accepting.close(&mut self.reactor, port);
                }
            }
            Order::Pause { site } => {
                for port in self.accepting.pause_site(&mut self.reactor, site) {
                    self.take_what_waits(port);
                }
            }
            Order::Resume { site } => {
                self.accepting.resume_site(site);
                // Without room it stays as it is.
                if !self.accepting.is_waiting() {
                    self.accepting.resume(&mut self.reactor, self.now);
                }
            }
        }
    }

    /// Ends. The loops are told last, and whatever came of the rest.
    fn end(&mut self, command: Command) -> io::Result<()> {
        let outcome = match command {
            Command::Quit { grace } => {
                tracing::debug!(connections = self.balancer.connections(), ?grace, "the acceptor retires");
                self.accept_what_waits(self.now + grace.min(LAST_WAIT))
            }
            Command::Stop => Ok(()),
        };
        self.accepting.unlisten_all(&mut self.reactor);
        self.inbox.tell_loops(command);
        outcome.map_err(Into::into)
    }

    /// Takes what the queues hold, as far as the lanes have room, and hands it over. What arrives from now on wakes another
    /// process that polls the same sockets. A worker whose channel is full is waited for until `deadline`.
    fn accept_what_waits(&mut self, deadline: Instant) -> Result<(), Errno> {
        self.accepting.pause_all(&mut self.reactor);
        for _ in 0..LAST_TURNS {
            if !self.turn(Some(self.now))?.anything {
                break;
            }
        }
        for port in self.accepting.active_ports() {
            self.take_what_waits(port);
            while self.keeps && !self.has_room() && self.wait_for_workers(deadline)? {
                self.take_what_waits(port);
            }
        }
        self.wait_for_workers(deadline).map(drop)
    }

    /// Takes what waits at a paused socket, as far as there is room, and hands it over. A connection that waits in the
    /// kernel's queue can be left to others; one that the reactor has accepted cannot.
    fn take_what_waits(&mut self, port: Port) {
        for count in 1..=LAST_ACCEPTS {
            if !self.has_room() {
                break;
            }
            let Some(arrival) = self.accepting.accept_last(&mut self.reactor, port) else { break };
            self.assign(arrival);
            if count % LAST_BATCH == 0 {
                self.hand_over();
            }
        }
        while let Some(arrival) = self.accepting.take_accepted(&mut self.reactor, port) {
            self.assign(arrival);
        }
        self.hand_over();
    }

    /// Waits until the workers have taken what is kept and some channel has room; `false` when they do not in time.
    fn wait_for_workers(&mut self, deadline: Instant) -> Result<bool, Errno> {
        if !self.keeps {
            return Ok(self.has_room());
        }
        loop {
            self.offer_kept();
            if self.has_room() {
                return Ok(true);
            }
            let retry_at = self.balancer.retry_at().filter(|at| *at < deadline);
            if self.now >= deadline || !self.balancer.has_takers() || self.inbox.is_stopped() {
                return Ok(false);
            }
            self.turn(Some(retry_at.unwrap_or(deadline)))?;
        }
    }

    fn moment(&self) -> Moment {
        Moment { now: self.now, connections: self.balancer.connections() }
    }
}

impl<R: Reactor> Drop for Acceptor<R> {
    /// Whether it ran or not: an order that nobody has carried out goes to the loops.
    fn drop(&mut self) {
        self.inbox.end();
    }
}
