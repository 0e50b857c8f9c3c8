//! The master's process: owns the listening sockets, starts the others, and reads no client's bytes.
//!
//! Order of a start: configuration (read by the caller), pid file, log, listeners, counters, log server, workers. A stop
//! is the reverse, the log server last. A reload makes a [`Generation`] beside the one that serves; an upgrade hands all of
//! this to the next image of the process as JSON and descriptors.

mod frozen;
mod gone;

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{Metrics, ProcessWord};
use tidegate_log::LogClient;
use tidegate_process::systemd::{ActivatedSockets, Notify};
use tidegate_process::{
    Amendment, Bundle, ChildAnswer, ChildSpec, ControlAnswer, ControlSocket, Master, MasterHooks,
    MasterOptions, Operation, PidFile, Plan, Role, Signals, Snapshot, TakenOver,
};
use tidegate_sys::signal::Signal;
use tidegate_sys::socket::listen_unix;

pub(crate) use frozen::FrozenHooks;

use super::generation::{Generation, shared_metrics};
use super::handout::{HANDOUT_FD, Handout, metrics_name};
use super::log_server::LOG_FD;
use super::operated::Locked;
use super::sampling::Sampling;
use super::worker::{announce, chain};
use super::{control, limits, logging, operated};
use crate::board::Board;
use crate::layout::Layout;
use crate::server::{OnReady, Ready};
use crate::status::{ListenerMeta, ProcessState, ROLE_MASTER, StatusSource, View};
use crate::tables::TableSizes;
use crate::{Error, ServerBuilder};

/// Runs a server of several processes until it is stopped.
pub(crate) fn run(server: ServerBuilder, signals: Signals) -> Result<(), Error> {
    let locked = if server.operated { Some(operated::lock_data_dir(&server)?) } else { None };
    let board = if server.operated { Some(Board::shared()?) } else { None };
    let log = match server.operated {
        true => Some(logging::to_server(&server.config, "master", 0, board.as_ref())?),
        false => None,
    };
    let file = server.config.file().map(|file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = file, "starting");
    if let (Some(user), None) = (&server.config.process.user, &server.credentials) {
        tracing::warn!(
            user,
            "process.user has no effect: only a master that is started as root can become another user"
        );
    }
    let outcome = start(server, signals, (log.clone(), board), locked);
    end(outcome, log)
}

/// Goes on where the image before was.
pub(crate) fn resume(
    server: ServerBuilder,
    signals: Signals,
    mut taken: Box<TakenOver>,
) -> Result<(), Error> {
    let hooks = serde_json::from_value(taken.hooks().clone()).map_err(|error| Error::Service(error.into()));
    let thawed = hooks.and_then(|hooks: FrozenHooks| Hooks::thaw(server, hooks, taken.fds()));
    let hooks = match thawed {
        Ok(hooks) => hooks,
        Err(error) => return Err(Error::Service(taken.revert(&chain(&error)).into())),
    };
    let log = hooks.log.clone();
    let master = match Master::resume(signals, &mut taken, hooks) {
        Ok(master) => master,
        Err(error) => return Err(Error::Service(taken.revert(&error.to_string()).into())),
    };
    drop(taken);
    let outcome = master.go_on().map_err(Error::from).and_then(finish);
    end(outcome, log)
}

fn end(outcome: Result<(), Error>, log: Option<LogClient>) -> Result<(), Error> {
    match &outcome {
        Err(error) => tracing::error!(error = %chain(error), "server failed"),
        Ok(()) => tracing::info!("stopped"),
    }
    if let Some(log) = log {
        let _ = log.close(logging::FLUSH_TIMEOUT);
    }
    outcome
}

