//! Who lives, who is started again, who is replaced, who is ended, and when: the decisions of the master, without I/O and
//! without a clock.
//!
//! One child (the arrows down into `Ending` are also taken when it is retired and by a stop):
//!
//! ```text
//!           Spawn order          Spawned            READY
//!  Waiting ────────────► Spawning ──────► Starting ──────► Ready
//!    ▲ ▲                    │ failed         │ │ late         │ │ told to end
//!    │ └────────────────────┘                │ ▼              │ ▼
//!    │                                       │ Ending: Quit ► Stop ► Kill
//!    └── died; at once, or after the back-off ◄──────┴────────┘    │ ended when retired
//!                                                                  ▼ or in a stop
//!                                                                 Gone
//! ```
//!
//! All of them:
//!
//! ```text
//!  New ─► LogServer ─► Crew ────► Running ─► StoppingCrew ─► StoppingLogServer ─► Finished
//!         awaits its   await all             from any phase  when nobody else is
//!         READY        READY                 before it       left
//! ```
//!
//! One generation; there is exactly one current one, and several may be retired:
//!
//! ```text
//!          Prepare        Prepared          all READY, Commit          the next one's Commit
//!  (number) ─────► Trial ─────────► Trial ───────────────────► Current ───────────────► Retired
//!                    │ refused        │ a child failed                                     │ last process ended
//!                    ▼                ▼                                                    ▼
//!                  Failed ──────────────────────────────────────────────────────────────► Forget
//! ```
//!
//! While the phase is `Running`, at most one operation is under way at a time; requests for others wait, one of a kind:
//!
//! ```text
//!  reload:   Prepare ─► Crew ─► Commit
//!  upgrade:  Probe ─► TakeOver ═(exec: the new image thaws)═► Prepare ─► Crew ─► Commit
//!                                                                │         │ failed
//!                                                                └─────────┴──► Revert ═(exec: the old image thaws)═►
//!  replace:  Successor ─► its READY
//! ```
//!
//! The one invariant: `Finish` is ordered when no child has a process, and no `Spawn` after a stop has begun or for a child
//! that is retired. The supervisor carries nothing out: the driver takes the orders from [`Supervisor::poll_order`] until
//! there is none, after each [`Supervisor::handle`], and comes back at [`Supervisor::poll_timeout`] at the latest.
//!
//! What follows from an event is not kept as a plan but derived from the state after each one, in
//! `Supervisor::settle`: whom to start, whom to cover, whom to tell. So it cannot matter in which order things
//! went wrong.

mod cover;
mod freeze;
mod generation;
mod life;
mod limits;
mod operation;
mod report;
mod slot;
mod stop;
mod watch;
mod words;

#[cfg(test)]
mod tests;

use std::cmp::Reverse;
use std::collections::{BTreeMap, VecDeque};

use serde::{Deserialize, Serialize};
use tidegate_sys::signal::Signal;
use tidegate_timer::Instant;

use crate::role::Role;
use generation::Generation;
use operation::{Wanted, Work};
use watch::Watch;

pub use freeze::{Frozen, Thawed};
pub use life::{EXIT_CONFIGURATION, EXIT_FAILED};
pub use limits::Limits;
pub use report::Report;
pub use slot::{Slot, State};
pub use words::{ChildId, Crew, Event, Measure, Operation, Order, Outcome, StopKind, Why};

/// The state machine of the master. See the [module](self) for its pictures.
#[derive(Debug)]
pub struct Supervisor {
    limits: Limits,
    phase: Phase,
    /// Those that are gone leave at the first event after all orders have been taken.
    children: BTreeMap<ChildId, Slot>,
    /// The number of the next child.
    next_child: u32,
    /// Those that have processes, are to get some, or are current; the numbers ascend.
    generations: Vec<Generation>,
    /// The number of the current generation.
    current: u32,
    /// The last number that was given to a generation.
    last_generation: u32,
    /// The operation under way; only while `Running`.
    work: Option<Work>,
    wanted: Wanted,
    /// Who accepts for whom in the current generation: the slot, and the neighbour.
    covers: BTreeMap<u32, ChildId>,
    watch: Watch,
    /// When the last [`Event::Timeout`] came; none in the first turn of an image.
    looked_at: Option<Instant>,
    /// In a turn in which silence is judged: until when the channels were read for certain.
    judged_until: Option<Instant>,
    orders: VecDeque<Order>,
}

