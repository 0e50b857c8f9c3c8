//! `Receiver`: takes over the connections that an acceptor in another process hands over, for the loops of this one.
//!
//! It reads the worker's channel, and those of absent neighbours that it has adopted, checks what comes, and gives each
//! connection to a loop by a [`Balance`](crate::Balance), as an [`Acceptor`](crate::Acceptor) within the process would. While the loops are full
//! it does not read: the channel fills, and the acceptor passes this worker over. While descriptors are short it tells peers so
//! whose service has an answer for it; those of the others wait in the channel, and so do those behind them: see
//! `receiver::shortage`.
//!
//! What is in a channel outlives the worker. A worker that is killed takes with it what its loops have, and what it has
//! received in the same turn: 256 connections at the most.
//!
//! Invariant: a connection that was received is with a loop, or in `kept` until one has room; and nothing is received while
//! anything is kept. What a message says is not trusted: one that is malformed costs its own connections and no others.

mod builder;
mod descriptors;
mod handle;
mod inlet;
mod shortage;

pub use builder::ReceiverBuilder;
pub use handle::ReceiverHandle;

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use tidegate_reactor::{Errno, Watch, Watched};
use tidegate_sys::fd_channel::{Received, check_connection};
use tidegate_timer::Instant;

use self::descriptors::Descriptors;
use self::handle::Order;
use self::inlet::Inlets;
use self::shortage::next_batch;
use crate::accepting::{RETRY_AFTER, Reports};
use crate::acceptor::balance::Balancer;
use crate::handle::Command;
use crate::handover::{BATCH, MESSAGE_BYTES, Origin, decode};
use crate::inbox::Inbox;
use crate::intake::{Arrival, Handed, Room};
use crate::metrics::{ListenerWord, ProcessMetrics, ProcessWord};

/// Receives connections for loops. Made by [`ReceiverBuilder`]; [`run`](Self::run) returns when it was told to end.
#[derive(Debug)]
pub struct Receiver {
    watch: Watch,
    inlets: Inlets,
    balancer: Balancer,
    /// The listeners of the loops.
    sites: Vec<Handed>,
    /// Received, and no loop had room. At most what one message has brought, and what loops that ended have not taken.
    kept: Vec<Arrival>,
    /// Somebody else reads the channels for the time being.
    paused: bool,
    /// At the end, channels are read until they have ended, or until then.
    awaits_end: Option<Instant>,
    /// Descriptors are short, and when to look again.
    exhausted: Option<Instant>,
    descriptors: Descriptors,
    inbox: Arc<Inbox<Order>>,
    room: Arc<Room>,
    metrics: ProcessMetrics,
    now: Instant,
    message: Box<[u8; MESSAGE_BYTES]>,
    fds: Vec<OwnedFd>,
    origins: Vec<Origin>,
    malformed: Reports,
    shortages: Reports,
}

/// Messages that are read from one channel in one turn.
const MESSAGES_PER_TURN: usize = 16;
/// An acceptor that ends has handed over all that it has accepted by then.
const ACCEPTOR_ENDS_WITHIN: Duration = Duration::from_secs(3);
/// So many free descriptors need not be counted again for each message.
const AMPLE: usize = 1024;

impl Receiver {
    /// Receives until it is told to end by its [`ReceiverHandle`]. The loops are then told the same.
    ///
    /// # Errors
    ///
    /// The kernel's, when it cannot wait any more, or that every loop has ended or was told to without this receiver. The
    /// loops are not told to end then.
    pub fn run(&mut self) -> io::Result<()> {
        let outcome = self.turns();
        self.give_up();
        self.metrics.set(ProcessWord::TurnSince, 0);
        self.inbox.end();
        outcome
    }

    fn turns(&mut self) -> io::Result<()> {
        loop {
            for order in self.inbox.take_orders() {
                self.carry_out(order);
            }
            if let Some(command) = self.inbox.take_command() {
                return self.end(command);
            }
            self.check_takers()?;
            self.review();
            self.turn(self.exhausted)?;
        }
    }

    fn check_takers(&self) -> io::Result<()> {
        if self.balancer.has_takers() {
            return Ok(());
        }
        Err(io::Error::other("no event loop is left that takes connections"))
    }