fn start(
    mut server: ServerBuilder,
    signals: Signals,
    (log, board): (Option<LogClient>, Option<Board>),
    locked: Option<Locked>,
) -> Result<(), Error> {
    operated::raise_open_files(&server.config)?;
    let on_ready = server.on_ready.take();
    let patience = locked.as_ref().map_or(Duration::ZERO, |locked| locked.patience);
    let mut given = ActivatedSockets::take().map_err(|error| Error::Service(error.into()))?;
    let notify = Notify::from_env();
    let first = Generation::new(FIRST, server.again(), None, &mut given, patience)?;
    for name in given.names() {
        tracing::warn!(name, "no listener has the name of a socket that was handed over; it is closed");
    }
    for listener in &first.bound {
        tracing::info!(listener = listener.name, address = listener.address, "listening");
    }
    limits::report(&server.config, first.workers);
    let (log_socket, control) = match server.operated {
        true => {
            let socket = operated::bind_log_socket(&server)?;
            (Some(Arc::new(socket)), Some(ControlSocket::bind(&server.config.control_socket())?))
        }
        false => (None, None),
    };
    let operated = server.operated;
    let pid_file = locked.map(|locked| locked.pid_file);
    let mut hooks = Hooks::new(server, (log, board), pid_file, log_socket, notify)?;
    hooks.on_ready = on_ready;
    let mut options = MasterOptions::new(hooks.permanent_specs()?, hooks.plan(first)?)
        .map_err(Error::system("opening the program's own binary"))?;
    if operated {
        // Its children look at nothing but what they inherit, and `ps` shows their titles alone.
        options.program.child_args.clear();
    }
    options.control = control;
    let code = Master::new(signals, options, hooks).run()?;
    finish(code)
}

fn finish(code: u8) -> Result<(), Error> {
    match code {
        0 => Ok(()),
        code => Err(Error::ChildFailed(code)),
    }
}

/// What the server is, beside its processes.
pub(crate) struct Hooks {
    /// What the next generation is made from, by reading its configuration again.
    server: ServerBuilder,
    pub(crate) generations: BTreeMap<u32, Generation>,
    pub(crate) current: u32,
    /// The counters of what belongs to no generation.
    permanent: View,
    permanent_metrics: Arc<OwnedFd>,
    /// What all processes share besides.
    board: Option<Board>,
    sampling: Option<Sampling>,
    log: Option<LogClient>,
    log_socket: Option<Arc<OwnedFd>>,
    pid_file: Option<PidFile>,
    /// Of a master that goes on where another image was, until nothing can fail any more: one that is dropped removes its
    /// file.
    left_pid_file: Option<(PathBuf, OwnedFd)>,
    /// Whether what this removes at its end is its own.
    is_armed: bool,
    on_ready: Option<OnReady>,
    notify: Notify,
    /// What an operator has said about all processes, and a new one is told first: of listeners, and of the log's level.
    pub(crate) said: control::Said,
    /// Sockets that were added for the next generation, and that nobody accepts from yet.
    amendments: Vec<Amendment>,
    is_stopping: bool,
}

impl Hooks {
    fn new(
        server: ServerBuilder,
        (log, board): (Option<LogClient>, Option<Board>),
        pid_file: Option<PidFile>,
        log_socket: Option<Arc<OwnedFd>>,
        notify: Notify,
    ) -> Result<Self, Error> {
        let places = Layout::FIRST_PROCESS + server.processes.len();
        let listeners: Arc<[ListenerMeta]> = server.log_meta().into_iter().collect();
        let (metrics, tables, permanent_metrics) =
            shared_metrics(places, listeners.len(), TableSizes::default())?;
        announce(&metrics.process(Layout::MASTER), ROLE_MASTER, 0, FIRST, 0);
        let permanent = View { generation: 0, metrics, listeners, layout: Layout::PERMANENT, tables };
        Ok(Self {
            server,
            generations: BTreeMap::new(),
            current: 0,
            permanent,
            permanent_metrics,
            sampling: board.as_ref().map(Sampling::new),
            board,
            log,
            log_socket,
            pid_file,
            left_pid_file: None,
            is_armed: true,
            on_ready: None,
            notify,
            said: control::Said::default(),
            amendments: Vec::new(),
            is_stopping: false,
        })
    }

    /// The generation that serves, or is about to.
    pub(crate) fn current(&self) -> &Generation {
        let newest = || self.generations.values().next_back();
        self.generations.get(&self.current).or_else(newest).expect("there is a generation from the start on")
    }

