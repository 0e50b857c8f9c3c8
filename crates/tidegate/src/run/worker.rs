//! A worker's process: an event loop on a thread of its own; the main thread listens to the master and to signals.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tidegate_engine::{
    EngineConfig, Epoll, Loop, LoopBuilder, LoopHandle, Metrics, ProcessMetrics, ProcessWord, Socket, Words,
};
use tidegate_log::LogClient;
use tidegate_process::{Child, ChildEvent, ChildWaker};
use tidegate_sys::shared::SharedMemory;

use super::logging;
use super::watch::Watch;
use crate::config::Config;
use crate::sockets::real_address;
use crate::status::{ProcessState, StatusSource, place, unix_time};
use crate::{Error, ServerBuilder};

/// The name under which the counters are handed over.
pub(crate) const METRICS_FD: &str = "metrics";
/// What the names of listening sockets begin with.
pub(crate) const LISTEN_PREFIX: &str = "listen:";

/// Plays the part of worker `index` until it is told to end.
pub(crate) fn run(server: &ServerBuilder, mut child: Child, index: u32) -> Result<(), Error> {
    let log = match server.operated {
        true => Some(logging::to_server(&server.config, &format!("worker {index}"))?),
        false => None,
    };
    let outcome = serve(server, &mut child, index, log.clone());
    if let Err(error) = &outcome {
        tracing::error!(error = %chain(error), "worker failed");
    }
    if let Some(log) = log {
        let _ = log.close(logging::FLUSH_TIMEOUT);
    }
    outcome
}

fn serve(server: &ServerBuilder, child: &mut Child, index: u32, log: Option<LogClient>) -> Result<(), Error> {
    let metrics = metrics_of(server, child)?;
    let place = place::FIRST_WORKER + usize::try_from(index).unwrap_or(usize::MAX);
    let own = metrics.process(place);
    announce(&own, 2, index.into());
    let sockets = take_sockets(server, child)?;
    let timeout = server.config.process.shutdown_timeout;
    let built = build_loop(server, &metrics, &own, sockets)?;
    let event_loop = WorkerLoop::start(built, &server.config, child.waker())?;
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    tracing::info!(listeners = server.listeners.len(), "worker serves");
    child.ready().map_err(Error::system("telling the master"))?;
    let mut watch = Watch::new(server, own.clone(), log);
    let mut give_up_at = None;
    loop {
        let event = child.wait_event(Some(watch.interval())).map_err(Error::system("waiting for orders"))?;
        watch.look();
        match event {
            Some(ChildEvent::Quit { timeout: told }) => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                event_loop.quit(told.unwrap_or(timeout));
            }
            Some(ChildEvent::MasterGone) => {
                tracing::error!("the master has gone; finishing what is in flight");
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                event_loop.quit(timeout);
                // Nobody is left who would end a loop that is stuck in a callback.
                give_up_at = Some(Instant::now() + timeout + STUCK_AFTER);
            }
            Some(ChildEvent::Stop) => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                event_loop.stop();
            }
            Some(ChildEvent::Woken) if event_loop.is_finished() => break,
            // A worker has no files of its own to open again.
            Some(ChildEvent::Reopen | ChildEvent::Woken) | None => {}
        }
        if give_up_at.is_some_and(|at| at <= Instant::now()) {
            return Err(Error::Service("the event loop is stuck; ending without it".into()));
        }
    }
    let outcome = event_loop.join();
    own.set(ProcessWord::State, ProcessState::Ended as u64);
    tracing::info!("worker ends");
    outcome
}

/// How long after its time-out a loop without a master is given up.
const STUCK_AFTER: Duration = Duration::from_secs(5);

/// The listening sockets, in the order of the listeners, and whether each is shared.
fn take_sockets(server: &ServerBuilder, child: &mut Child) -> Result<Vec<(Socket, String)>, Error> {
    let mut inherited = child.take_fds_with_prefix(LISTEN_PREFIX);
    let mut sockets = Vec::with_capacity(server.listeners.len());
    for listener in &server.listeners {
        let found = inherited
            .iter()
            .position(|(name, _)| name.strip_suffix(SHARED_SUFFIX).unwrap_or(name) == listener.name.as_str());
        let Some(at) = found else {
            return Err(Error::Service(
                format!("no socket was handed over for listener \"{}\"", listener.name).into(),
            ));
        };
        let (name, fd) = inherited.swap_remove(at);
        let address = real_address(&listener.address, &fd);
        let socket = if name.ends_with(SHARED_SUFFIX) { Socket::shared(fd) } else { Socket::own(fd) };
        sockets.push((socket, address));
    }
    Ok(sockets)
}

/// Marks the socket of a listener that all workers poll.
pub(crate) const SHARED_SUFFIX: &str = ":shared";

