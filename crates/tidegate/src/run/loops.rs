//! `WorkerLoops`: the event loops of a process, each on a thread of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use tidegate_engine::{
    EngineConfig, Epoll, Loop, LoopBuilder, LoopHandle, Metrics, ProcessMetrics, Socket, TimerKind, Trigger,
};

use crate::config::{self, Config};
use crate::status::StatusSource;
use crate::{Error, ServerBuilder};

/// A loop that has not been started, and the handle to it.
pub(crate) type Built = (Loop<Epoll>, LoopHandle);

/// Builds the services and the loop around them; with each socket goes its real address.
pub(crate) fn build_loop(
    server: &ServerBuilder,
    metrics: &Metrics,
    own: &ProcessMetrics,
    sockets: Vec<(Socket, String)>,
) -> Result<Built, Error> {
    let listeners = server.listener_metas(sockets.iter().map(|(_, address)| address.as_str()));
    let status = StatusSource { metrics: metrics.clone(), listeners, loops: server.loop_count() };
    let mut builder = LoopBuilder::new(engine_config(server)).metrics(own.clone());
    for (listener, (socket, _)) in server.listeners.iter().zip(sockets) {
        builder = builder.listen_boxed(&listener.name, socket, (listener.factory)(&status));
    }
    builder.build().map_err(Error::Service)
}

/// What a loop may take: its share of what the worker may.
pub(crate) fn engine_config(server: &ServerBuilder) -> EngineConfig {
    EngineConfig {
        max_connections: server.config.engine.max_connections.div_ceil(server.loop_count()),
        trigger: match server.config.engine.trigger {
            config::Trigger::Level => Trigger::Level,
            config::Trigger::Edge => Trigger::Edge,
            config::Trigger::Oneshot => Trigger::Oneshot,
        },
        timers: match server.config.engine.timers {
            config::Timers::Wheel => TimerKind::Wheel,
            config::Timers::Heap => TimerKind::Heap,
            config::Timers::Tree => TimerKind::Tree,
            config::Timers::List => TimerKind::List,
        },
        ..EngineConfig::default()
    }
}

/// Running event loops.
#[derive(Debug)]
pub(crate) struct WorkerLoops(Vec<RunningLoop>);

#[derive(Debug)]
struct RunningLoop {
    handle: LoopHandle,
    thread: JoinHandle<std::io::Result<()>>,
    ended: Arc<AtomicBool>,
}

impl WorkerLoops {
    /// Starts a thread for each loop; `at_end` is called on it when its loop has ended.
    pub(crate) fn start(
        built: Vec<Built>,
        config: &Config,
        at_end: impl Fn() + Clone + Send + 'static,
    ) -> Result<Self, Error> {
        let mut loops = Self(Vec::with_capacity(built.len()));
        for (index, built) in built.into_iter().enumerate() {
            match RunningLoop::start(built, index, config, at_end.clone()) {
                Ok(running) => loops.0.push(running),
                Err(error) => {
                    loops.stop();
                    return Err(Error::System {
                        what: "starting the thread of an event loop",
                        source: error,
                    });
                }
            }
        }
        Ok(loops)
    }

    pub(crate) fn quit(&self, grace: Duration) {
        self.0.iter().for_each(|running| running.handle.quit(grace));
    }

    pub(crate) fn stop(&self) {
        self.0.iter().for_each(|running| running.handle.stop());
    }

    /// Whether a loop has ended; its thread may still be about to.
    pub(crate) fn has_ended(&self) -> bool {
        self.0.iter().any(RunningLoop::has_ended)
    }

    /// Whether all loops have ended.
    pub(crate) fn is_finished(&self) -> bool {
        self.0.iter().all(RunningLoop::has_ended)
    }

    /// Waits for the end of all loops. The error is that of the first one that failed.
    pub(crate) fn join(self) -> Result<(), Error> {
        let outcomes: Vec<_> = self.0.into_iter().map(RunningLoop::join).collect();
        let first: Result<(), std::io::Error> = outcomes.into_iter().collect();
        first.map_err(Error::system("event loop"))
    }
}

impl RunningLoop {
    fn start(
        (mut event_loop, handle): Built,
        index: usize,
        config: &Config,
        at_end: impl FnOnce() + Send + 'static,
    ) -> std::io::Result<Self> {
        let ended = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&ended);
        let builder = std::thread::Builder::new()
            .name(format!("loop-{index}"))
            .stack_size(config.engine.thread_stack.as_usize());
        let thread = builder.spawn(move || {
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
        self.thread.join().unwrap_or_else(|_| Err(std::io::Error::other("the event loop panicked")))
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
