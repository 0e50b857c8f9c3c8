//! Who lives, who is started again, who is ended, and when: the decisions of the master, without I/O and without a clock.
//!
//! One child (the arrows down into `Ending` are also taken by a stop):
//!
//! ```text
//!           Spawn order          Spawned            READY
//!  Waiting ────────────► Spawning ──────► Starting ──────► Ready
//!    ▲ ▲                    │ failed         │ │ late         │ │ told to end
//!    │ └────────────────────┘                │ ▼              │ ▼
//!    │                                       │ Ending: Quit ► Stop ► Kill
//!    └── died; at once, or after the back-off ◄──────┴────────┘    │ ended in a stop
//!                                                                  ▼
//!                                                                 Gone
//! ```
//!
//! All of them:
//!
//! ```text
//!  New ─► LogServer ─► Workers ─► Running ─► StoppingWorkers ─► StoppingLogServer ─► Finished
//!         awaits its   await all             from any phase     when no worker is
//!         READY        READY                 before it          left
//! ```
//!
//! The one invariant: `Finish` is ordered when no child has a process, and no `Spawn` after a stop has begun. The
//! supervisor carries nothing out: the driver takes the orders from [`Supervisor::poll_order`] until there is none, after
//! each [`Supervisor::handle`], and comes back at [`Supervisor::poll_timeout`] at the latest.

mod limits;
mod words;

#[cfg(test)]
mod schedules;
#[cfg(test)]
mod tests;

use std::collections::VecDeque;
use std::time::Duration;

use tidegate_sys::process::ExitStatus;
use tidegate_sys::signal::Signal;
use tidegate_timer::Instant;

use crate::role::Role;

pub use limits::Limits;
pub use words::{ChildId, Event, Measure, Order, Report, StopKind};

/// The state machine of the master. See the [module](self) for its pictures.
#[derive(Debug)]
pub struct Supervisor {
    limits: Limits,
    phase: Phase,
    /// In the order of the plan; a [`ChildId`] is an index.
    children: Vec<Slot>,
    orders: VecDeque<Order>,
}

/// A child as the supervisor knows it.
#[derive(Clone, Debug)]
pub struct Slot {
    /// What it is for.
    pub role: Role,
    /// Where it is in its life.
    pub state: State,
    /// Its process; present exactly in the states `Starting`, `Ready` and `Ending`.
    pub pid: Option<u32>,
    /// When its process was started, or the last one when there is none.
    pub started_at: Instant,
    /// When its process said READY; none before.
    pub ready_at: Option<Instant>,
    /// How often it was started again.
    pub restarts: u32,
    /// How the process before ended.
    pub last_exit: Option<ExitStatus>,
    /// Deaths in a row before READY or soon after it.
    early_deaths: u32,
    /// When a child that asked is told to stop, unless a stop of all has begun by then.
    stop_asked_until: Option<Instant>,
}

/// Where a child is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// To be started then; `Instant::MAX` before its turn in the start.
    Waiting {
        /// The time of its start.
        until: Instant,
    },
    /// Its start was ordered and is not answered yet.
    Spawning,
    /// Its process runs and is not READY.
    Starting {
        /// When that becomes too long.
        deadline: Instant,
    },
    /// It serves.
    Ready,
    /// It was told to end.
    Ending {
        /// How.
        measure: Measure,
        /// When the next measure is taken.
        deadline: Instant,
    },
    /// It has no process and will not have one again.
    Gone,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    New,
    LogServer { deadline: Instant },
    Workers,
    Running,
    StoppingWorkers { kind: StopKind, code: u8 },
    StoppingLogServer { code: u8 },
    Finished,
}

impl Supervisor {
    /// A supervisor of these children; at most one should be the log server.
    #[must_use]
    pub fn new(roles: impl IntoIterator<Item = Role>, limits: Limits) -> Self {
        let children = roles.into_iter().map(Slot::new).collect();
        Self { limits, phase: Phase::New, children, orders: VecDeque::new() }
    }

