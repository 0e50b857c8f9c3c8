//! The master's process: owns the listening sockets, starts the others, and reads no client's bytes.
//!
//! Order of a start: configuration (read by the caller), pid file, log, listeners, counters, log server, workers. A stop
//! is the reverse, the log server last.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{Metrics, ProcessWord};
use tidegate_log::LogClient;
use tidegate_process::{
    ChildSpec, ControlAnswer, ControlSocket, Limits, Master, MasterHooks, MasterOptions, Role, Signals,
    Snapshot,
};
use tidegate_sys::shared::{SharedMemory, sealed_bytes};
use tidegate_sys::signal::Signal;
use tidegate_sys::socket::listen_unix;

use super::log_server::LOG_FD;
use super::operated::Locked;
use super::worker::{LISTEN_PREFIX, METRICS_FD, SHARED_SUFFIX, SharedWords, announce, chain};
use super::{logging, operated};
use crate::layout::Layout;
use crate::server::{OnReady, Ready};
use crate::sockets::Bound;
use crate::status::{ProcessState, StatusSource};
use crate::{Error, ServerBuilder};

/// The name under which the configuration is handed over.
pub(crate) const CONFIG_FD: &str = "config";

/// Runs a server of several processes until it is stopped.
pub(crate) fn run(server: ServerBuilder, signals: Signals) -> Result<(), Error> {
    let locked = if server.operated { Some(operated::lock_data_dir(&server.config)?) } else { None };
    let log = if server.operated { Some(logging::to_server(&server.config, "master")?) } else { None };
    let file = server.config.file().map(|file| file.display().to_string());
    tracing::info!(version = env!("CARGO_PKG_VERSION"), config = file, "starting");
    let outcome = serve(server, signals, log.clone(), locked.as_ref());
    match &outcome {
        Err(error) => tracing::error!(error = %chain(error), "server failed"),
        Ok(()) => tracing::info!("stopped"),
    }
    if let Some(log) = log {
        let _ = log.close(logging::FLUSH_TIMEOUT);
    }
    outcome
}

fn serve(
    mut server: ServerBuilder,
    signals: Signals,
    log: Option<LogClient>,
    locked: Option<&Locked>,
) -> Result<(), Error> {
    operated::raise_open_files(&server.config)?;
    let workers = server.worker_count();
    let bound = server.bind(workers, locked.map_or(Duration::ZERO, |locked| locked.patience))?;
    for listener in &bound {
        tracing::info!(listener = listener.name, address = listener.address, "listening");
    }
    let (log_socket, control) = match server.operated {
        true => {
            let socket = operated::bind_log_socket(&server.config)?;
            (Some(socket), Some(ControlSocket::bind(&server.config.control_socket())?))
        }
        false => (None, None),
    };
    let places = server.layout().places(usize::try_from(workers).unwrap_or(usize::MAX));
    let words = Metrics::words_needed(places, server.counted_listeners());
    let memory = SharedMemory::create("tidegate-metrics", words * size_of::<u64>())
        .map_err(Error::system("making the counters"))?;
    let metrics_fd =
        Arc::new(memory.as_fd().try_clone_to_owned().map_err(Error::system("sharing the counters"))?);
    let metrics = Metrics::new(Arc::new(SharedWords(memory)), server.counted_listeners());
    announce(&metrics.process(Layout::MASTER), 0, 0);

    let children = children(&server, &bound, workers, &metrics_fd, log_socket)?;
    let limits = Limits { shutdown_timeout: server.config.process.shutdown_timeout, ..Limits::default() };
    let mut options =
        MasterOptions::new(children).map_err(Error::system("opening the program's own binary"))?;
    options.limits = limits;
    if server.operated {
        // Its children look at nothing but what they inherit, and `ps` shows their titles alone.
        options.args.clear();
    }
    options.control = control;
    let listeners = server.listener_metas(bound.iter().map(|b| b.address.as_str()));
    let ready = Ready { listeners: bound.iter().map(|b| (b.name.clone(), b.address.clone())).collect() };
    let status = StatusSource { metrics, listeners, layout: server.layout() };
    let hooks = Hooks { status, ready, on_ready: server.on_ready.take(), log, bound };
    let code = Master::new(signals, options, hooks).run()?;
    if server.operated {
        operated::remove_log_socket(&server.config);
    }
    match code {
        0 => Ok(()),
        code => Err(Error::ChildFailed(code)),
    }
}

