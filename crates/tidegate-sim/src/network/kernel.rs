//! `Kernel`: the simulated kernel and clock, and the world outside that acts on it.
//!
//! Invariant: time moves in waits only, and what is reported was so when it is reported. Everything that is ready is
//! reported after a bounded number of turns, in any order.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_engine::{HandlerSteps, Instant, LoopHandle, QueuedMessage};
use tidegate_reactor::{AcceptError, Errno, Token};

use super::dial_plan::TargetIs;
use super::dialling::Upstream;
use super::ledger::SharedLedger;
use super::peer::Peer;
use super::plan::{Knobs, Lack, Plan, What};
use super::socket::{Side, Socket};
use crate::random::Random;

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) plan: Arc<Plan>,
    pub(crate) ledger: SharedLedger,
    pub(crate) knobs: Knobs,
    pub(crate) random: Random,
    pub(crate) now: Instant,
    pub(crate) unix_time: u64,
    pub(crate) ports: Vec<Port>,
    pub(crate) sockets: BTreeMap<u32, Socket>,
    pub(crate) peers: BTreeMap<u32, Peer>,
    /// Descriptors that were handed out and not come back.
    pub(crate) accepted: BTreeMap<RawFd, u32>,
    pub(crate) tokens: BTreeMap<(u32, u32), u32>,
    /// Every descriptor that is handed out is a copy of this end of a pipe, so that its other end shows when all are gone.
    pub(crate) leash: OwnedFd,
    /// What is reported in this turn.
    pub(crate) turn: Vec<Item>,
    pub(crate) received: Vec<u8>,
    pub(crate) woken: Arc<AtomicBool>,
    /// What will happen; the number keeps events of one time in their order.
    pub(crate) coming: BTreeMap<(Instant, u64), Coming>,
    sequence: u64,
    pub(crate) pool: Option<Pool>,
    pub(crate) upstream: Option<Upstream>,
    pub(crate) handle: Option<LoopHandle>,
    /// There is none of it until then.
    pub(crate) lack: Option<(Lack, Instant)>,
    /// Turns since everything that was ready was reported.
    passed_over: u32,
    /// Turns in a row in which nothing was reported and nothing happened.
    pub(crate) empty_turns: u32,
    pub(crate) happened: bool,
    is_interrupted: bool,
    /// The loop was told to quit or stop.
    pub(crate) is_told_to_end: Option<What>,
    /// Nothing will ever happen again, or nothing that matters.
    pub(crate) is_stuck: bool,
    /// An operator has paused a listener.
    pub(crate) is_paused: bool,
}

/// A listening socket.
#[derive(Debug)]
pub(crate) struct Port {
    pub(crate) queue: VecDeque<u32>,
    pub(crate) paused: bool,
    pub(crate) socket: Option<OwnedFd>,
    pub(crate) loses_next: bool,
    /// What the reactor has accepted before it was asked to.
    pub(crate) ahead: VecDeque<(OwnedFd, u32)>,
}

/// The threads of a pool, and what they have taken.
#[derive(Debug)]
pub(crate) struct Pool {
    pub(crate) steps: HandlerSteps,
    pub(crate) threads: usize,
    pub(crate) taken: BTreeMap<u64, QueuedMessage>,
}

/// Something that is ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Item {
    Accept(usize),
    Connect(u32),
    Read(u32),
    Write(u32),
    Stalled(u32),
    Woken,
}

/// Something that will happen.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Coming {
    Step(What),
    /// Somebody posts the note that a connection waits for.
    Note(u32, u32),
    /// A thread of the pool handles what it has taken.
    Handle(u64),
    /// A target answers a connection.
    Answer(u32, Result<(), Errno>),
    /// All steps are over: from now on every peer does its part.
    Settle,
    /// A peer does its part.
    Turn(u32),
}

/// How long peers that do their part may take in all.
pub(crate) const MOST_SETTLING: Duration = Duration::from_secs(30);
/// Everything that is ready is reported at least so often.
const MOST_PASSED_OVER: u32 = 3;

impl Kernel {
    pub(crate) fn new(plan: &Arc<Plan>, ledger: SharedLedger, leash: OwnedFd) -> Self {
        let mut random = Random::of(plan.seed, 1);
        let start = Instant::from_nanos(1 + random.below(1 << 40));
        let mut kernel = Self {
            knobs: plan.knobs,
            random,
            now: start,
            unix_time: 1_790_000_000,
            ports: Vec::new(),
            sockets: BTreeMap::new(),
            peers: BTreeMap::new(),
            accepted: BTreeMap::new(),
            tokens: BTreeMap::new(),
            leash,
            turn: Vec::new(),
            received: Vec::new(),
            woken: Arc::default(),
            coming: BTreeMap::new(),
            sequence: 0,
            pool: None,
            upstream: plan.upstream.map(|_| Upstream {
                is: TargetIs::Up,
                since: Instant::default(),
                begun: 0,
            }),
            handle: None,
            lack: None,
            passed_over: 0,
            empty_turns: 0,
            happened: false,
            is_interrupted: false,
            is_told_to_end: None,
            is_stuck: false,
            is_paused: false,
            plan: Arc::clone(plan),
            ledger,
        };
        for step in &plan.steps {
            kernel.at(start + step.at, Coming::Step(step.what));
        }
        let last = plan.steps.last().map_or(Duration::ZERO, |step| step.at);
        let rest =
            kernel.random.one_of(&[Duration::ZERO, Duration::from_millis(30), Duration::from_secs(10)]);
        kernel.at(start + last + rest, Coming::Settle);
        kernel
    }