    /// The counters of all generations that are left, the one that serves last.
    pub(crate) fn status(&self) -> StatusSource {
        let mut generations: Vec<View> = self.generations.values().map(|it| it.view.clone()).collect();
        // Its listeners are those that people know.
        generations.sort_by_key(|view| view.generation == u64::from(self.current));
        StatusSource { permanent: self.permanent.clone(), generations, board: self.board.clone() }
    }

    /// The children that belong to no generation.
    fn permanent_specs(&self) -> Result<Vec<ChildSpec>, Error> {
        let (permanent, board) = (self.permanent.clone(), self.board.clone());
        let status = StatusSource { permanent, generations: Vec::new(), board };
        let handout = Handout::new(0, &self.server, &status).file()?;
        let common = |role| {
            let spec = ChildSpec::new(role)
                .fd(HANDOUT_FD, Arc::clone(&handout))
                .fd(metrics_name(0), Arc::clone(&self.permanent_metrics));
            Board::hand_to(self.board.as_ref(), spec)
        };
        let mut specs = Vec::new();
        if let Some(socket) = &self.log_socket {
            specs.push(common(Role::LogServer).fd(LOG_FD, Arc::clone(socket)));
        }
        for (process, index) in self.server.processes.iter().zip(0..) {
            let mut spec = common(Role::Process(index)).fd(super::process::ARGS_FD, process.args_file()?);
            spec.title = format!("tidegate: {}", process.name);
            specs.push(spec);
        }
        Ok(specs)
    }

    /// Keeps a generation, and makes its plan.
    fn plan(&mut self, generation: Generation) -> Result<Plan, Error> {
        let mut status = self.status();
        status.generations.push(generation.view.clone());
        let others = self.generations.values().map(|it| (it.view.generation, Arc::clone(&it.metrics)));
        let mut metrics: Vec<(u64, Arc<OwnedFd>)> = others.collect();
        metrics.push((0, Arc::clone(&self.permanent_metrics)));
        metrics.push((generation.number.into(), Arc::clone(&generation.metrics)));
        let plan = generation.plan(&status, &metrics);
        let plan = plan.map(|children| Generation::into_plan(children, &generation.server));
        // Also when it failed: what was bound for it is let go of when it is forgotten.
        self.generations.insert(generation.number, generation);
        plan
    }

    fn next_generation(&mut self, number: u32) -> Result<Plan, Error> {
        let server = self.server.reread(&self.current().server.config)?;
        let next = Generation::new(
            number,
            server,
            Some(self.current()),
            &mut ActivatedSockets::default(),
            Duration::ZERO,
        )?;
        for bound in &next.bound {
            if !self.current().bound.iter().any(|it| it.is(&bound.name, &bound.configured)) {
                tracing::info!(listener = bound.name, address = bound.address, "listening");
            }
        }
        let grown = next.grown();
        let plan = self.plan(next)?;
        if let Some(current) = self.generations.get_mut(&self.current) {
            current.grow(&grown, &mut self.amendments)?;
        }
        Ok(plan)
    }

    fn own_place(&self) -> tidegate_engine::ProcessMetrics {
        self.permanent.metrics.process(Layout::MASTER)
    }

    fn set_state(&self, state: ProcessState) {
        self.own_place().set(ProcessWord::State, state as u64);
    }

    /// The places of a child among the counters, for what it can no longer enter itself.
    fn places(&self, child: &tidegate_process::ChildSnapshot) -> Option<(&Metrics, std::ops::Range<usize>)> {
        let permanent = |place: usize| (&self.permanent.metrics, place..place + 1);
        match child.role {
            Role::LogServer => Some(permanent(Layout::LOG_SERVER)),
            Role::Process(index) => Some(permanent(Layout::FIRST_PROCESS + usize::try_from(index).ok()?)),
            Role::Probe => None,
            Role::Acceptor => {
                let view = &self.generations.get(&child.generation)?.view;
                Some((&view.metrics, Layout::ACCEPTOR..Layout::ACCEPTOR + 1))
            }
            Role::Worker(index) => {
                let view = &self.generations.get(&child.generation)?.view;
                let (index, seat) = (usize::try_from(index).ok()?, usize::try_from(child.seat).ok()?);
                Some((&view.metrics, view.layout.of_worker(index, seat)))
            }
        }
    }

