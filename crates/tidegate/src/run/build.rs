//! `Built`: the threads of a worker, put together as the configuration says and not yet started.
//!
//! Invariant: either each loop has a socket of each listener, or the acceptor has them all and the loops have none. Nothing
//! runs here but the threads of the pool.

use std::os::fd::OwnedFd;

use tidegate_engine::{
    Acceptor, AcceptorBuilder, AcceptorHandle, Backend, Balance, Budget, Dispatch, EngineConfig, Epoll,
    EventLoop, HandlerPool, LoopBuilder, LoopHandle, Metrics, ProcessMetrics, Socket, TimerKind, Trigger,
};

use super::threads::Threads;
use crate::config;
use crate::status::StatusSource;
use crate::{Error, ServerBuilder};

/// The threads of a worker before they run.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) loops: Vec<EventLoop>,
    /// Accepts for the loops, when they do not for themselves.
    pub(crate) acceptor: Option<Acceptor<Epoll>>,
    pub(crate) handles: Handles,
    pub(crate) pool: Option<HandlerPool>,
    /// What the threads are given.
    pub(crate) threads: Threads,
}

/// Whom to tell that the worker ends.
#[derive(Debug)]
pub(crate) enum Handles {
    /// Each loop.
    Loops(Vec<LoopHandle>),
    /// The acceptor, which tells the loops when they have all that it has accepted.
    Acceptor(AcceptorHandle),
}

/// A listener's socket for whoever accepts from it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    /// Others poll it too, and each connection is to wake one of them.
    pub(crate) shared: bool,
    /// The real address.
    pub(crate) address: String,
}

impl Built {
    /// Builds the services and loops of worker `index`. `sockets` gives the sockets in a slot of this worker, see
    /// [`ServerBuilder::slots_per_worker`], in the order of the listeners.
    pub(crate) fn new(
        server: &ServerBuilder,
        metrics: &Metrics,
        index: usize,
        sockets: impl FnMut(usize) -> Result<Vec<Listening>, Error>,
    ) -> Result<Self, Error> {
        let threads = Threads::of_worker(&server.config, index, server.loop_count());
        let pool = start_pool(server, &threads)?;
        let places = server.layout().of_worker(index).map(|place| metrics.process(place)).collect();
        let budget = Budget::new(server.config.engine.max_buffer_bytes.as_usize());
        let plan = Plan { server, metrics, places, pool: pool.as_ref(), threads: &threads, budget };
        let (loops, acceptor, handles) =
            if server.has_acceptor() { plan.main_accepts(sockets)? } else { plan.each_accepts(sockets)? };
        Ok(Self { loops, acceptor, handles, pool, threads })
    }

    /// One loop that accepts for itself.
    pub(crate) fn of_loop((event_loop, handle): (EventLoop, LoopHandle), threads: Threads) -> Self {
        let handles = Handles::Loops(vec![handle]);
        Self { loops: vec![event_loop], acceptor: None, handles, pool: None, threads }
    }
}

/// What the loops of a worker are made from.
struct Plan<'a> {
    server: &'a ServerBuilder,
    metrics: &'a Metrics,
    /// Among the counters, in the order of the seats.
    places: Vec<ProcessMetrics>,
    pool: Option<&'a HandlerPool>,
    threads: &'a Threads,
    /// Of all loops together.
    budget: Budget,
}

type Parts = (Vec<EventLoop>, Option<Acceptor<Epoll>>, Handles);