/// The log server first, then the workers, each with the descriptors it needs and no other.
fn children(
    server: &ServerBuilder,
    bound: &[Bound],
    workers: u32,
    metrics: &Arc<OwnedFd>,
    log_socket: Option<OwnedFd>,
) -> Result<Vec<ChildSpec>, Error> {
    let json = server.config.to_json().map_err(|error| Error::Service(error.into()))?;
    let config = Arc::new(
        sealed_bytes("tidegate-config", &json).map_err(Error::system("handing the configuration over"))?,
    );
    let common =
        |role| ChildSpec::new(role).fd(METRICS_FD, Arc::clone(metrics)).fd(CONFIG_FD, Arc::clone(&config));
    let mut children = Vec::new();
    if let Some(socket) = log_socket {
        children.push(common(Role::LogServer).fd(LOG_FD, Arc::new(socket)));
    }
    let slots = server.slots_per_worker();
    for index in 0..workers {
        let mut child = common(Role::Worker(index));
        for (number, listener) in bound.iter().enumerate() {
            let suffix = if listener.shared { SHARED_SUFFIX } else { "" };
            for slot in 0..slots {
                let socket = listener.for_slot(usize::try_from(index).unwrap_or(0) * slots + slot);
                let name = format!("{LISTEN_PREFIX}{number}:{slot}{suffix}");
                child = child.fd(name, Arc::clone(socket));
            }
        }
        children.push(child);
    }
    Ok(children)
}

struct Hooks {
    status: StatusSource,
    ready: Ready,
    on_ready: Option<OnReady>,
    log: Option<LogClient>,
    bound: Vec<Bound>,
}

impl Hooks {
    fn set_state(&self, state: ProcessState) {
        self.status.metrics.process(Layout::MASTER).set(ProcessWord::State, state as u64);
    }
}

impl MasterHooks for Hooks {
    fn on_ready(&mut self, _: &Snapshot) {
        self.set_state(ProcessState::Ready);
        if let Some(on_ready) = self.on_ready.take() {
            on_ready(&self.ready);
        }
    }

    fn on_change(&mut self, snapshot: &Snapshot) {
        if let Some(log) = &self.log {
            self.status.metrics.process(Layout::MASTER).set(ProcessWord::LogDropped, log.dropped());
        }
        // A child that was killed could not say so itself.
        for child in snapshot.children.iter().filter(|child| child.pid.is_none()) {
            let places = match child.role {
                Role::LogServer => Layout::LOG_SERVER..Layout::LOG_SERVER + 1,
                Role::Worker(index) => {
                    self.status.layout.of_worker(usize::try_from(index).unwrap_or(usize::MAX))
                }
            };
            for process in places.map(|place| self.status.metrics.process(place)) {
                if process.get(ProcessWord::Pid) != 0 {
                    process.end(ProcessState::Ended as u64);
                }
            }
        }
    }

    fn on_control(&mut self, request: &[u8], _: &Snapshot) -> ControlAnswer {
        operated::answer(request, &self.status)
    }

    fn on_stopping(&mut self) {
        self.set_state(ProcessState::Retiring);
        self.bound.iter().for_each(Bound::remove_file);
        self.bound.clear();
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

/// The answer to an order that has begun: the master goes on as if it had received the signal.
pub(crate) fn begun(signal: Signal) -> ControlAnswer {
    ControlAnswer { body: b"{\"ok\":true}\n".to_vec(), signal: Some(signal) }
}

/// Listens at the log socket for the log server, which inherits it.
pub(crate) fn listen_log(path: &std::path::Path) -> std::io::Result<OwnedFd> {
    listen_unix(path, LOG_BACKLOG, LOG_SOCKET_MODE)
}

const LOG_BACKLOG: u32 = 128;
/// The owner and the group may log.
const LOG_SOCKET_MODE: u32 = 0o660;
