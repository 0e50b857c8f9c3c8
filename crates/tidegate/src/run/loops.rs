//! `WorkerLoops`: the event loops of a process, each on a thread of its own.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tidegate_engine::{
    Dispatch, EngineConfig, Epoll, HandlerPool, Loop, LoopBuilder, LoopHandle, Metrics, ProcessMetrics,
    ProcessWord, Socket, TimerKind, Trigger,
};
use tidegate_sys::socket::set_nodelay;

use super::threads::{Started, Threads};
use crate::config;
use crate::status::StatusSource;
use crate::{Error, ServerBuilder};

/// A loop that has not been started, and the handle to it.
pub(crate) type Built = (Loop<Epoll>, LoopHandle);

/// A listener's socket for one loop.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    /// Others poll it too, and each connection is to wake one of them.
    pub(crate) shared: bool,
    /// The real address.
    pub(crate) address: String,
}

/// Builds the services and the loop around them.
pub(crate) fn build_loop(
    server: &ServerBuilder,
    metrics: &Metrics,
    own: &ProcessMetrics,
    sockets: Vec<Listening>,
    pool: Option<&HandlerPool>,
) -> Result<Built, Error> {
    let listeners = server.listener_metas(sockets.iter().map(|socket| socket.address.as_str()));
    let status = StatusSource { metrics: metrics.clone(), listeners, loops: server.loop_count() };
    let mut builder = LoopBuilder::new(engine_config(server)?).metrics(own.clone());
    if let Some(pool) = pool {
        builder = builder.pool(pool);
    }
    let mut with_delay = Vec::new();
    for (listener, Listening { fd, shared, .. }) in server.listeners.iter().zip(sockets) {
        if !listener.options.tcp.nodelay {
            with_delay.push(fd.try_clone().map_err(Error::system("sharing a socket"))?);
        }
        let socket = if shared { Socket::shared(fd) } else { Socket::own(fd) };
        builder = builder.listen_boxed(&listener.name, socket, (listener.factory)(&status));
    }
    let built = builder.build().map_err(Error::Service)?;
    // The loop sets `TCP_NODELAY` on whatever it is given.
    with_delay
        .iter()
        .try_for_each(|socket| set_nodelay(socket, false))
        .map_err(Error::system("setting an option of a socket"))?;
    Ok(built)
}

/// What a loop may take: its share of what the worker may.
fn engine_config(server: &ServerBuilder) -> Result<EngineConfig, Error> {
    Ok(EngineConfig {
        max_connections: server.config.engine.max_connections.div_ceil(server.loop_count()),
        trigger: match server.config.engine.trigger {
            config::Trigger::Level => Trigger::Level,
            config::Trigger::Edge => Trigger::Edge,
            config::Trigger::Oneshot => Trigger::Oneshot,
        },
        dispatch: match server.config.engine.dispatch {
            config::Dispatch::Inline => Dispatch::Inline,
            config::Dispatch::Pool => Dispatch::Pool,
            other @ (config::Dispatch::Reactor | config::Dispatch::LeaderFollower) => {
                return Err(Error::Service(
                    format!("engine.dispatch = \"{other}\" is not yet supported").into(),
                ));
            }
        },
        timers: match server.config.engine.timers {
            config::Timers::Wheel => TimerKind::Wheel,
            config::Timers::Heap => TimerKind::Heap,
            config::Timers::Tree => TimerKind::Tree,
            config::Timers::List => TimerKind::List,
        },
        ..EngineConfig::default()
    })
}

/// The pool of handlers that the loops of a worker share, when `engine.dispatch` has one.
pub(crate) fn start_pool(server: &ServerBuilder, threads: &Threads) -> Result<Option<HandlerPool>, Error> {
    let engine = &server.config.engine;
    if engine.dispatch != config::Dispatch::Pool {
        return Ok(None);
    }
    let count = usize::try_from(engine.pool_threads.resolve(MAX_POOL_THREADS)).unwrap_or(1).max(1);
    threads.start_pool(count).map(Some)
}

/// What `"auto"` stops at on a very large machine.
const MAX_POOL_THREADS: u32 = 1024;

/// Running event loops, and the pool that handles their messages.
#[derive(Debug)]
pub(crate) struct WorkerLoops {
    loops: Vec<RunningLoop>,
    /// Stopped when the loops have ended, since each waits for its messages.
    pool: Option<HandlerPool>,
}

#[derive(Debug)]
struct RunningLoop {
    handle: LoopHandle,
    thread: Started,
    ended: Arc<AtomicBool>,
}

impl WorkerLoops {
    /// Starts a thread for each loop; `at_end` is called on it when its loop has ended.
    pub(crate) fn start(
        built: Vec<Built>,
        pool: Option<HandlerPool>,
        threads: &Threads,
        at_end: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        let mut loops = Self { loops: Vec::with_capacity(built.len()), pool };
        for (index, built) in built.into_iter().enumerate() {
            match RunningLoop::start(built, index, threads, at_end.clone()) {
                Ok(running) => loops.loops.push(running),
                Err(error) => {
                    loops.stop();
                    return Err(error);
                }
            }
        }
        Ok(loops)
    }

    /// Enters each thread into the place of its loop.
    pub(crate) fn publish(&self, places: &[ProcessMetrics]) {
        for (running, place) in self.loops.iter().zip(places) {
            place.set(ProcessWord::Tid, running.thread.about.tid);
            place.set(ProcessWord::ThreadStack, running.thread.about.stack);
        }
    }

    pub(crate) fn quit(&self, grace: Duration) {
        self.loops.iter().for_each(|running| running.handle.quit(grace));
    }

    pub(crate) fn stop(&self) {
        self.loops.iter().for_each(|running| running.handle.stop());
    }

    /// Whether a loop has ended; its thread may still be about to.
    pub(crate) fn has_ended(&self) -> bool {
        self.loops.iter().any(RunningLoop::has_ended)
    }

    /// Whether all loops have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.loops.iter().all(RunningLoop::has_ended)
    }

    /// Waits for the end of all loops. The error is that of the first one that failed.
    pub(crate) fn join(self) -> Result<(), Error> {
        let outcomes: Vec<_> = self.loops.into_iter().map(RunningLoop::join).collect();
        if let Some(pool) = self.pool {
            pool.stop();
        }
        let first: Result<(), std::io::Error> = outcomes.into_iter().collect();
        first.map_err(Error::system("event loop"))
    }
}

impl RunningLoop {
    fn start(
        (mut event_loop, handle): Built,
        index: usize,
        threads: &Threads,
        at_end: impl FnOnce() + Send + 'static,
    ) -> Result<Self, Error> {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let thread = threads.spawn(format!("loop-{index}"), index, move || {
            // Runs also when the loop panics, which would otherwise leave a process that serves nobody.
            let _at_end = AtEnd(Some(move || {
                flag.store(true, Ordering::Release);
                at_end();
            }));
            event_loop.run()
        })?;
        Ok(Self { handle, thread, ended })
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }

    fn join(self) -> std::io::Result<()> {
        self.thread.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the event loop panicked")))
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