impl Plan<'_> {
    /// Loops with sockets of their own.
    fn each_accepts(
        &self,
        mut sockets: impl FnMut(usize) -> Result<Vec<Listening>, Error>,
    ) -> Result<Parts, Error> {
        let (mut loops, mut handles) = (Vec::new(), Vec::new());
        for number in 0..self.server.loop_count() {
            let (sockets, addresses) = self.engine_sockets(sockets(number)?);
            let (event_loop, handle) = self.event_loop(number, sockets, &addresses)?;
            loops.push(event_loop);
            handles.push(handle);
        }
        Ok((loops, None, Handles::Loops(handles)))
    }

    /// Loops without sockets, and an acceptor that has them.
    fn main_accepts(
        &self,
        mut sockets: impl FnMut(usize) -> Result<Vec<Listening>, Error>,
    ) -> Result<Parts, Error> {
        let (sockets, addresses) = self.engine_sockets(sockets(0)?);
        let (mut loops, mut handles) = (Vec::new(), Vec::new());
        for number in 0..self.server.loop_count() {
            let none = sockets.iter().map(|_| Socket::handed_over()).collect();
            let (event_loop, handle) = self.event_loop(number, none, &addresses)?;
            loops.push(event_loop);
            handles.push(handle);
        }
        let own = self.places[self.server.loop_count()].clone();
        let mut builder = AcceptorBuilder::new(balance(self.server), handles).metrics(own);
        for (listener, socket) in self.server.listeners.iter().zip(sockets) {
            builder = builder.listen(&listener.name, socket);
        }
        let (acceptor, handle) = builder.build().map_err(Error::Service)?;
        Ok((loops, Some(acceptor), Handles::Acceptor(handle)))
    }

    /// The sockets with their options, and their real addresses.
    fn engine_sockets(&self, sockets: Vec<Listening>) -> (Vec<Socket>, Vec<String>) {
        let with_options = self.server.listeners.iter().zip(sockets).map(|(listener, socket)| {
            let Listening { fd, shared, address } = socket;
            let socket = if shared { Socket::shared(fd) } else { Socket::own(fd) };
            (socket.nodelay(listener.options.tcp.nodelay), address)
        });
        with_options.unzip()
    }

    /// Builds the services and the loop around them.
    fn event_loop(
        &self,
        number: usize,
        sockets: Vec<Socket>,
        addresses: &[String],
    ) -> Result<(EventLoop, LoopHandle), Error> {
        let server = self.server;
        let listeners = server.listener_metas(addresses.iter().map(String::as_str));
        let status = StatusSource { metrics: self.metrics.clone(), listeners, layout: server.layout() };
        let builder = LoopBuilder::new(engine_config(server)).metrics(self.places[number].clone());
        let builder = builder.budget(&self.budget);
        let mut builder = builder.threads(self.threads.pool_config(pool_threads(server)));
        if let Some(pool) = self.pool {
            builder = builder.pool(pool);
        }
        for (listener, socket) in server.listeners.iter().zip(sockets) {
            builder = builder.listen_boxed(&listener.name, socket, (listener.factory)(&status));
        }
        builder.build().map_err(Error::Service)
    }
}

/// What a loop may take: its share of what the worker may.
fn engine_config(server: &ServerBuilder) -> EngineConfig {
    EngineConfig {
        backend: match server.config.engine.backend {
            config::Backend::Auto => Backend::Auto,
            config::Backend::Epoll => Backend::Epoll,
            config::Backend::Uring => Backend::Uring,
        },
        max_connections: server.config.engine.max_connections.div_ceil(server.loop_count()),
        // The limit is that of all loops together.
        max_buffer_bytes: server.config.engine.max_buffer_bytes.as_usize(),
        trigger: match server.config.engine.trigger {
            config::Trigger::Level => Trigger::Level,
            config::Trigger::Edge => Trigger::Edge,
            config::Trigger::Oneshot => Trigger::Oneshot,
        },
        dispatch: match server.config.engine.dispatch {
            config::Dispatch::Inline => Dispatch::Inline,
            config::Dispatch::Pool => Dispatch::Pool,
            config::Dispatch::Reactor => Dispatch::Reactor,
            config::Dispatch::LeaderFollower => Dispatch::LeaderFollower,
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

fn balance(server: &ServerBuilder) -> Balance {
    match server.config.engine.balance {
        config::Balance::RoundRobin => Balance::RoundRobin,
        config::Balance::LeastConnections => Balance::LeastConnections,
        config::Balance::Hash => Balance::Hash,
    }
}

/// The pool of handlers that the loops of a worker share, when `engine.dispatch` has one.
fn start_pool(server: &ServerBuilder, threads: &Threads) -> Result<Option<HandlerPool>, Error> {
    let engine = &server.config.engine;
    if engine.dispatch != config::Dispatch::Pool {
        return Ok(None);
    }
    threads.start_pool(pool_threads(server)).map(Some)
}

/// How many threads the pool has, or serve what is ready.
fn pool_threads(server: &ServerBuilder) -> usize {
    usize::try_from(server.config.engine.pool_threads.resolve(MAX_POOL_THREADS)).unwrap_or(1).max(1)
}

/// What `"auto"` stops at on a very large machine.
const MAX_POOL_THREADS: u32 = 1024;