/// How far all of it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
enum Phase {
    New,
    LogServer {
        #[serde(with = "freeze::instant")]
        deadline: Instant,
    },
    Crew,
    Running,
    StoppingCrew {
        kind: StopKind,
        code: u8,
        /// When what is in flight has to have ended in a graceful stop.
        #[serde(with = "freeze::instant")]
        until: Instant,
    },
    StoppingLogServer {
        code: u8,
    },
    Finished,
}

impl Supervisor {
    /// A supervisor of these children and of generation 1. The permanent ones belong to no generation: at most one log
    /// server, and processes of the program.
    #[must_use]
    pub fn new(permanent: impl IntoIterator<Item = Role>, first: Crew, limits: Limits) -> Self {
        let mut supervisor = Self {
            limits,
            phase: Phase::New,
            children: BTreeMap::new(),
            next_child: 0,
            generations: vec![Generation::first(first)],
            current: FIRST_GENERATION,
            last_generation: FIRST_GENERATION,
            work: None,
            wanted: Wanted::default(),
            covers: BTreeMap::new(),
            watch: Watch::default(),
            looked_at: None,
            judged_until: None,
            orders: VecDeque::new(),
        };
        for role in permanent {
            supervisor.add_child(role, NO_GENERATION, Instant::MAX);
        }
        supervisor.add_crew(FIRST_GENERATION, first, Instant::MAX);
        supervisor
    }

    /// Takes an event in. Orders may follow from it, and the timeout may change.
    ///
    /// An event that does not fit the state, such as one about an unknown child, changes nothing.
    pub fn handle(&mut self, event: Event, now: Instant) {
        if self.orders.is_empty() {
            self.children.retain(|_, child| !child.is_gone());
        }
        self.note_turn(event, now);
        match event {
            Event::Start => self.start(now),
            Event::Spawned { child, pid } => self.on_spawned(child, pid, now),
            Event::SpawnFailed { child } => self.on_spawn_failed(child, now),
            Event::Ready { child } => self.on_ready(child, now),
            Event::Pong { child } => self.on_pong(child, now),
            Event::Exited { child, status } => self.on_exited(child, status, now),
            Event::Signalled { child } => self.on_signalled(child, now),
            Event::Signal(signal) => self.on_signal(signal, now),
            Event::Prepared { generation, crew } => self.on_prepared(generation, crew, now),
            Event::PrepareFailed { generation } => self.on_prepare_failed(generation, now),
            Event::TakeOverFailed => self.on_take_over_failed(now),
            Event::Replace { child } => self.on_replace(child, now),
            Event::Pause { child } => self.on_pause(child),
            Event::Resume { child } => self.on_resume(child),
            Event::Timeout => {}
        }
        self.settle(now);
    }

    /// The next order to be carried out; to be asked again until there is none.
    pub fn poll_order(&mut self) -> Option<Order> {
        // An image is left only when nothing else is to be done: what is not taken would be lost.
        self.orders.pop_front().or_else(|| self.leave())
    }

