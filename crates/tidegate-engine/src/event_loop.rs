//! `Loop`: one thread's event loop: listeners, connections, deadlines and what follows from each completion.
//!
//! One turn: wait, handle a bounded batch of completions, go on with what was cut short, expire timers. A connection is
//! settled after each of its events: output sent, reading paused or resumed, deadline armed. Nothing here knows a
//! protocol, and only this thread touches its connections.
//!
//! Invariant: between events the batch in `turn` is empty, so that nothing meant for one peer reaches another.

use std::collections::VecDeque;
use std::sync::Arc;

use tidegate_reactor::{Completion, End, Errno, Reactor, Token};
use tidegate_timer::{Instant, TimerQueue};

use crate::accepting::{Accepting, Reports};
use crate::addresses::AddressCounts;
use crate::conn::{Conn, Missed, State};
use crate::datagram::Datagrams;
use crate::handle::Letter;
use crate::host::{Event, Hosted};
use crate::intake::Arrival;
use crate::io::{Site, Turn, security_of};
use crate::layered::Workspace;
use crate::metrics::{ProcessMetrics, ProcessWord};
use crate::order::Order;
use crate::sampler::Sampler;
use crate::spares::Spares;
use crate::wish::Wish;
use crate::{Flow, Reason};

mod accept;
pub(crate) mod away;
mod closing;
mod datagrams;
mod deadline;
mod flush;
mod greeting;
mod input;
mod latency;
pub(crate) mod layers;
mod letters;
mod orders;
pub(crate) mod outgoing;
pub(crate) mod relief;
mod retiring;
mod sealing;
mod slow;
mod ties;
pub(crate) mod upstreams;
pub(crate) mod visits;

/// Connections that are begun in a turn at the most: each costs some system calls.
const DIALS_IN_A_TURN: usize = 64;

/// An event loop over a reactor.
pub(crate) struct Loop<R: Reactor> {
    pub(crate) reactor: R,
    pub(crate) conns: crate::table::Table<Conn>,
    /// By listener: the service, and what its connections have in common.
    pub(crate) hosts: Vec<Box<dyn Hosted>>,
    pub(crate) sites: Vec<Arc<Site>>,
    pub(crate) turn: Turn,
    pub(crate) metrics: ProcessMetrics,
    /// Emptied letters' vector, swapped with the mailbox's.
    pub(crate) letters: Vec<(Token, Letter)>,
    /// The same for what an acceptor hands over.
    pub(crate) arrivals: Vec<Arrival>,
    /// The same for orders.
    pub(crate) orders: Vec<Order>,
    /// Connections that were accepted when there was no room for them, by a reactor that accepts ahead of what it is asked
    /// for.
    pub(crate) strays: VecDeque<Arrival>,
    /// Connections that were asked for and are not there yet.
    pub(crate) pending: outgoing::Pending,
    pub(crate) pools: Vec<upstreams::Pool>,
    /// Connections that go on without a completion, each once (`Conn::listed`); and those being gone on with.
    pub(crate) again: Vec<Token>,
    pub(crate) again_now: Vec<Token>,
    /// Emptied input buffers, for the next message that comes in pieces.
    pub(crate) spares: Spares,
    pub(crate) memory: relief::Memory,
    pub(crate) accepting: Accepting,
    pub(crate) datagrams: Datagrams,
    /// Handshakes of listeners that have a layer.
    pub(crate) handshakes: layers::Handshakes,
    /// What layers work with.
    pub(crate) work: Workspace,
    /// Who handles messages, when it is not this thread.
    pub(crate) crew: Option<away::Crew>,
    /// Connections that other threads serve, when they do that whole.
    pub(crate) visits: Option<visits::Visits>,
    pub(crate) stage: Stage,
    /// Not all services have been told yet that the loop retires.
    pub(crate) telling: Option<Telling>,
    /// Which batches' latencies are measured.
    pub(crate) sampler: Sampler,
    /// Connections of each address, where they are limited.
    pub(crate) addresses: AddressCounts,
    /// By the number of the reason.
    pub(crate) bad_peers: Box<[Reports; Reason::COUNT]>,
}

