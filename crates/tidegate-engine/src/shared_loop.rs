//! `SharedLoop`: one loop whose ready connections are served by several threads.
//!
//! Two classic patterns with one mechanism. As *reactor*, one thread waits and the others serve what is ready. As
//! *leader/followers*, whoever is free waits; when something is ready the leader promotes a follower and then does the
//! I/O and the work itself. The loop stands under a lock that is held for bookkeeping: accepting, timers, and every
//! callback but the handling of messages. Receiving, handling and sending need no lock.
//!
//! ```text
//!              free                     something is ready
//!   follower ────────▶ leader (waits) ─────────────────────▶ working (no lock) ──┐
//!      ▲                                                                        │
//!      └────────────────────────── gives back ◀─────────────────────────────────┘
//! ```
//!
//! Invariant: at most one thread waits for events, and none does while it has a connection in its hands.

use std::io;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

use tidegate_reactor::{Epoll, Errno, Poller, Reactor, Waker};
use tidegate_timer::Instant;

use crate::event_loop::Loop;
use crate::layered::Workspace;
use crate::pool::PoolConfig;
use crate::visit::Visit;

/// A loop that several threads drive.
#[derive(Debug)]
pub(crate) struct SharedLoop {
    core: Mutex<Core>,
    /// Signalled when there is work, or nobody waits for events, or all is over.
    work: Condvar,
    waker: Waker,
    kind: Kind,
    threads: PoolConfig,
}

/// What the threads do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The thread that runs the loop waits, those of the pool work.
    Reactor,
    /// All threads, the one that runs the loop among them, do both in turn.
    LeaderFollower,
}

#[derive(Debug)]
struct Core {
    event_loop: Loop<Epoll>,
    /// Some thread waits for events, and until when.
    leader: Option<Waiting>,
    /// Threads that have nothing to do.
    idle: usize,
    over: bool,
    failed: Option<Errno>,
}

#[derive(Clone, Copy, Debug)]
struct Waiting {
    until: Option<Instant>,
}

/// What a thread may do.
#[derive(Clone, Copy, Debug)]
struct Role {
    waits: bool,
    works: bool,
}

/// What a thread receives into.
const SCRATCH_BYTES: usize = 64 << 10;

impl SharedLoop {
    pub(crate) fn new(event_loop: Loop<Epoll>, kind: Kind, threads: PoolConfig) -> Self {
        let waker = event_loop.reactor.waker();
        let core = Core { event_loop, leader: None, idle: 0, over: false, failed: None };
        Self { core: Mutex::new(core), work: Condvar::new(), waker, kind, threads }
    }

    /// Serves until it is told to stop, or to quit and all connections have ended.
    pub(crate) fn run(&mut self) -> io::Result<()> {
        let outcome = std::thread::scope(|scope| self.run_threads(scope));
        let core = self.core.get_mut().unwrap_or_else(PoisonError::into_inner);
        core.event_loop.end();
        outcome?;
        core.failed.map_or(Ok(()), |errno| Err(errno.into()))
    }

    fn run_threads<'scope>(&'scope self, scope: &'scope std::thread::Scope<'scope, '_>) -> io::Result<()> {
        // Whatever ends this thread ends the others.
        let over = Over(self);
        let (own, others) = match self.kind {
            Kind::Reactor => (Role { waits: true, works: false }, self.threads.threads.max(1)),
            Kind::LeaderFollower => (Role { waits: true, works: true }, self.threads.threads.max(1) - 1),
        };
        let role = Role { waits: self.kind == Kind::LeaderFollower, works: true };
        for number in 0..others {
            let builder = std::thread::Builder::new();
            let builder = builder.name(format!("pool-{number}")).stack_size(self.threads.stack_bytes);
            builder.spawn_scoped(scope, move || {
                let _over = Over(self);
                (self.threads.on_start)(number);
                self.serve(role);
            })?;
        }
        self.serve(own);
        drop(over);
        Ok(())
    }

    fn serve(&self, role: Role) {
        let mut scratch = vec![0; if role.works { SCRATCH_BYTES } else { 0 }].into_boxed_slice();
        let mut work = Workspace::default();
        let mut core = self.lock();
        let mut poller = core.event_loop.reactor.poller();
        while !core.over {
            if role.works
                && let Some(mut visit) = core.event_loop.take_visit()
            {
                self.promote(&core);
                drop(core);
                visit.run(&mut scratch, &mut work);
                core = self.lock();
                self.take_back(&mut core, visit);
            } else if role.waits && core.leader.is_none() {
                core = self.lead(core, &mut poller);
            } else {
                core.idle += 1;
                core = self.work.wait(core).unwrap_or_else(PoisonError::into_inner);
                core.idle -= 1;
            }
        }
    }

    /// Somebody else is to wait for events, or to do what else is ready, while this thread works.
    fn promote(&self, core: &Core) {
        let needed = core.event_loop.visits_waiting() > 0
            || (self.kind == Kind::LeaderFollower && core.leader.is_none());
        if needed && core.idle > 0 {
            self.work.notify_one();
        }
    }

    /// Waits for events, without the lock, and handles all but the messages.
    fn lead<'a>(&'a self, mut core: MutexGuard<'a, Core>, poller: &mut Poller) -> MutexGuard<'a, Core> {
        let until = core.event_loop.end_turn();
        core.leader = Some(Waiting { until });
        let patience = core.event_loop.reactor.end_turn(until);
        drop(core);
        let waited = poller.wait(patience);
        core = self.lock();
        core.leader = None;
        if let Err(errno) = waited {
            core.failed = Some(errno);
            self.end(&mut core);
            return core;
        }
        core.event_loop.reactor.begin_turn(poller);
        core.event_loop.turn();
        if core.event_loop.is_stopped() {
            self.end(&mut core);
        } else if self.kind == Kind::Reactor {
            for _ in 0..core.event_loop.visits_waiting().min(core.idle) {
                self.work.notify_one();
            }
        }
        core
    }

    /// Gives a connection back to the loop; the leader is woken if it would wait too long now.
    fn take_back(&self, core: &mut Core, visit: Box<Visit>) {
        core.event_loop.read_clock();
        // The leader waits and is in no turn, but callbacks may be called here, and while they do not return the lock is
        // held.
        let between_turns = core.leader.is_some();
        if between_turns {
            core.event_loop.begin_work();
        }
        core.event_loop.end_visit(visit);
        if between_turns {
            core.event_loop.end_work();
        }
        let refused = core.event_loop.reactor.sync();
        if let Some(Waiting { until }) = core.leader {
            let due = core.event_loop.due();
            let earlier = due.is_some_and(|due| until.is_none_or(|until| due < until));
            if refused || earlier || core.event_loop.is_stopped() {
                self.waker.wake();
            }
        }
    }

    fn end(&self, core: &mut Core) {
        core.over = true;
        self.work.notify_all();
        self.waker.wake();
    }

    fn lock(&self) -> MutexGuard<'_, Core> {
        // A panic under the lock is a bug of the engine; it ends all threads, which need the lock for that.
        self.core.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ends the loop when a thread ends, for whatever reason.
struct Over<'a>(&'a SharedLoop);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        let mut core = self.0.lock();
        self.0.end(&mut core);
    }
}