    /// When `handle` wants to be called with [`Event::Timeout`]; to be asked again after each `handle`. It may have passed
    /// already. Before that call everything that has arrived is to be read and handed in, since it may excuse a child.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::LogServer { deadline } => Some(deadline),
            _ => None,
        };
        let children = self.children.values().flat_map(|child| [child.deadline(), child.stop_asked_until]);
        let all = children.chain([phase, self.watch_timeout()]).flatten();
        all.filter(|at| *at != Instant::MAX).min()
    }

    /// Grants other times from now on. What was granted already stays.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The child of this id. One that is gone is known until the orders of its end have been taken.
    #[must_use]
    pub fn child(&self, child: ChildId) -> Option<&Slot> {
        self.children.get(&child)
    }

    /// All children, in the order of the status: those of no generation, then the generations, the latest first, each with
    /// its acceptor before its workers.
    pub fn children(&self) -> impl Iterator<Item = (ChildId, &Slot)> {
        let mut all: Vec<_> = self.children.iter().map(|(id, child)| (*id, child)).collect();
        all.sort_by_key(|(id, child)| {
            let is_permanent = child.generation == NO_GENERATION && child.role != Role::Probe;
            (!is_permanent, Reverse(child.generation), child.role, *id)
        });
        all.into_iter()
    }

    /// The number of the current generation: the last that was committed.
    #[must_use]
    pub fn generation(&self) -> u32 {
        self.current
    }

    /// The operation that is under way.
    #[must_use]
    pub fn operation(&self) -> Option<Operation> {
        self.work.map(|work| work.operation)
    }

    /// Whether all workers have been READY and no stop has begun.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.phase == Phase::Running
    }

    /// Whether a stop has begun.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.phase.is_stopping()
    }

    fn start(&mut self, now: Instant) {
        if self.phase != Phase::New {
            return;
        }
        let deadline = now + self.limits.log_server_ready_timeout;
        self.phase = Phase::LogServer { deadline };
        self.release(now, |role| role == Role::LogServer);
    }

    fn on_signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::TERM | Signal::INT => self.stop(StopKind::Fast, 0, now),
            Signal::QUIT => self.stop(StopKind::Graceful, 0, now),
            Signal::HUP => self.want(Operation::Reload),
            Signal::USR2 => self.want(Operation::Upgrade),
            Signal::WINCH => self.want_retired(),
            Signal::USR1 => {
                let with_process = self.children.iter().filter(|(_, child)| child.pid.is_some());
                let asked = with_process.filter(|(_, child)| child.role != Role::Probe);
                self.orders.extend(asked.map(|(id, _)| Order::Reopen { child: *id }));
            }
            other => self.report(Report::Unsupported(other)),
        }
    }

    /// Derives what is to be done from the state, until nothing follows any more.
    fn settle(&mut self, now: Instant) {
        loop {
            self.expire(now);
            self.forget();
            let has_moved = self.advance_start(now) || self.advance_work(now) || self.begin(now);
            if !has_moved {
                break;
            }
        }
        self.watch(now);
        // First who accepts in the place of another, which takes no time; then who is started, and who is told to end.
        self.settle_covers();
        self.spawn(now);
        self.settle_retired(now);
        self.settle_stop(now);
        self.report_waiting();
    }

    /// Goes on to the next phase of the start, when the children are that far.
    fn advance_start(&mut self, now: Instant) -> bool {
        match self.phase {
            Phase::LogServer { deadline } => {
                let is_log_server = |child: &Slot| child.role == Role::LogServer;
                if !self
                    .children
                    .values()
                    .filter(|child| is_log_server(child))
                    .all(|child| child.state == State::Ready)
                {
                    if now < deadline {
                        return false;
                    }
                    self.report(Report::LogServerLate { limit: self.limits.log_server_ready_timeout });
                }
                self.phase = Phase::Crew;
                self.release(now, |role| role != Role::LogServer);
                true
            }
            Phase::Crew => {
                let mut awaited = self.children.values().filter(|child| child.role != Role::LogServer);
                if !awaited.all(|child| child.state == State::Ready) {
                    return false;
                }
                self.orders.push_back(Order::AnnounceReady);
                self.phase = Phase::Running;
                true
            }
            _ => false,
        }
    }

    /// Lets the start of those begin whose turn it is.
    fn release(&mut self, now: Instant, is_meant: impl Fn(Role) -> bool) {
        for child in self.children.values_mut().filter(|child| is_meant(child.role)) {
            child.state = State::Waiting { until: now };
        }
    }

    fn add_child(&mut self, role: Role, generation: u32, until: Instant) -> ChildId {
        let id = ChildId(self.next_child);
        self.next_child = self.next_child.saturating_add(1);
        self.children.insert(id, Slot::new(role, generation, until));
        id
    }

    fn report(&mut self, report: Report) {
        self.orders.push_back(Order::Report(report));
    }

    fn ids(&self) -> Vec<ChildId> {
        self.children.keys().copied().collect()
    }
}

impl Phase {
    fn is_first_start(self) -> bool {
        matches!(self, Self::LogServer { .. } | Self::Crew)
    }

    fn is_stopping(self) -> bool {
        matches!(self, Self::StoppingCrew { .. } | Self::StoppingLogServer { .. } | Self::Finished)
    }
}

/// The first generation; its plan exists before the start.
const FIRST_GENERATION: u32 = 1;
/// Of children that live over generations.
const NO_GENERATION: u32 = 0;