    /// Takes an event in. Orders may follow from it, and the timeout may change.
    ///
    /// An event that does not fit the state, such as one about an unknown child, changes nothing.
    pub fn handle(&mut self, event: Event, now: Instant) {
        match event {
            Event::Start if self.phase == Phase::New => self.start(now),
            Event::Spawned { child, pid } => self.on_spawned(child, pid, now),
            Event::SpawnFailed { child } => self.on_spawn_failed(child, now),
            Event::Ready { child } => self.on_ready(child, now),
            Event::Exited { child, status } => self.on_exited(child, status, now),
            Event::Signalled { child } => self.on_signalled(child, now),
            Event::Signal(signal) => self.on_signal(signal, now),
            Event::Start | Event::Timeout => {}
        }
        self.expire(now);
        self.advance(now);
    }

    /// The next order to be carried out; to be asked again until there is none.
    pub fn poll_order(&mut self) -> Option<Order> {
        self.orders.pop_front()
    }

    /// When `handle` wants to be called with [`Event::Timeout`]; to be asked again after each `handle`.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<Instant> {
        let phase = match self.phase {
            Phase::LogServer { deadline } => Some(deadline),
            _ => None,
        };
        let children = self.children.iter().flat_map(|child| [child.deadline(), child.stop_asked_until]);
        children.chain([phase]).flatten().filter(|at| *at != Instant::MAX).min()
    }

    /// The child of this id, if there is one.
    #[must_use]
    pub fn child(&self, child: ChildId) -> Option<&Slot> {
        self.children.get(child.0)
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
        let deadline = now + self.limits.log_server_ready_timeout;
        self.phase = Phase::LogServer { deadline };
        for child in self.children.iter_mut().filter(|child| child.role == Role::LogServer) {
            child.state = State::Waiting { until: now };
        }
    }

    fn on_spawned(&mut self, id: ChildId, pid: u32, now: Instant) {
        let deadline = now + self.limits.ready_timeout;
        let Some(child) = self.children.get_mut(id.0).filter(|child| child.state == State::Spawning) else {
            return;
        };
        child.state = State::Starting { deadline };
        child.pid = Some(pid);
        child.started_at = now;
        child.ready_at = None;
        let is_worker = child.role != Role::LogServer;
        if let Phase::StoppingWorkers { kind, .. } = self.phase
            && is_worker
        {
            self.end(id, Measure::of(kind), now);
        }
    }

    fn on_spawn_failed(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.children.get_mut(id.0).filter(|child| child.state == State::Spawning) else {
            return;
        };
        if self.phase.is_stopping() {
            child.state = State::Gone;
        } else if self.phase.is_first_start() {
            child.state = State::Gone;
            self.fail_start(id, EXIT_FAILED, now);
        } else {
            child.early_deaths = child.early_deaths.saturating_add(1);
            self.schedule_restart(id, now);
        }
    }

    fn on_ready(&mut self, id: ChildId, now: Instant) {
        let Some(child) = self.children.get_mut(id.0) else { return };
        if matches!(child.state, State::Starting { .. }) {
            child.state = State::Ready;
            child.ready_at = Some(now);
            let took = now.saturating_duration_since(child.started_at);
            self.orders.push_back(Order::Report(Report::Ready { child: id, took }));
        }
    }

    fn on_exited(&mut self, id: ChildId, status: ExitStatus, now: Instant) {
        let Some(child) = self.children.get_mut(id.0) else { return };
        let Some(pid) = child.pid.take() else { return };
        let expected = matches!(child.state, State::Ending { measure: Measure::Quit | Measure::Stop, .. });
        child.last_exit = Some(status);
        child.stop_asked_until = None;
        self.orders.push_back(Order::Report(Report::Exited { child: id, pid, status, expected }));
        if self.phase.is_stopping() {
            child.state = State::Gone;
            return;
        }
        let was_ready = child.ready_at.is_some();
        if let ExitStatus::Code(code @ (EXIT_FAILED | EXIT_CONFIGURATION)) = status
            && !was_ready
            && self.phase.is_first_start()
        {
            child.state = State::Gone;
            self.fail_start(id, code, now);
            return;
        }
        let served = child.ready_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
        let is_early = !was_ready || served < self.limits.healthy_after;
        child.early_deaths = if is_early { child.early_deaths.saturating_add(1) } else { 0 };
        self.schedule_restart(id, now);
    }

    fn on_signalled(&mut self, id: ChildId, now: Instant) {
        if self.phase.is_stopping() {
            return;
        }
        if let Some(child) = self.children.get_mut(id.0).filter(|child| child.pid.is_some()) {
            child.stop_asked_until.get_or_insert(now + GROUP_SIGNAL_SPREAD);
        }
    }

    fn on_signal(&mut self, signal: Signal, now: Instant) {
        match signal {
            Signal::TERM | Signal::INT => self.stop(StopKind::Fast, 0, now),
            Signal::QUIT => self.stop(StopKind::Graceful, 0, now),
            Signal::USR1 => {
                let reopen = self.with_process().into_iter().map(|child| Order::Reopen { child });
                self.orders.extend(reopen);
            }
            other => self.orders.push_back(Order::Report(Report::Unsupported(other))),
        }
    }

    /// Begins a stop, or makes a graceful one fast.
    fn stop(&mut self, kind: StopKind, code: u8, now: Instant) {
        let code = match self.phase {
            Phase::StoppingLogServer { .. } | Phase::Finished => return,
            Phase::StoppingWorkers { kind: before, .. } if before >= kind => return,
            Phase::StoppingWorkers { code, .. } => code,
            _ => {
                self.orders.push_back(Order::AnnounceStop);
                code
            }
        };
        self.phase = Phase::StoppingWorkers { kind, code };
        self.orders.push_back(Order::Report(Report::Stopping(kind)));
        for id in (0..self.children.len()).map(ChildId) {
            let child = &mut self.children[id.0];
            child.stop_asked_until = None;
            match child.state {
                State::Waiting { .. } => child.state = State::Gone,
                State::Starting { .. } | State::Ready | State::Ending { .. }
                    if child.role != Role::LogServer =>
                {
                    self.end(id, Measure::of(kind), now);
                }
                _ => {}
            }
        }
    }

    fn fail_start(&mut self, child: ChildId, code: u8, now: Instant) {
        self.orders.push_back(Order::Report(Report::StartFailed { child, code }));
        self.stop(StopKind::Fast, code, now);
    }

    /// Takes a measure against a child that has a process, unless the same or a harder one was taken before.
    fn end(&mut self, id: ChildId, measure: Measure, now: Instant) {
        let limits = self.limits;
        let child = &mut self.children[id.0];
        let is_new = !matches!(child.state, State::Ending { measure: taken, .. } if taken >= measure);
        let is_repeated_kill = measure == Measure::Kill;
        if !is_new && !is_repeated_kill {
            return;
        }
        let timeout = match child.role {
            // It has nothing to wait for but what is queued in its socket.
            Role::LogServer => limits.stop_timeout,
            Role::Worker(_) => limits.shutdown_timeout,
        };
        let (order, time) = match measure {
            Measure::Quit => {
                (Order::Quit { child: id, timeout }, timeout.saturating_add(limits.shutdown_grace))
            }
            Measure::Stop => (Order::Stop { child: id }, limits.stop_timeout),
            Measure::Kill => (Order::Kill { child: id }, KILL_AGAIN_AFTER),
        };
        child.state = State::Ending { measure, deadline: now + time };
        self.orders.push_back(order);
    }

    fn schedule_restart(&mut self, id: ChildId, now: Instant) {
        let child = &mut self.children[id.0];
        let delay = self.limits.restart_delay(child.early_deaths);
        child.state = State::Waiting { until: now + delay };
        child.restarts = child.restarts.saturating_add(1);
        let early_deaths = child.early_deaths;
        self.orders.push_back(Order::Report(Report::Restart { child: id, delay, early_deaths }));
    }

    /// Does what was to be done by now.
    fn expire(&mut self, now: Instant) {
        for id in (0..self.children.len()).map(ChildId) {
            let child = &mut self.children[id.0];
            if child.stop_asked_until.is_some_and(|at| at <= now) {
                child.stop_asked_until = None;
                self.end(id, Measure::Stop, now);
            }
            let child = &mut self.children[id.0];
            if child.deadline().is_none_or(|at| at > now) {
                continue;
            }
            match child.state {
                State::Waiting { .. } => {
                    child.state = State::Spawning;
                    self.orders.push_back(Order::Spawn { child: id });
                }
                State::Starting { .. } => {
                    let limit = self.limits.ready_timeout;
                    self.orders.push_back(Order::Report(Report::NotReady { child: id, limit }));
                    self.end(id, Measure::Kill, now);
                }
                State::Ending { measure, .. } => {
                    let next = measure.next();
                    self.orders.push_back(Order::Report(Report::Overdue { child: id, next }));
                    self.end(id, next, now);
                }
                State::Spawning | State::Ready | State::Gone => {}
            }
        }
    }

    /// Goes on to the next phases, as far as the children are.
    fn advance(&mut self, now: Instant) {
        loop {
            match self.phase {
                Phase::LogServer { deadline } => {
                    if !self.all(Role::is_log_server, |state| state == State::Ready) {
                        if now < deadline {
                            return;
                        }
                        let limit = self.limits.log_server_ready_timeout;
                        self.orders.push_back(Order::Report(Report::LogServerLate { limit }));
                    }
                    self.phase = Phase::Workers;
                    for child in self.children.iter_mut().filter(|child| !child.role.is_log_server()) {
                        child.state = State::Waiting { until: now };
                    }
                    self.expire(now);
                }
                Phase::Workers if self.all(Role::is_worker, |state| state == State::Ready) => {
                    self.orders.push_back(Order::AnnounceReady);
                    self.phase = Phase::Running;
                }
                Phase::StoppingWorkers { code, .. }
                    if self.all(Role::is_worker, |state| state == State::Gone) =>
                {
                    self.orders.push_back(Order::WorkersGone);
                    self.phase = Phase::StoppingLogServer { code };
                }
                Phase::StoppingLogServer { code } => {
                    for id in self.with_process() {
                        self.end(id, Measure::Quit, now);
                    }
                    if !self.all(|_| true, |state| state == State::Gone) {
                        return;
                    }
                    self.orders.push_back(Order::Finish { code });
                    self.phase = Phase::Finished;
                }
                _ => return,
            }
        }
    }

    fn all(&self, of: impl Fn(Role) -> bool, is: impl Fn(State) -> bool) -> bool {
        self.children.iter().filter(|child| of(child.role)).all(|child| is(child.state))
    }

    fn with_process(&self) -> Vec<ChildId> {
        let all = self.children.iter().enumerate();
        all.filter(|(_, child)| child.pid.is_some()).map(|(index, _)| ChildId(index)).collect()
    }
}