/// Builds the services and the loop around them.
pub(crate) fn build_loop(
    server: &ServerBuilder,
    metrics: &Metrics,
    own: &ProcessMetrics,
    sockets: Vec<(Socket, String)>,
) -> Result<Built, Error> {
    let listeners = server.listener_metas(sockets.iter().map(|(_, address)| address.as_str()));
    let status = StatusSource { metrics: metrics.clone(), listeners };
    let mut builder = LoopBuilder::new(engine_config(&server.config)).metrics(own.clone());
    for (listener, (socket, _)) in server.listeners.iter().zip(sockets) {
        builder = builder.listen_boxed(&listener.name, socket, (listener.factory)(&status));
    }
    builder.build().map_err(Error::Service)
}

pub(crate) type Built = (Loop<Epoll>, LoopHandle);

/// An event loop on its thread.
#[derive(Debug)]
pub(crate) struct WorkerLoop {
    handle: LoopHandle,
    thread: JoinHandle<std::io::Result<()>>,
    ended: Arc<AtomicBool>,
}

impl WorkerLoop {
    /// Starts the loop's thread; the main thread is woken when it ends.
    pub(crate) fn start(built: Built, config: &Config, waker: ChildWaker) -> Result<Self, Error> {
        Self::start_with(built, config, move || waker.wake())
    }

    /// As [`start`](Self::start), with whatever is to be done in the end.
    pub(crate) fn start_with(
        built: Built,
        config: &Config,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let (mut event_loop, handle) = built;
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = std::thread::Builder::new()
            .name("loop-0".to_owned())
            .stack_size(config.engine.thread_stack.as_usize())
            .spawn(move || {
                // Runs also when the loop panics, which would otherwise leave a process that serves nobody.
                let _at_end = AtEnd(Some(move || {
                    flag.store(true, Ordering::Release);
                    at_end();
                }));
                event_loop.run()
            })
            .map_err(Error::system("starting the thread of the event loop"))?;
        Ok(Self { handle, thread, ended })
    }

    pub(crate) fn quit(&self, grace: Duration) {
        self.handle.quit(grace);
    }

    pub(crate) fn stop(&self) {
        self.handle.stop();
    }

    pub(crate) fn handle(&self) -> LoopHandle {
        self.handle.clone()
    }

    /// Whether the loop has ended; its thread may still be about to.
    pub(crate) fn is_finished(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    pub(crate) fn into_thread(self) -> JoinHandle<std::io::Result<()>> {
        self.thread
    }

    pub(crate) fn join(self) -> Result<(), Error> {
        let outcome = self.thread.join();
        let outcome = outcome.unwrap_or_else(|_| Err(std::io::Error::other("the event loop panicked")));
        outcome.map_err(Error::system("event loop"))
    }
}

struct AtEnd<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> Drop for AtEnd<F> {
    fn drop(&mut self) {
        if let Some(at_end) = self.0.take() {
            at_end();
        }
    }
}

/// The counters that all processes share.
pub(crate) fn metrics_of(server: &ServerBuilder, child: &mut Child) -> Result<Metrics, Error> {
    let fd =
        child.take_fd(METRICS_FD).ok_or_else(|| Error::Service("no counters were handed over".into()))?;
    let memory = SharedMemory::from_fd(fd).map_err(Error::system("mapping the counters"))?;
    Ok(Metrics::new(Arc::new(SharedWords(memory)), server.counted_listeners()))
}

/// Shared memory as the words of [`Metrics`].
#[derive(Debug)]
pub(crate) struct SharedWords(pub(crate) SharedMemory);

impl Words for SharedWords {
    fn words(&self) -> &[std::sync::atomic::AtomicU64] {
        self.0.as_atomics()
    }
}

pub(crate) fn engine_config(config: &Config) -> EngineConfig {
    EngineConfig { max_connections: config.engine.max_connections, ..EngineConfig::default() }
}

/// Enters this process into its place among the counters.
pub(crate) fn announce(own: &ProcessMetrics, role: u64, index: u64) {
    // The place still has what the process before left there.
    let restarts = own.get(ProcessWord::Restarts) + u64::from(own.get(ProcessWord::Pid) != 0);
    own.begin();
    own.set(ProcessWord::Restarts, restarts);
    own.set(ProcessWord::Role, role);
    own.set(ProcessWord::Index, index);
    own.set(ProcessWord::Generation, logging::GENERATION);
    own.set(ProcessWord::StartedUnix, unix_time());
    own.set(ProcessWord::State, ProcessState::Starting as u64);
    own.set(ProcessWord::Pid, std::process::id().into());
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let next = cause.to_string();
        if !text.ends_with(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        source = cause.source();
    }
    text
}