    pub(crate) fn at(&mut self, at: Instant, what: Coming) {
        self.sequence += 1;
        self.coming.insert((at, self.sequence), what);
    }

    pub(crate) fn in_us(&mut self, longest: u64, what: Coming) {
        let after = Duration::from_micros(self.random.below(longest));
        self.at(self.now + after, what);
    }

    pub(crate) fn say(&self, line: impl FnOnce() -> String) {
        self.ledger.lock().say(line);
    }

    /// A wait: things happen until something is ready or the deadline has come.
    pub(crate) fn wait(&mut self, deadline: Option<Instant>) {
        self.happened = false;
        loop {
            self.take_notes();
            self.happen_until(self.now);
            self.push_output();
            if self.choose() || std::mem::take(&mut self.is_interrupted) {
                break;
            }
            let next = self.coming.first_key_value().map(|((at, _), _)| *at);
            let settled = self.ledger.lock().settling_since;
            let is_too_long = settled.is_some_and(|since| since + MOST_SETTLING < self.now);
            let until = next.into_iter().chain(deadline).min().filter(|_| !is_too_long);
            let Some(until) = until else {
                self.is_stuck = true;
                return;
            };
            self.move_to(until);
            if next != Some(until) {
                break;
            }
        }
        let late = Duration::from_nanos(self.random.below(20_000));
        self.move_to(self.now + late);
        let is_empty = self.turn.is_empty() && !self.happened;
        self.empty_turns = if is_empty { self.empty_turns + 1 } else { 0 };
    }

    fn move_to(&mut self, at: Instant) {
        let before = self.now;
        self.now = self.now.max(at);
        let passed = self.now.saturating_duration_since(before);
        self.unix_time += passed.as_secs();
        self.ledger.lock().now = self.now;
    }

    /// What is due happens.
    pub(crate) fn happen_until(&mut self, until: Instant) {
        while let Some(next) = self.coming.first_entry()
            && next.key().0 <= until
        {
            let what = next.remove();
            self.happened = true;
            self.happen(what);
        }
    }

    /// Between two completions something happens elsewhere.
    pub(crate) fn happen_meanwhile(&mut self) {
        if !self.random.chance(self.knobs.odd) {
            return;
        }
        self.take_notes();
        let soon = self.now + Duration::from_micros(300);
        if let Some(next) = self.coming.first_entry()
            && next.key().0 <= soon
            && !matches!(next.get(), Coming::Step(What::HoldUp(_)) | Coming::Settle)
        {
            let what = next.remove();
            self.happened = true;
            self.happen(what);
        }
    }

    /// The service has asked for notes, and the pool's threads may have something to do.
    fn take_notes(&mut self) {
        let notes = std::mem::take(&mut self.ledger.lock().notes);
        for (at, conn, number) in notes {
            self.at(at, Coming::Note(conn, number));
        }
        let Some(pool) = &mut self.pool else { return };
        let mut fresh = Vec::new();
        while pool.taken.len() < pool.threads
            && let Some(message) = pool.steps.take()
        {
            self.sequence += 1;
            pool.taken.insert(self.sequence, message);
            fresh.push(self.sequence);
        }
        for number in fresh {
            let longest = self.random.one_of(&[1, 60, 1_000, 30_000]);
            self.in_us(longest, Coming::Handle(number));
        }
    }

    /// Runs a message that a thread of the pool has taken.
    pub(crate) fn run_handler(&mut self, number: u64) {
        if let Some(message) = self.pool.as_mut().and_then(|pool| pool.taken.remove(&number)) {
            message.handle();
        }
        self.take_notes();
    }

    /// Whether no message is with the pool.
    fn is_pool_empty(&mut self) -> bool {
        self.take_notes();
        self.pool.as_ref().is_none_or(|pool| pool.taken.is_empty())
    }

    /// Whether the loop has all its sessions: none is with the pool, and none is home and not heard of yet.
    pub(crate) fn is_pool_idle(&mut self) -> bool {
        self.is_pool_empty() && (self.pool.is_none() || !self.woken.load(Ordering::Relaxed))
    }

    /// Lets every message in the pool be handled: the loop has ended and waits for them.
    pub(crate) fn empty_pool(&mut self) {
        while !self.is_pool_empty() {
            let numbers: Vec<u64> = self.pool.iter().flat_map(|pool| pool.taken.keys().copied()).collect();
            let number = self.random.one_of(&numbers);
            self.run_handler(number);
        }
    }