impl Slot {
    fn new(role: Role) -> Self {
        Self {
            role,
            state: State::Waiting { until: Instant::MAX },
            pid: None,
            started_at: Instant::from_nanos(0),
            ready_at: None,
            restarts: 0,
            last_exit: None,
            early_deaths: 0,
            stop_asked_until: None,
        }
    }

    fn deadline(&self) -> Option<Instant> {
        match self.state {
            State::Waiting { until } => Some(until),
            State::Starting { deadline } | State::Ending { deadline, .. } => Some(deadline),
            State::Spawning | State::Ready | State::Gone => None,
        }
    }
}

impl Phase {
    fn is_first_start(self) -> bool {
        matches!(self, Self::LogServer { .. } | Self::Workers)
    }

    fn is_stopping(self) -> bool {
        matches!(self, Self::StoppingWorkers { .. } | Self::StoppingLogServer { .. } | Self::Finished)
    }
}

impl Measure {
    fn of(kind: StopKind) -> Self {
        match kind {
            StopKind::Graceful => Self::Quit,
            StopKind::Fast => Self::Stop,
        }
    }

    fn next(self) -> Self {
        match self {
            Self::Quit => Self::Stop,
            Self::Stop | Self::Kill => Self::Kill,
        }
    }
}

/// A child that ends with this code before it is READY has found the configuration wrong; at the first start a further
/// try cannot help.
pub const EXIT_CONFIGURATION: u8 = 2;
/// The exit code of a master whose children cannot be started, and of a child that says in order that it cannot serve: it
/// is what `main` returns with an error. A crash, which has another code or a signal, is worth a further try.
pub const EXIT_FAILED: u8 = 1;
/// A signal to a whole group reaches its members one after the other. So long is waited, when a child tells of one, for
/// the master's own to arrive.
const GROUP_SIGNAL_SPREAD: Duration = Duration::from_millis(100);
/// `KILL` cannot be refused, but a process in an uninterruptible wait ends late; the order is repeated until it has.
const KILL_AGAIN_AFTER: Duration = Duration::from_secs(5);