    /// One wait and what follows from it. Answers whether there was anything to read.
    fn turn(&mut self, deadline: Option<Instant>) -> Result<bool, Errno> {
        self.metrics.set(ProcessWord::TurnSince, 0);
        self.watch.wait(deadline)?;
        self.now = self.watch.now();
        self.balancer.begin(self.now);
        self.metrics.begin_turn(self.now, || self.watch.busy());
        if self.exhausted.is_some_and(|at| at <= self.now) {
            self.exhausted = None;
        }
        let mut anything = false;
        while let Some(watched) = self.watch.next_event() {
            match watched {
                // A connection may have ended, and with it a descriptor come free.
                Watched::Woken => self.exhausted = None,
                Watched::Readable(id) => anything |= self.read(id),
            }
        }
        self.hand_over();
        Ok(anything)
    }

    /// Reads a channel as far as there is room. Answers whether there was anything.
    fn read(&mut self, id: u64) -> bool {
        let mut free = 0;
        for count in 0..MESSAGES_PER_TURN {
            if !self.may_read() {
                break;
            }
            if free < AMPLE {
                self.descriptors.fill_reserve();
                free = self.descriptors.free(self.balancer.connections());
            }
            if free < BATCH && !self.make_way(id, free) {
                break;
            }
            // One that was closed earlier in the turn is not there any more.
            let Some(inlet) = self.inlets.find(id) else { return count > 0 };
            match inlet.channel.recv(&mut self.message[..], &mut self.fds) {
                Ok(Received::Message { len }) => {
                    let received = self.fds.len();
                    self.admit(len, free);
                    free = free.saturating_sub(received);
                }
                Ok(Received::Empty) => return count > 0,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => self.report_malformed(&error),
                Ok(Received::Closed) => {
                    // As it should when whoever handed over has ended: what was in the channel has been read.
                    tracing::debug!(key = inlet.key, "a channel of connections has ended");
                    self.inlets.close(&mut self.watch, id);
                }
                Err(error) => {
                    tracing::error!(key = inlet.key, %error, "a channel of connections is broken, and is closed");
                    self.inlets.close(&mut self.watch, id);
                }
            }
        }
        true
    }

    /// Takes the connections of a message over: as many as there were descriptors, and the others are told.
    fn admit(&mut self, len: usize, free: usize) {
        let mut fds = std::mem::take(&mut self.fds);
        let mut origins = std::mem::take(&mut self.origins);
        match decode(&self.message[..len], fds.len(), self.sites.len(), &mut origins) {
            Ok(()) => {
                let mut room = free.saturating_sub(self.unanswered(&origins));
                for (socket, origin) in fds.drain(..).zip(origins.drain(..)) {
                    let refusal = self.sites[origin.site].overload_answer.filter(|_| room == 0);
                    if self.sites[origin.site].overload_answer.is_some() {
                        room = room.saturating_sub(1);
                    }
                    self.admit_one(socket, origin, refusal);
                }
            }
            Err(malformed) => self.report_malformed(&malformed),
        }
        // Those of a message that was refused are closed.
        fds.clear();
        (self.fds, self.origins) = (fds, origins);
    }

    /// Takes a connection over, or tells its peer that there is no descriptor for it.
    fn admit_one(&mut self, socket: OwnedFd, Origin { site, peer }: Origin, refusal: Option<&[u8]>) {
        // The loop must not wait in a receive, whoever made the socket.
        let fit = check_connection(&socket)
            .and_then(|()| rustix::io::ioctl_fionbio(&socket, true).map_err(Into::into));
        match (fit, refusal) {
            (Ok(()), Some(answer)) => self.refuse(&socket, site, answer),
            (Ok(()), None) => {
                if let Err(arrival) = self.balancer.assign(Arrival { site, socket, peer }) {
                    self.kept.push(arrival);
                }
            }
            // Its peer has reset it on the way, or it never had one: nobody would be served.
            (Err(error), _) if error.kind() == io::ErrorKind::NotConnected => {
                self.metrics.listener(site).add(ListenerWord::AcceptLost, 1);
            }
            (Err(error), _) => self.report_malformed(&error),
        }
    }

