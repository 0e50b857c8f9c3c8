//! The driver: one poll loop over signals, exits, control channels and the control socket, around the supervisor.
//!
//! The one invariant: nothing in the loop waits but its poll(2), and that no longer than until the next timeout. It
//! decides nothing; what is to be done comes as orders from the [`Supervisor`].

mod bundle;
mod children;
mod clients;
mod frozen;
mod hooks;
mod operations;
mod plan;
mod questions;
mod report;
mod upgrade;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tidegate_sys::process::Credentials;
use tidegate_sys::shared::read_all;
use tidegate_sys::signal::{self, Signal};
use tidegate_timer::Instant;

use crate::clock::{self, timespec};
use crate::control::{ToChild, ToMaster};
use crate::control_socket::ControlSocket;
use crate::role::Role;
use crate::signals::Signals;
use crate::snapshot::{ChildSnapshot, ChildState, Snapshot};
use crate::supervisor::{ChildId, Event, Limits, Order, Supervisor};

use children::{Running, Start, StartError};
use clients::{ClientId, Clients, Ready};
use operations::Waiting;
use questions::Questions;

pub use bundle::{Bundle, Unbundled};
pub use frozen::{TakeOverError, TakenOver, check_state};
pub use hooks::{Begin, ChildAnswer, ControlAnswer, MasterHooks, Whom};
pub use plan::{Amendment, ChildSpec, ENV_PROGRAM, Plan, Program};
pub use upgrade::PROBE_STATE;

pub(crate) use frozen::SUCCESSOR;

/// What a master is made of.
#[derive(Debug)]
pub struct MasterOptions {
    /// What it and its children run.
    pub program: Program,
    /// The children that belong to no generation: the log server, and what a program adds.
    pub permanent: Vec<ChildSpec>,
    /// The first generation.
    pub first: Plan,
    /// Where requests are taken, if anywhere.
    pub control: Option<ControlSocket>,
}

impl MasterOptions {
    /// A master of these children: this very binary with the arguments of this process, and no control socket.
    ///
    /// # Errors
    ///
    /// The error of opening the binary.
    pub fn new(permanent: Vec<ChildSpec>, first: Plan) -> io::Result<Self> {
        Ok(Self { program: Program::of_self()?, permanent, first, control: None })
    }
}