/// How far the loop is from its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Serving,
    /// Told to quit: listeners are gone, and what has already arrived is read in at most so many more turns.
    LastReads {
        until: Instant,
        turns: usize,
    },
    /// Services are told; connections end on their own until the deadline.
    Retiring {
        until: Instant,
    },
    Stopped,
}

/// How far the services have been told that the loop retires.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Telling {
    /// When the next of them are.
    at: Instant,
    /// The slot that is looked at next.
    from: u32,
}

impl<R: Reactor> std::fmt::Debug for Loop<R> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Loop")
            .field("connections", &self.conns.len())
            .field("stage", &self.stage)
            .finish_non_exhaustive()
    }
}

impl<R: Reactor> Loop<R> {
    /// Serves until it is told to stop, or to quit and all connections have ended.
    ///
    /// # Errors
    ///
    /// The kernel's, when the reactor cannot wait any more.
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        let outcome = self.turns();
        self.end();
        outcome.map_err(Into::into)
    }

    fn turns(&mut self) -> Result<(), Errno> {
        while !self.is_stopped() {
            let deadline = self.end_turn();
            self.reactor.wait(deadline)?;
            self.turn();
        }
        Ok(())
    }

    /// A turn, after a wait.
    pub(crate) fn turn(&mut self) {
        self.read_now();
        self.metrics.begin_turn(self.turn.now, || self.reactor.busy());
        let mut quiet = self.again.is_empty();
        while let Some(completion) = self.reactor.next() {
            quiet = false;
            self.complete(completion);
        }
        self.run_again();
        self.expire_timers();
        self.grant_wishes();
        self.retry_accepts();
        quiet &= !self.take_in_strays();
        self.advance_stage(quiet);
        self.relieve();
    }

    /// Something is done between two turns, which must not take long either.
    pub(crate) fn begin_work(&self) {
        self.metrics.set(ProcessWord::TurnSince, self.turn.now.as_nanos());
    }

    /// It is done.
    pub(crate) fn end_work(&self) {
        self.metrics.set(ProcessWord::TurnSince, 0);
    }

    /// Between turns: answers when the next one is due.
    pub(crate) fn end_turn(&mut self) -> Option<Instant> {
        self.end_work();
        self.due()
    }

    /// When the next turn is due at the latest.
    pub(crate) fn due(&self) -> Option<Instant> {
        let strays = !self.strays.is_empty() && !self.conns.is_full();
        // What was wished for behind the moment at which wishes are granted: by a stray, or by who was told of the end.
        let at_once = strays || !self.again.is_empty() || !self.turn.wishes.is_empty();
        if at_once { Some(self.turn.now) } else { self.next_deadline() }
    }

    /// All is over: ends what is left.
    pub(crate) fn end(&mut self) {
        // What waits in the queues is for whoever else has the sockets.
        self.accepting.unlisten_all(&mut self.reactor);
        self.end_datagrams();
        self.end_all(Reason::STOPPED);
        self.cancel_visits();
        self.await_returns();
        self.end_mail();
        // Nobody is to take it for a loop that is stuck.
        self.end_work();
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stage == Stage::Stopped
    }

    fn read_now(&mut self) {
        self.turn.now = self.reactor.now();
        self.turn.unix_time = self.reactor.unix_time();
    }

    fn next_deadline(&self) -> Option<Instant> {
        let stage = match self.stage {
            // Whoever brings the last visit back goes on with the last reads.
            Stage::LastReads { until, turns }
                if turns > 0 && self.visits.as_ref().is_some_and(|visits| visits.out > 0) =>
            {
                Some(until)
            }
            Stage::LastReads { .. } => Some(self.turn.now),
            // The last connection may have ended between two turns, when another thread gave it back.
            Stage::Retiring { .. } if self.conns.len() == 0 && self.strays.is_empty() => Some(self.turn.now),
            Stage::Retiring { until } => Some(until),
            Stage::Serving | Stage::Stopped => None,
        };
        let telling = self.telling.map(|telling| telling.at);
        [self.turn.timers.next_deadline(), self.accepting.retry_at(), stage, telling]
            .into_iter()
            .flatten()
            .min()
    }

    fn complete(&mut self, completion: Completion) {
        match completion {
            Completion::Received(token) => self.on_received(token),
            Completion::Connected(token) => self.on_connected(token),
            Completion::Writable(token) => self.on_writable(token),
            Completion::Ready(token) => self.on_ready(token),
            Completion::Stalled(token) => self.on_stalled(token),
            Completion::Ended(token) => self.on_fin(token),
            Completion::Failed(token, errno) => self.on_failed(token, errno),
            Completion::Accepted { listener, socket, peer } => self.on_accepted(listener, socket, peer),
            Completion::AcceptFailed { listener, error } => self.on_accept_failed(listener, error),
            Completion::Datagrams(id) => self.on_datagrams(id),
            Completion::DatagramRoom(id) => self.on_datagram_room(id),
            Completion::Woken => self.on_woken(),
        }
    }

    /// Does what callbacks have asked for, now that no event is at hand.
    #[inline]
    pub(crate) fn grant_wishes(&mut self) {
        if !self.turn.wishes.is_empty() {
            self.grant_some_wishes();
        }
    }

    /// Begins with a bounded number of connections; the rest is the next turn's work.
    fn grant_some_wishes(&mut self) {
        for _ in 0..DIALS_IN_A_TURN {
            loop {
                match self.turn.wishes.pop_front() {
                    Some(Wish::Tie(tie)) => self.tie(tie),
                    Some(Wish::Connect(dial)) => break self.dial(dial),
                    None => return,
                }
            }
        }
    }

    /// Goes on with the connections that were cut short. What is cut anew is the next turn's work: a peer that keeps
    /// the loop busy must neither deepen the stack nor keep the others waiting.
    fn run_again(&mut self) {
        std::mem::swap(&mut self.again, &mut self.again_now);
        for index in 0..self.again_now.len() {
            self.go_on(self.again_now[index]);
        }
        self.again_now.clear();
    }

    /// Sends what the last turn's share did not cover, and lets a connection go on whose output has been taken.
    fn go_on(&mut self, token: Token) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        conn.listed = false;
        if conn.state == State::Handshaking {
            return self.handshake(token);
        }
        if conn.send_later && self.drain(token).is_none() {
            return;
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        if conn.awaits_sent && is_sent(conn, &mut self.reactor) {
            conn.awaits_sent = false;
            self.event(token, Event::Sent);
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        let low_water = self.sites[usize::from(conn.site)].limits.low_water_bytes;
        let freed = conn.squeezed && !self.memory.squeezes(conn);
        conn.squeezed &= !freed;
        if conn.over_water && conn.state == State::Open && conn.queued_weight() <= low_water {
            conn.over_water = false;
            return self.event(token, Event::Drained);
        }
        if freed {
            // What it has sent before it was not heard any more is handled now.
            self.pump(token);
            return self.tell_eof(token);
        }
        self.settle(token);
    }

    /// Tells the service of something, then handles input that the answer may have set free.
    fn event(&mut self, token: Token, event: Event) {
        self.notify(token, event);
        self.pump(token);
        self.tell_eof(token);
    }

    /// Calls a callback that takes no input, and does what it answers.
    fn notify(&mut self, token: Token, event: Event) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        let ending = matches!(conn.state, State::Flushing(_) | State::Lingering(_));
        if conn.state != State::Open && !(ending && matches!(event, Event::Sent)) {
            return;
        }
        if conn.away {
            return conn.miss(Missed::Event(event));
        }
        let site = &self.sites[usize::from(conn.site)];
        let host = &mut self.hosts[usize::from(conn.site)];
        let queued = conn.queued();
        let mut io = self.turn.io(&conn.who, queued, site);
        io.security = security_of(&conn.aside);
        let flow = host.call(conn.session, &mut io, event);
        self.turn.carry_out(conn);
        self.apply(token, flow);
    }

    /// Does what a callback answered.
    fn apply(&mut self, token: Token, flow: Flow) {
        let Some(conn) = self.conns.get_mut(token) else { return };
        match flow {
            Flow::Continue => {}
            Flow::Suspend => conn.suspended = true,
            Flow::CloseAfterFlush(reason) => {
                if conn.state == State::Open {
                    conn.state = State::Flushing(reason);
                    conn.input = Vec::new();
                    self.leave_pool(token);
                }
            }
            Flow::Abort(reason) => {
                // FIN follows the answers to the messages before this one; a reset throws them away.
                if reason.end() == End::Reset || self.flush(token) {
                    self.close(token, reason, None);
                }
                return;
            }
        }
        self.settle(token);
    }

    /// After each event: sends what gathered, then adjusts reading, deadlines and the end.
    fn settle(&mut self, token: Token) {
        if !self.flush(token) {
            return;
        }
        let Some(conn) = self.conns.get_mut(token) else { return };
        let conn = if matches!(conn.state, State::Flushing(_) | State::Tied) {
            if !self.settle_special(token) {
                return;
            }
            let Some(conn) = self.conns.get_mut(token) else { return };
            conn
        } else {
            conn
        };
        // Of a connection that is lent the reactor knows nothing; it is settled once more when it is back.
        let lent = conn.away && self.visits.is_some();
        let limits = &self.sites[usize::from(conn.site)].limits;
        let drained =
            conn.over_water && conn.state == State::Open && conn.queued_weight() <= limits.low_water_bytes;
        let short = self.memory.squeezes(conn);
        let freed = conn.squeezed && !short;
        conn.squeezed |= short;
        let sent = conn.awaits_sent && is_sent(conn, &mut self.reactor);
        if (drained || freed || sent || conn.send_later) && !conn.listed && !lent {
            conn.listed = true;
            self.again.push(token);
        }
        // While a message is handled what follows it is read ahead, up to the limit.
        let ahead = conn.away && conn.input.len() >= limits.max_input_bytes;
        let weighed = conn.input_bytes() == conn.weighed;
        let hold = conn.is_held() || ahead || self.memory.starves(conn);
        if hold != conn.reading_paused && !lent {
            conn.reading_paused = hold;
            if hold {
                self.reactor.pause(token);
            } else {
                // The peer could not be heard meanwhile, so its time begins anew.
                conn.reading.since = self.turn.now;
                if let Some(pace) = conn.pace_mut() {
                    pace.interrupt();
                }
                self.reactor.resume(token);
            }
        }
        if weighed {
            deadline::arm(conn, limits, &mut self.turn, &mut self.reactor);
        } else if self.weigh(token) {
            self.arm_deadline(token);
        }
    }

    /// Goes on with a connection that says its last words, or is tied. False when it is settled with that.
    fn settle_special(&mut self, token: Token) -> bool {
        let Some(conn) = self.conns.get_mut(token) else { return false };
        let State::Flushing(reason) = conn.state else {
            self.settle_tied(token);
            return true;
        };
        if conn.output.is_none() {
            if !self.reactor.unsent(token) {
                if self.close_layer(token) {
                    self.begin_lingering(token, reason);
                    return false;
                }
            } else {
                self.reactor.await_writable(token);
            }
        }
        true
    }
}

/// Whether the kernel has all output of a connection. What the reactor still has of it is waited for. While the session is
/// away it may be sending more: that is told when it is back.
fn is_sent(conn: &Conn, reactor: &mut impl Reactor) -> bool {
    if conn.away || conn.output.is_some() || conn.unheard.is_some() {
        return false;
    }
    let unsent = reactor.unsent(conn.who.id);
    if unsent {
        reactor.await_writable(conn.who.id);
    }
    !unsent
}