    fn hand_over(&mut self) {
        self.kept.append(&mut self.balancer.hand_over());
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

    /// Reads when it may, and otherwise asks to be told when a connection has ended.
    fn review(&mut self) {
        self.offer_kept();
        let waits = !self.kept.is_empty() || !self.paused;
        if waits && !self.may_read() {
            self.room.ask();
            // One may have ended before anybody asked.
            self.offer_kept();
        }
        let may_read = self.may_read();
        if may_read {
            self.room.forget();
        }
        if self.inlets.watch_all(&mut self.watch, may_read).is_err() {
            // Without memory for it nothing is reported; it is tried again.
            self.exhausted = Some(self.now + RETRY_AFTER);
        }
    }

    fn may_read(&self) -> bool {
        !self.paused && self.exhausted.is_none() && self.kept.is_empty() && self.balancer.has_room()
    }

    fn report_malformed(&mut self, error: &dyn std::fmt::Display) {
        self.metrics.add(ProcessWord::HandoverErrors, 1);
        if let Some(suppressed) = self.malformed.pass(self.now) {
            tracing::error!(%error, suppressed, "what was handed over is no connection, and closed");
        }
    }

    fn carry_out(&mut self, order: Order) {
        match order {
            Order::Adopt { key, channel } => self.inlets.add(Some(key), channel),
            Order::Release { key } => self.inlets.release(&mut self.watch, key),
            Order::Pause => self.paused = true,
            Order::Resume => self.paused = false,
            Order::AwaitEnd => self.awaits_end = Some(self.watch.now() + ACCEPTOR_ENDS_WITHIN),
        }
    }

    /// Ends. The loops are told last, and whatever came of the rest.
    fn end(&mut self, command: Command) -> io::Result<()> {
        let mut ending = Ending::new(command, self.now);
        let outcome = self.drain(&mut ending);
        self.inbox.tell_loops(ending.command(self.now));
        outcome
    }

    /// Reads the channels until they are empty: what an acceptor that has ended has left there, or one that is awaited brings. The loops serve meanwhile, so
    /// that places come free; told again, it goes by what it is told last.
    fn drain(&mut self, ending: &mut Ending) -> io::Result<()> {
        loop {
            self.inbox.take_orders().into_iter().for_each(|order| self.carry_out(order));
            self.paused = false;
            if let Some(command) = self.inbox.take_command() {
                *ending = Ending::new(command, self.now);
            }
            let Ending::By { until, .. } = *ending else { return Ok(()) };
            self.check_takers()?;
            self.review();
            let reads = self.inlets.are_watched();
            let awaited = self.awaits_end.filter(|at| *at > self.now && self.inlets.iter().next().is_some());
            let wait_until = match (reads, awaited) {
                (true, Some(end)) => end.min(until),
                // A turn that does not wait, while there may be something.
                (true, None) => self.now,
                (false, _) => self.exhausted.map_or(until, |at| at.min(until)),
            };
            let anything = self.turn(Some(wait_until))?;
            if reads && awaited.is_none() && !anything && self.kept.is_empty() {
                return Ok(());
            }
            if self.now >= until {
                self.report_left();
                return Ok(());
            }
        }
    }

    /// It ends, and a channel is not empty.
    fn report_left(&self) {
        if self.inlets.iter().any(|inlet| next_batch(&inlet.channel) > 0) {
            tracing::error!("connections are left in the channel: no loop had room before the end");
        }
    }

    /// No loop will take what is still kept.
    fn give_up(&mut self) {
        let lost = std::mem::take(&mut self.kept);
        if lost.is_empty() {
            return;
        }
        tracing::error!(connections = lost.len(), "connections closed: no loop had room before the end");
        for arrival in lost {
            self.metrics.listener(arrival.site).add(ListenerWord::Overloaded, 1);
        }
    }
}

/// How it is to end.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Now,
    By { until: Instant, limited: bool },
}

impl Ending {
    fn new(command: Command, now: Instant) -> Self {
        match command {
            Command::Stop => Self::Now,
            Command::Quit { grace } => Self::By { until: now + grace, limited: grace < Duration::MAX },
        }
    }

    /// What the loops are told. No limit stays none.
    fn command(self, now: Instant) -> Command {
        match self {
            Self::Now => Command::Stop,
            Self::By { limited: false, .. } => Command::Quit { grace: Duration::MAX },
            Self::By { until, .. } => Command::Quit { grace: until.saturating_duration_since(now) },
        }
    }
}

impl Drop for Receiver {
    /// Whether it ran or not: a command that nobody has carried out goes to the loops.
    fn drop(&mut self) {
        self.inbox.end();
    }
}
