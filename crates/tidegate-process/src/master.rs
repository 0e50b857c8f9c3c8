//! The driver: one poll loop over signals, exits, control channels and the control socket, around the supervisor.
//!
//! The one invariant: nothing in the loop waits but its poll(2), and that no longer than until the next timeout. It
//! decides nothing; what is to be done comes as orders from the [`Supervisor`].

mod children;
mod clients;
mod hooks;

use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;
use tidegate_sys::process::Exe;
use tidegate_sys::signal::{self, Signal};
use tidegate_timer::Instant;

use crate::clock::{self, timespec};
use crate::control::{ToChild, ToMaster};
use crate::control_socket::ControlSocket;
use crate::signals::Signals;
use crate::snapshot::{ChildSnapshot, ChildState, Snapshot};
use crate::supervisor::{ChildId, Event, Limits, Order, Report, Supervisor};

use children::Kept;
use clients::{Clients, Ready};

pub use children::ChildSpec;
pub use hooks::{ControlAnswer, MasterHooks};

/// What a master is made of.
#[derive(Debug)]
pub struct MasterOptions {
    /// The binary of the children.
    pub exe: Exe,
    /// Their arguments behind the title: those of this process, so that `main` runs as before.
    pub args: Vec<OsString>,
    /// The children, in the order of the status.
    pub children: Vec<ChildSpec>,
    /// The times that they are granted.
    pub limits: Limits,
    /// Where requests are taken, if anywhere.
    pub control: Option<ControlSocket>,
}

impl MasterOptions {
    /// A master of these children: this very binary with the arguments of this process, the default limits and no control
    /// socket.
    ///
    /// # Errors
    ///
    /// The error of opening the binary.
    pub fn new(children: Vec<ChildSpec>) -> io::Result<Self> {
        let exe = Exe::open_self()?;
        let args = std::env::args_os().skip(1).collect();
        Ok(Self { exe, args, children, limits: Limits::default(), control: None })
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
/// use tidegate_process::{Child, ChildEvent, ChildSpec, ControlAnswer, Master, MasterHooks, MasterOptions, Role, Signals};
/// use tidegate_process::Snapshot;
///
/// struct Hooks;
/// impl MasterHooks for Hooks {
///     fn on_control(&mut self, _request: &[u8], snapshot: &Snapshot) -> ControlAnswer {
///         format!("{} children\n", snapshot.children.len()).into_bytes().into()
///     }
/// }
///
/// fn main() -> Result<(), Box<dyn std::error::Error>> {
///     if let Some(mut child) = Child::from_env()? {
///         child.ready()?;
///         while child.wait_event(None)? == Some(ChildEvent::Reopen) {}
///         return Ok(());
///     }
///     let signals = Signals::block()?;
///     let workers = (0..2).map(|index| ChildSpec::new(Role::Worker(index))).collect();
///     let code = Master::new(signals, MasterOptions::new(workers)?, Hooks).run()?;
///     std::process::exit(code.into())
/// }
/// ```
#[derive(Debug)]
pub struct Master<H> {
    exe: Exe,
    args: Vec<OsString>,
    signals: Signals,
    supervisor: Supervisor,
    /// At the same places as in the supervisor.
    children: Vec<Kept>,
    clients: Option<Clients>,
    hooks: H,
    started: Instant,
    /// Something is different from when `on_change` was last called.
    changed: bool,
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
        let roles = options.children.iter().map(|child| child.role);
        Self {
            supervisor: Supervisor::new(roles, options.limits),
            exe: options.exe,
            args: options.args,
            signals,
            children: options.children.into_iter().map(Kept::new).collect(),
            clients: options.control.map(Clients::new),
            hooks,
            started: clock::now(),
            changed: false,
        }
    }

    /// Starts the children and keeps them until a signal, a request or a failed start ends everything. Returns the exit
    /// code of the process: 0 after a stop, the children's own when the start failed.
    ///
    /// # Errors
    ///
    /// See [`MasterError`].
    pub fn run(mut self) -> Result<u8, MasterError> {
        let mut event = Event::Start;
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
            if let Some(clients) = &mut self.clients {
                clients.sweep(clock::now());
            }
            event = Event::Timeout;
        }
    }

    /// Waits until something can be done, or the next timeout has come.
    fn wait(&self) -> Result<Vec<Source>, MasterError> {
        let clients_timeout = self.clients.as_ref().and_then(Clients::poll_timeout);
        let deadline = self.supervisor.poll_timeout().into_iter().chain(clients_timeout).min();
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
        let running = || {
            let all = self.children.iter().enumerate();
            all.filter_map(|(index, child)| Some((ChildId(index), child.running.as_ref()?)))
        };
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
        match order {
            Order::Spawn { child } => self.spawn(child),
            Order::Stop { child } => self.tell(child, ToChild::Stop),
            Order::Quit { child, timeout } => self.tell(child, ToChild::Quit { timeout }),
            Order::Reopen { child } => self.tell(child, ToChild::Reopen),
            Order::Kill { child } => self.children[child.0].signal(Signal::KILL),
            Order::AnnounceReady => {
                tracing::info!(pid = std::process::id(), "ready");
                let snapshot = self.snapshot();
                self.hooks.on_ready(&snapshot);
            }
            Order::AnnounceStop => {
                // Nothing is started any more. Without our own descriptors, what the children let go of is closed: a
                // listening socket refuses at once instead of keeping peers that nobody will serve.
                self.children.iter_mut().for_each(|kept| kept.spec.fds.clear());
                self.hooks.on_stopping();
            }
            Order::WorkersGone => self.hooks.on_workers_gone(),
            Order::Report(report) => self.report(report),
            // Taken by `handle`.
            Order::Finish { .. } => {}
        }
        self.changed |= !matches!(order, Order::Reopen { .. });
    }