    /// What the master logs to.
    pub(crate) fn log(&self) -> Option<&LogClient> {
        self.log.as_ref()
    }

    /// Carries on what a generation that has ended has counted.
    fn carry(&self, ended: &Generation) {
        let current = &self.current().view;
        let carried = current.metrics.process(Layout::CARRIED);
        for (number, meta) in ended.view.listeners.iter().enumerate() {
            let same = |it: &ListenerMeta| it.name == meta.name && it.service == meta.service;
            let Some(place) = current.listeners.iter().position(same) else { continue };
            for process in 0..ended.view.metrics.processes() {
                carried.listener(place).absorb(&ended.view.metrics.process(process).listener(number));
            }
        }
        // Those who have these counters, too, show none of its processes any more.
        for process in 0..ended.view.metrics.processes() {
            ended.view.metrics.process(process).set(ProcessWord::Pid, 0);
        }
    }
}

impl MasterHooks for Hooks {
    fn on_ready(&mut self, snapshot: &Snapshot) {
        self.current = snapshot.generation;
        self.set_state(ProcessState::Ready);
        let bound = &self.current().bound;
        let ready = Ready { listeners: bound.iter().map(|b| (b.name.clone(), b.address.clone())).collect() };
        self.notify.ready(&ready.to_string());
        if let Some(on_ready) = self.on_ready.take() {
            on_ready(&ready);
        }
        let current = self.current;
        if let Some(generation) = self.generations.get_mut(&current) {
            generation.is_committed = true;
        }
    }

    fn on_change(&mut self, snapshot: &Snapshot) {
        if let Some(log) = &self.log {
            self.own_place().set(ProcessWord::LogDropped, log.dropped());
        }
        self.settle_gone(snapshot);
    }

    fn on_control(&mut self, request: &[u8], snapshot: &Snapshot) -> ControlAnswer {
        control::answer(self, request, snapshot)
    }

    fn on_answers(&mut self, request: &[u8], answers: &[ChildAnswer]) -> Vec<u8> {
        control::compose(request, answers)
    }

    fn first_words(&self) -> Vec<String> {
        self.said.words()
    }

    fn on_begun(&mut self, operation: Operation) {
        if matches!(operation, Operation::Reload | Operation::Upgrade) {
            self.notify.reloading();
        }
    }

    fn prepare(&mut self, generation: u32) -> Result<Plan, String> {
        self.next_generation(generation).map_err(|error| chain(&error))
    }

    fn amendments(&mut self) -> Vec<Amendment> {
        std::mem::take(&mut self.amendments)
    }

    fn on_leaving(&mut self) {
        // What is in its memory is not taken along.
        if let Some(log) = &self.log {
            let flushed = log.flush(LEAVE_TIMEOUT);
            if flushed.unsent > 0 {
                tracing::debug!(records = flushed.unsent, "records are left behind");
            }
        }
    }

    fn on_committed(&mut self, generation: u32) {
        self.current = generation;
        self.own_place().set(ProcessWord::Generation, generation.into());
        let Some(mut current) = self.generations.remove(&generation) else { return };
        current.is_committed = true;
        self.generations.values_mut().for_each(|older| older.release(&current.bound));
        for (bound, listener) in current.bound.iter().zip(&current.server.listeners) {
            bound.change_options(&listener.options.tcp);
        }
        if let Some(log) = &self.log {
            logging::set_levels(log, &current.server.config, self.said.level());
        }
        self.generations.insert(generation, current);
    }