    fn push_output(&mut self) {
        let mut moved = Vec::new();
        for (conn, socket) in &mut self.sockets {
            if socket.push() > 0 {
                moved.push(*conn);
            }
        }
        let mut ledger = self.ledger.lock();
        let now = self.now;
        for conn in moved {
            if let Some(entry) = ledger.conns.get_mut(&conn) {
                entry.last_out = now;
                entry.moved = now;
            }
        }
    }

    /// Chooses what is reported in this turn. False when nothing is.
    fn choose(&mut self) -> bool {
        self.accept_ahead();
        let mut ready = Vec::new();
        for (port, state) in self.ports.iter().enumerate() {
            let is_open = state.socket.is_some() && !state.paused && !state.queue.is_empty();
            if is_open || !state.ahead.is_empty() {
                ready.push(Item::Accept(port));
            }
        }
        for (conn, socket) in &self.sockets {
            if socket.is_answered() {
                ready.push(Item::Connect(*conn));
            }
            if socket.is_readable() {
                ready.push(Item::Read(*conn));
            }
            if socket.is_writable() {
                ready.push(Item::Write(*conn));
            }
            if socket.is_stalled() {
                ready.push(Item::Stalled(*conn));
            }
        }
        if self.woken.load(Ordering::Relaxed) {
            ready.push(Item::Woken);
        }
        let any = !ready.is_empty();
        let all = self.passed_over >= MOST_PASSED_OVER;
        let before = ready.len();
        ready.retain(|_| all || self.random.chance(self.knobs.prompt));
        self.passed_over = if ready.len() == before { 0 } else { self.passed_over + 1 };
        for at in (1..ready.len()).rev() {
            ready.swap(at, self.random.index(at + 1));
        }
        self.turn = ready;
        any
    }

    /// As a multishot accept does: whatever waits when the loop waits, before it can pause the listener.
    fn accept_ahead(&mut self) {
        let ports = if self.knobs.accepts_ahead { self.ports.len() } else { 0 };
        for port in 0..ports {
            while self.ports[port].socket.is_some()
                && !self.ports[port].paused
                && let Ok(accepted) = self.accept(port)
            {
                self.ports[port].ahead.push_back(accepted);
            }
        }
    }

    /// Interrupts the wait that is under way, or the next.
    pub(crate) fn interrupt(&mut self) {
        self.is_interrupted = true;
    }

    pub(crate) fn has_lack(&self, of: impl Fn(Lack) -> bool) -> Option<Errno> {
        let (lack, until) = self.lack?;
        let errno = match lack {
            Lack::Descriptors => Errno::MFILE,
            Lack::Files => Errno::NFILE,
            Lack::Memory | Lack::Watches => Errno::NOMEM,
        };
        (self.now < until && of(lack)).then_some(errno)
    }

    /// Takes the first connection out of a queue.
    pub(crate) fn accept(&mut self, port: usize) -> Result<(OwnedFd, u32), AcceptError> {
        let lack = self.has_lack(|lack| lack != Lack::Watches);
        let Some(state) = self.ports.get_mut(port) else { return Err(AcceptError::Broken(Errno::BADF)) };
        let Some(conn) = state.queue.front().copied() else { return Err(AcceptError::Empty) };
        if let Some(errno) = lack {
            return Err(AcceptError::from(errno));
        }
        state.queue.pop_front();
        if std::mem::take(&mut state.loses_next) {
            self.lose(conn);
            return Err(AcceptError::from(Errno::CONNABORTED));
        }
        let socket = rustix::io::fcntl_dupfd_cloexec(self.leash.as_fd(), 0).map_err(AcceptError::from)?;
        self.accepted.insert(socket.as_raw_fd(), conn);
        if let Some(socket) = self.sockets.get_mut(&conn) {
            socket.side = Side::Accepted;
        }
        Ok((socket, conn))
    }

    /// A connection that is over before it was anybody's.
    pub(crate) fn lose(&mut self, conn: u32) {
        self.sockets.remove(&conn);
        if let Some(peer) = self.peers.get_mut(&conn) {
            peer.is_gone = true;
        }
    }

    pub(crate) fn conn_of(&self, token: Token) -> Option<u32> {
        self.tokens.get(&(token.slot, token.generation)).copied()
    }

    /// The socket of a token that is open.
    pub(crate) fn find(&mut self, token: Token) -> Option<(u32, &mut Socket)> {
        let conn = self.conn_of(token)?;
        let socket = self.sockets.get_mut(&conn)?;
        (socket.side == Side::Open(token)).then_some((conn, socket))
    }

    /// The same, and of one that is being connected.
    pub(crate) fn find_taken(&mut self, token: Token) -> Option<(u32, &mut Socket)> {
        let conn = self.conn_of(token)?;
        let socket = self.sockets.get_mut(&conn)?;
        matches!(socket.side, Side::Open(of) | Side::Connecting(of) if of == token).then_some((conn, socket))
    }

    /// Tells the ledger how many places are taken.
    pub(crate) fn count_places(&self) {
        self.ledger.lock().taken_places = self.taken_places();
    }
}