    fn spawn(&mut self, child: ChildId) {
        let kept = &mut self.children[child.0];
        let role = kept.spec.role;
        let event = match kept.start(&self.exe, &self.args) {
            Ok(pid) => {
                tracing::info!(%role, pid, "child started");
                Event::Spawned { child, pid }
            }
            Err(error) => {
                tracing::error!(%role, error = %chain(&error), "child cannot be started");
                Event::SpawnFailed { child }
            }
        };
        // Its orders come behind those that are waiting, and are carried out by the same loop.
        self.supervisor.handle(event, clock::now());
    }

    fn tell(&self, child: ChildId, message: ToChild) {
        self.children[child.0].tell(message);
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
        self.handle(Event::Signal(signal))
    }

    fn on_messages(&mut self, child: ChildId) -> Option<u8> {
        while let Some(message) = self.children[child.0].next_message() {
            let role = self.children[child.0].spec.role;
            let event = match message {
                ToMaster::Ready => Event::Ready { child },
                ToMaster::Signalled(number) => {
                    tracing::info!(%role, signal = signal::name_of_raw(number), "child was signalled");
                    Event::Signalled { child }
                }
                ToMaster::Stopping => {
                    tracing::info!(%role, "child is stopping");
                    continue;
                }
                ToMaster::Status(text) => {
                    tracing::debug!(%role, status = text, "child says what it is at");
                    self.children[child.0].status = text;
                    self.changed = true;
                    continue;
                }
            };
            if let Some(code) = self.handle(event) {
                return Some(code);
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
        let Some(status) = self.children[child.0].reap() else { return Ok(None) };
        Ok(self.handle(Event::Exited { child, status }))
    }

    fn on_client(&mut self, ready: Ready) -> Option<u8> {
        let now = clock::now();
        let request = self.clients.as_mut()?.on_ready(ready, now)?;
        tracing::debug!(request = %request.escape_ascii(), "control request");
        let snapshot = self.snapshot();
        let answer = self.hooks.on_control(&request, &snapshot);
        self.clients.as_mut()?.answer(ready, answer.body, now);
        answer.signal.and_then(|signal| {
            tracing::info!(signal = signal::name(signal), "asked by a control request");
            self.signal(signal)
        })
    }

    fn report(&self, report: Report) {
        let role = |child: ChildId| self.children[child.0].spec.role;
        match report {
            Report::Ready { child, took } => tracing::info!(role = %role(child), ?took, "{report}"),
            Report::Exited { child, pid, status, expected: true } => {
                tracing::info!(role = %role(child), pid, %status, "{report}");
            }
            Report::Exited { child, pid, status, expected: false } => {
                tracing::warn!(role = %role(child), pid, %status, "{report}");
            }
            Report::Restart { child, delay, early_deaths } => {
                tracing::warn!(role = %role(child), ?delay, early_deaths, "{report}");
            }
            Report::NotReady { child, .. } | Report::Overdue { child, .. } => {
                tracing::warn!(role = %role(child), "{report}");
            }
            Report::StartFailed { child, code } => tracing::error!(role = %role(child), code, "{report}"),
            Report::LogServerLate { .. } => tracing::error!("{report}"),
            Report::Stopping(_) => tracing::info!("{report}"),
            Report::Unsupported(_) => tracing::warn!("{report}"),
        }
    }

    fn snapshot(&self) -> Snapshot {
        let now = clock::now();
        let children = self.children.iter().enumerate().filter_map(|(index, kept)| {
            let slot = self.supervisor.child(ChildId(index))?;
            let ran = now.saturating_duration_since(slot.started_at);
            Some(ChildSnapshot {
                role: slot.role,
                title: kept.spec.title.clone(),
                generation: kept.spec.generation,
                pid: slot.pid,
                state: ChildState::of(slot),
                uptime: slot.pid.map(|_| ran).unwrap_or_default(),
                restarts: slot.restarts,
                last_exit: slot.last_exit,
                status: kept.status.clone(),
            })
        });
        Snapshot {
            pid: std::process::id(),
            uptime: now.saturating_duration_since(self.started),
            is_running: self.supervisor.is_running(),
            is_stopping: self.supervisor.is_stopping(),
            children: children.collect(),
        }
    }
}

/// An error with what caused it, on one line.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}