    fn on_forgotten(&mut self, generation: u32) {
        if let Some(mut ended) = self.generations.remove(&generation) {
            if ended.is_committed {
                StatusSource::moving(&self.permanent, || self.carry(&ended));
            } else {
                // What it alone had bound; nobody was told of it.
                let kept = self.current().bound.clone();
                ended.release(&kept);
            }
        }
    }

    fn on_done(&mut self, operation: Operation, outcome: Result<u32, &str>) -> Vec<u8> {
        if matches!(operation, Operation::Reload | Operation::Upgrade) && !self.is_stopping {
            let text = match outcome {
                Ok(generation) => format!("generation {generation} serves"),
                Err(why) => {
                    format!("{} failed: {}", control::name_of(operation), why.lines().next().unwrap_or(""))
                }
            };
            self.notify.ready(&text);
        }
        control::outcome(outcome)
    }

    fn probe(&mut self) -> Result<ChildSpec, String> {
        // It finds its configuration as a successor would: in the state that it is handed besides.
        Ok(ChildSpec::new(Role::Probe))
    }

    fn freeze<'a>(&'a self, bundle: &mut Bundle<'a>) -> Result<serde_json::Value, String> {
        self.frozen(bundle)
    }

    fn on_resumed(&mut self) {
        self.is_armed = true;
        let Some((path, fd)) = self.left_pid_file.take() else { return };
        match PidFile::resume(&path, fd) {
            Ok(file) => self.pid_file = Some(file),
            Err(error) => tracing::error!(error = chain(&error), "the pid file is not ours any more"),
        }
    }

    fn last_words(&mut self, pid: u32) -> Vec<String> {
        match &self.log {
            Some(_) => match tidegate_log::last_records(&self.server.config.log_dir(), pid, LAST_RECORDS) {
                Ok(records) => records.iter().map(|record| record.body.to_string()).collect(),
                Err(error) => vec![format!("the log cannot be read: {error}")],
            },
            None => Vec::new(),
        }
    }

    fn tick(&self) -> Option<Duration> {
        let sampling = self.sampling.is_some().then_some(Sampling::INTERVAL);
        self.notify.watchdog_interval().into_iter().chain(sampling).min()
    }

    fn on_tick(&mut self) {
        self.notify.watchdog();
        if let Some(mut sampling) = self.sampling.take() {
            sampling.look(&self.status());
            self.sampling = Some(sampling);
        }
    }

    fn shutdown_delay(&self) -> Duration {
        self.current().server.config.process.shutdown_delay
    }

    fn on_delayed_stop(&mut self) {
        self.set_state(ProcessState::Retiring);
    }

    fn on_stopping(&mut self) {
        self.is_stopping = true;
        self.set_state(ProcessState::Retiring);
        self.notify.stopping();
        for generation in self.generations.values_mut() {
            generation.release(&[]);
        }
    }

    fn on_workers_gone(&mut self) {
        // The log server ends next, and reads until its clients have closed.
        if let Some(log) = &self.log {
            let flushed = log.close(logging::FLUSH_TIMEOUT);
            if flushed.unsent > 0 {
                tracing::warn!(
                    records = flushed.unsent,
                    "records were not stored; they stand on standard error"
                );
            }
        }
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        if self.server.operated && self.is_armed {
            operated::remove_log_socket(&self.server.config);
        }
    }
}

/// Listens at the log socket for the log server, which inherits it.
pub(crate) fn listen_log(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    listen_unix(path, LOG_BACKLOG, LOG_SOCKET_MODE)
}

/// The answer to an order that has begun: the master goes on as if it had received the signal.
pub(crate) fn begun(signal: Signal) -> ControlAnswer {
    ControlAnswer::Signal { body: b"{\"ok\":true}\n".to_vec(), signal }
}

const FIRST: u32 = 1;
/// How long a log server that does not answer may hold an upgrade up.
const LEAVE_TIMEOUT: Duration = Duration::from_millis(250);
const LOG_BACKLOG: u32 = 128;
/// The owner and the group may log.
const LOG_SOCKET_MODE: u32 = 0o660;
/// How many of the last records of a process that dies again and again are shown.
const LAST_RECORDS: usize = 5;