/// Why a master ended before its children. They notice, and end by themselves.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MasterError {
    /// Waiting failed.
    #[error("master: poll")]
    Poll(#[source] io::Error),
    /// The signals cannot be read.
    #[error("master: reading signals")]
    Signals(#[source] io::Error),
}

/// The process that starts, watches and ends all the others.
///
/// ```no_run
/// use tidegate_process::{
///     ChildEvent, ChildSpec, ControlAnswer, Master, MasterHooks, MasterOptions, Part, Plan, Role, Signals, Snapshot,
/// };
///
/// struct Hooks;
/// impl MasterHooks for Hooks {
///     fn on_control(&mut self, _request: &[u8], snapshot: &Snapshot) -> ControlAnswer {
///         ControlAnswer::Now(format!("{} children\n", snapshot.children.len()).into_bytes())
///     }
///     fn prepare(&mut self, _generation: u32) -> Result<Plan, String> {
///         let children = (0..2).map(|index| ChildSpec::new(Role::Worker(index))).collect();
///         Ok(Plan { children, ..Plan::default() })
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     if let Some(Part::Child(mut child)) = Part::from_env()? {
///         child.ready()?;
///         loop {
///             match child.wait_event(None)? {
///                 Some(ChildEvent::Ping) => child.pong()?,
///                 Some(ChildEvent::Stop | ChildEvent::Quit(_) | ChildEvent::MasterGone) => return Ok(()),
///                 _ => {}
///             }
///         }
///     }
///     let signals = Signals::block()?;
///     let first = Hooks.prepare(1)?;
///     let code = Master::new(signals, MasterOptions::new(Vec::new(), first)?, Hooks).run()?;
///     std::process::exit(code.into())
/// }
/// ```
#[derive(Debug)]
pub struct Master<H> {
    program: Program,
    /// What an upgrade goes back to while it can still fail.
    before: Option<Program>,
    /// What the probe runs, and the next image.
    next: Option<Program>,
    signals: Signals,
    supervisor: Supervisor,
    limits: Limits,
    /// Of each generation that has processes or may get some, with the program they run.
    plans: BTreeMap<u32, (Plan, Program)>,
    permanent: Vec<ChildSpec>,
    /// Who the children that belong to no generation become.
    user: Option<Credentials>,
    running: BTreeMap<ChildId, Running>,
    /// Who died last in the place of a child.
    last_pids: BTreeMap<ChildId, u32>,
    clients: Option<Clients>,
    waiting: Vec<Waiting>,
    /// Requests that another image was asked, and has not answered.
    unanswered: Vec<(ClientId, Vec<u8>)>,
    questions: Questions,
    hooks: H,
    started: Instant,
    next_tick: Option<Instant>,
    /// When a graceful stop that was asked for begins.
    quit_at: Option<Instant>,
    /// Something is different from when `on_change` was last called.
    changed: bool,
    /// What was wrong with the configuration, or with the child that ended an operation.
    why: Option<String>,
}

/// What a turn of the loop found.
#[derive(Clone, Copy, Debug)]
enum Source {
    Signals,
    Channel(ChildId),
    Exit(ChildId),
    Client(Ready),
}

impl<H: MasterHooks> Master<H> {
    /// A master that has not started anything. The signals were blocked when this process began.
    #[must_use]
    pub fn new(signals: Signals, options: MasterOptions, hooks: H) -> Self {
        let MasterOptions { program, permanent, first, control } = options;
        let roles: Vec<Role> = permanent.iter().map(|child| child.role).collect();
        let limits = first.limits;
        Self {
            supervisor: Supervisor::new(roles, first.crew(), limits),
            limits,
            user: first.user.clone(),
            plans: BTreeMap::from([(FIRST_GENERATION, (first, program.clone()))]),
            program,
            before: None,
            next: None,
            signals,
            permanent,
            running: BTreeMap::new(),
            last_pids: BTreeMap::new(),
            clients: control.map(Clients::new),
            waiting: Vec::new(),
            unanswered: Vec::new(),
            questions: Questions::default(),
            hooks,
            started: clock::now(),
            next_tick: None,
            quit_at: None,
            changed: false,
            why: None,
        }
    }

    /// Starts the children and keeps them until a signal, a request or a failed start ends everything. Returns the exit
    /// code of the process: 0 after a stop, the children's own when the start failed.
    ///
    /// # Errors
    ///
    /// See [`MasterError`].
    pub fn run(self) -> Result<u8, MasterError> {
        self.turns(Event::Start)
    }

    fn turns(mut self, first: Event) -> Result<u8, MasterError> {
        let mut event = first;
        loop {
            if let Some(code) = self.handle(event) {
                return Ok(code);
            }
            // In the order in which they weigh: a child that ended in a stop must not look as if it had died before it.
            for source in self.wait()? {
                let finished = match source {
                    Source::Signals => self.on_signals()?,
                    Source::Channel(child) => self.on_messages(child),
                    Source::Exit(child) => self.on_exit(child)?,
                    Source::Client(ready) => self.on_client(ready),
                };
                if let Some(code) = finished {
                    return Ok(code);
                }
            }
            self.look_after_clients();
            self.tick();
            event = match self.quit_at.take_if(|at| *at <= clock::now()) {
                Some(_) => Event::Signal(Signal::QUIT),
                None => Event::Timeout,
            };
        }
    }

    /// Waits until something can be done, or the next timeout has come.
    fn wait(&self) -> Result<Vec<Source>, MasterError> {
        let clients_timeout = self.clients.as_ref().and_then(Clients::poll_timeout);
        let others = [clients_timeout, self.questions.poll_timeout(), self.next_tick, self.quit_at];
        let deadline = self.supervisor.poll_timeout().into_iter().chain(others.into_iter().flatten()).min();
        let timeout = deadline.map(|deadline| timespec(deadline.saturating_duration_since(clock::now())));
        let (sources, mut fds): (Vec<_>, Vec<_>) =
            self.interests().map(|(source, fd, flags)| (source, PollFd::from_borrowed_fd(fd, flags))).unzip();
        match poll(&mut fds, timeout.as_ref()) {
            Ok(_) => {}
            Err(Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(MasterError::Poll(error.into())),
        }
        let ready = sources.into_iter().zip(&fds).filter(|(_, fd)| !fd.revents().is_empty());
        Ok(ready.map(|(source, _)| source).collect())
    }

    /// Everything that can be ready, in the order in which it is handled.
    fn interests(&self) -> impl Iterator<Item = (Source, BorrowedFd<'_>, PollFlags)> {
        let running = || self.running.iter().map(|(id, child)| (*id, child));
        let channels =
            running().filter_map(|(id, child)| Some((Source::Channel(id), child.channel.as_ref()?.as_fd())));
        let exits = running().map(|(id, child)| (Source::Exit(id), child.process.as_fd()));
        let own = std::iter::once((Source::Signals, self.signals.as_fd())).chain(channels).chain(exits);
        let clients = self.clients.iter().flat_map(Clients::interests);
        own.map(|(source, fd)| (source, fd, PollFlags::IN))
            .chain(clients.map(|(ready, fd, flags)| (Source::Client(ready), fd, flags)))
    }

    /// Hands an event to the supervisor and carries its orders out. Returns the exit code when everything has ended.
    fn handle(&mut self, event: Event) -> Option<u8> {
        self.supervisor.handle(event, clock::now());
        while let Some(order) = self.supervisor.poll_order() {
            if let Order::Finish { code } = order {
                tracing::info!(code, "master ends");
                return Some(code);
            }
            self.carry_out(order);
        }
        if std::mem::take(&mut self.changed) {
            let snapshot = self.snapshot();
            self.hooks.on_change(&snapshot);
        }
        None
    }

    fn carry_out(&mut self, order: Order) {
        let now = clock::now();
        self.changed |= !matches!(order, Order::Reopen { .. } | Order::Ping { .. });
        match order {
            Order::Spawn { child } => self.spawn(child),
            Order::Stop { child } => self.tell(child, &ToChild::Stop),
            Order::Quit { child, timeout } => {
                let is_retired = self.supervisor.child(child).is_some_and(|slot| slot.is_retired);
                let drain = is_retired && !self.supervisor.is_stopping();
                self.tell(child, &ToChild::Quit { timeout, drain });
            }
            Order::Reopen { child } => self.tell(child, &ToChild::Reopen),
            Order::Ping { child } => self.tell(child, &ToChild::Ping),
            Order::PauseAccept { child } => self.tell(child, &ToChild::Pause),
            Order::ResumeAccept { child } => self.tell(child, &ToChild::Resume),
            Order::Kill { child } => {
                if let Some(running) = self.running.get(&child) {
                    running.signal(Signal::KILL);
                }
            }
            Order::Cover { slot, by, .. } => self.cover(slot, by),
            Order::Uncover { slot, by } => self.tell(by, &ToChild::Uncover { slot }),
            Order::Prepare { generation } => {
                let event = self.prepare(generation);
                self.supervisor.handle(event, now);
            }
            Order::Commit { generation } => self.commit(generation),
            Order::Forget { generation } => {
                self.plans.remove(&generation);
                self.hooks.on_forgotten(generation);
            }
            Order::TakeOver => self.take_over(),
            Order::Revert => self.revert(),
            Order::Done { operation, outcome } => self.done(operation, outcome),
            Order::AnnounceReady => {
                tracing::info!(pid = std::process::id(), "ready");
                let snapshot = self.snapshot();
                self.hooks.on_ready(&snapshot);
            }
            Order::AnnounceStop => {
                // Nothing is started any more. Without our own descriptors, what the children let go of is closed: a
                // listening socket refuses at once instead of keeping peers that nobody will serve.
                self.plans.clear();
                self.permanent.clear();
                self.hooks.on_stopping();
            }
            Order::WorkersGone => self.hooks.on_workers_gone(),
            Order::Report(report) => self.report(report),
            // Taken by `handle`.
            Order::Finish { .. } => {}
        }
    }

    fn spawn(&mut self, child: ChildId) {
        let event = match self.start(child) {
            Ok(running) => {
                let (role, generation, pid) = (running.role, running.generation, running.process.pid());
                tracing::info!(%role, generation, pid, "child started");
                self.running.insert(child, running);
                Event::Spawned { child, pid }
            }
            Err(error) => {
                let role = self.supervisor.child(child).map(|slot| slot.role.to_string());
                let error = chain(&error);
                tracing::error!(role, error, "child cannot be started");
                self.why = self.supervisor.operation().map(|_| error);
                Event::SpawnFailed { child }
            }
        };
        // Its orders come behind those that are waiting, and are carried out by the same loop.
        self.supervisor.handle(event, clock::now());
    }

    fn start(&mut self, child: ChildId) -> Result<Running, StartError> {
        let first_words = self.hooks.first_words();
        let slot = self.supervisor.child(child);
        let (role, generation) = slot.map_or((Role::Probe, 0), |slot| (slot.role, slot.generation));
        if role == Role::Probe {
            self.why = None;
            let spec = self.probe().map_err(StartError::Probe)?;
            let next = self.program.next().map_err(StartError::Program)?;
            let how = Start {
                exe: &next.exe,
                args: &next.child_args,
                user: self.user.as_ref(),
                generation,
                seat: 0,
                first_words: &[],
            };
            let running = Running::start(&spec, &how)?;
            self.next = Some(next);
            return Ok(running);
        }
        let is_taken = |seat: u32| {
            let same = |it: &Running| it.role == role && it.generation == generation && it.seat == seat;
            self.running.values().any(same)
        };
        let seat = (0..).find(|seat| !is_taken(*seat)).unwrap_or(0);
        let (spec, program, user) = match self.plans.get(&generation) {
            Some((plan, program)) => (plan.spec(role), program, plan.user.as_ref()),
            None => (self.permanent.iter().find(|spec| spec.role == role), &self.program, self.user.as_ref()),
        };
        let spec = spec.ok_or(StartError::NoSpec(role))?;
        let how = Start {
            exe: &program.exe,
            args: &program.child_args,
            user,
            generation,
            seat,
            first_words: &first_words,
        };
        Running::start(spec, &how)
    }

    fn tell(&self, child: ChildId, message: &ToChild) {
        if let Some(running) = self.running.get(&child) {
            running.tell(message);
        }
    }

    /// Hands the descriptors of an absent worker to a neighbour.
    fn cover(&self, slot: u32, by: ChildId) {
        let Some(neighbour) = self.running.get(&by) else { return };
        let plan = self.plans.get(&neighbour.generation);
        let Some(spec) = plan.and_then(|(plan, _)| plan.spec(Role::Worker(slot))) else { return };
        let fds: Vec<_> = spec.covered_fds().take(ChildSpec::MAX_COVERED).cloned().collect();
        neighbour.cover(slot, &fds);
    }

    fn on_signals(&mut self) -> Result<Option<u8>, MasterError> {
        while let Some(received) = self.signals.read().map_err(MasterError::Signals)? {
            let (name, sender_pid) = (signal::name(received.signal), received.sender_pid);
            tracing::info!(signal = name, sender_pid, "signal received");
            if let Some(code) = self.signal(received.signal) {
                return Ok(Some(code));
            }
        }
        Ok(None)
    }

    fn signal(&mut self, signal: Signal) -> Option<u8> {
        if signal == Signal::USR1 {
            self.hooks.on_reopen();
        }
        if !matches!(signal, Signal::TERM | Signal::INT | Signal::QUIT) {
            return self.handle(Event::Signal(signal));
        }
        let delay = self.hooks.shutdown_delay();
        // Who asks twice does not want to wait until balancers have noticed.
        if signal == Signal::QUIT
            && !delay.is_zero()
            && self.quit_at.is_none()
            && !self.supervisor.is_stopping()
        {
            tracing::info!(?delay, "not ready any more; the stop begins later");
            self.hooks.on_delayed_stop();
            self.quit_at = Some(clock::now() + delay);
            return None;
        }
        self.quit_at = None;
        self.handle(Event::Signal(signal))
    }

    fn on_messages(&mut self, child: ChildId) -> Option<u8> {
        while let Some((message, fds)) = self.running.get_mut(&child).and_then(Running::next_message) {
            let event = self.on_message(child, message, &fds);
            if let Some(code) = event.and_then(|event| self.handle(event)) {
                return Some(code);
            }
        }
        None
    }

    fn on_message(&mut self, child: ChildId, message: ToMaster, fds: &[OwnedFd]) -> Option<Event> {
        let running = self.running.get_mut(&child)?;
        let role = running.role;
        match message {
            ToMaster::Ready => return Some(Event::Ready { child }),
            ToMaster::Pong => return Some(Event::Pong { child }),
            ToMaster::Signalled(number) => {
                tracing::info!(%role, signal = signal::name_of_raw(number), "child was signalled");
                return Some(Event::Signalled { child });
            }
            ToMaster::Stopping => tracing::info!(%role, "child is stopping"),
            ToMaster::Status(text) => {
                tracing::debug!(%role, status = text, "child says what it is at");
                running.status = text;
                self.changed = true;
            }
            // It says so in its own records, too.
            ToMaster::Failed(why) => running.failed = Some(why),
            ToMaster::Answer { ticket } => {
                let read = fds.first().map(|fd| read_all(fd.as_fd(), MAX_ANSWER_BYTES));
                match read {
                    Some(Ok(answer)) => self.questions.answered(ticket, child, answer),
                    Some(Err(error)) => tracing::warn!(%role, %error, "answer of a child cannot be read"),
                    None => tracing::warn!(%role, "answer of a child without its content"),
                }
            }
        }
        None
    }

    fn on_exit(&mut self, child: ChildId) -> Result<Option<u8>, MasterError> {
        // What it said last was said before it ended, and a signal that ended it may have been meant for all.
        if let Some(code) = self.on_messages(child) {
            return Ok(Some(code));
        }
        if let Some(code) = self.on_signals()? {
            return Ok(Some(code));
        }
        let Some(status) = self.running.get(&child).and_then(Running::reap) else { return Ok(None) };
        // Why one ends beside an operation is not why a later one fails.
        if let Some(ended) = self.running.remove(&child)
            && ended.failed.is_some()
            && self.supervisor.operation().is_some()
        {
            self.why = ended.failed;
        }
        self.questions.gone(child);
        Ok(self.handle(Event::Exited { child, status }))
    }

    fn tick(&mut self) {
        let Some(interval) = self.hooks.tick() else { return };
        let now = clock::now();
        if self.next_tick.is_none_or(|at| at <= now) {
            self.hooks.on_tick();
            self.next_tick = Some(now + interval);
        }
    }

    fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let children = self.supervisor.children().map(|(id, slot)| {
            let ran = now.saturating_duration_since(slot.started_at);
            let running = self.running.get(&id);
            ChildSnapshot {
                id,
                role: slot.role,
                title: running.map_or_else(|| slot.role.title(), |running| running.title.clone()),
                generation: slot.generation,
                seat: running.map_or(0, |running| running.seat),
                pid: slot.pid,
                state: ChildState::of(slot),
                uptime: slot.pid.map(|_| ran).unwrap_or_default(),
                restarts: slot.restarts,
                last_exit: slot.last_exit,
                is_stuck: slot.is_stuck,
                is_paused: slot.is_paused,
                is_retired: slot.is_retired,
                status: running.map(|running| running.status.clone()).unwrap_or_default(),
            }
        });
        Snapshot {
            pid: std::process::id(),
            uptime: now.saturating_duration_since(self.started),
            generation: self.supervisor.generation(),
            is_running: self.supervisor.is_running(),
            is_stopping: self.supervisor.is_stopping(),
            operation: self.supervisor.operation(),
            children: children.collect(),
        }
    }
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

const FIRST_GENERATION: u32 = 1;
/// The longest answer of a child, in bytes.
const MAX_ANSWER_BYTES: usize = 16 << 20;
