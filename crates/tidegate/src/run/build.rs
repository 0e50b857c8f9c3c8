//! `Built`: the threads of a worker, put together as the configuration says and not yet started.
//!
//! Invariant: each loop has sockets of its own, or somebody else accepts for all of them: the acceptor of the worker, or
//! the acceptor's process, whose connections the receiver takes. Nothing runs here but the threads of the pool.

use std::os::fd::OwnedFd;

use tidegate_engine::{
    Acceptor, AcceptorBuilder, AcceptorHandle, AddressCounts, Backend, Balance, Budget, Dispatch,
    EngineConfig, Epoll, EventLoop, HandlerPool, LoopBuilder, LoopHandle, ProcessMetrics, ProcessWord,
    Receiver, ReceiverBuilder, ReceiverHandle, Socket, Sockets, TimerKind, Trigger,
};
use tidegate_sys::fd_channel::FdChannel;

use super::threads::Threads;
use super::worker::Inherited;
use crate::config;
use crate::status::StatusSource;
use crate::{Error, ServerBuilder};

/// The threads of a worker before they run.
#[derive(Debug)]
pub(crate) struct Built {
    pub(crate) loops: Vec<EventLoop>,
    /// Who accepts for the loops, when they do not for themselves.
    pub(crate) intake: Option<Intake>,
    pub(crate) handles: Handles,
    pub(crate) pool: Option<HandlerPool>,
    /// What the threads are given.
    pub(crate) threads: Threads,
}

/// The thread that has connections for the loops.
#[derive(Debug)]
pub(crate) enum Intake {
    /// It accepts them itself.
    Acceptor(Box<Acceptor<Epoll>>),
    /// They were accepted by another process.
    Receiver(Box<Receiver>),
}

impl Intake {
    pub(crate) fn run(&mut self) -> std::io::Result<()> {
        match self {
            Self::Acceptor(acceptor) => acceptor.run(),
            Self::Receiver(receiver) => receiver.run(),
        }
    }
}

/// Whom to tell what.
#[derive(Debug)]
pub(crate) struct Handles {
    /// Each loop.
    pub(crate) loops: Vec<LoopHandle>,
    /// Who is told in their place, and tells them when they have all that there is for them.
    pub(crate) intake: Option<IntakeHandle>,
    /// The listeners of datagrams, which are the loops' own whoever accepts connections.
    pub(crate) datagrams: Vec<usize>,
}

#[derive(Debug)]
pub(crate) enum IntakeHandle {
    Acceptor(AcceptorHandle),
    Receiver(ReceiverHandle),
}

impl Handles {
    /// Of loops that accept for themselves.
    pub(crate) fn of_loops(loops: Vec<LoopHandle>) -> Self {
        Self { loops, intake: None, datagrams: Vec::new() }
    }
}

/// A listener's socket for whoever accepts from it.
#[derive(Debug)]
pub(crate) struct Listening {
    pub(crate) fd: OwnedFd,
    /// Others poll it too, and each connection is to wake one of them.
    pub(crate) shared: bool,
}

impl Built {
    /// Builds the services and loops of worker `index`, which has the counters in `places`.
    pub(crate) fn new(
        server: &ServerBuilder,
        status: &StatusSource,
        places: Vec<ProcessMetrics>,
        index: usize,
        inherited: Inherited,
    ) -> Result<Self, Error> {
        let threads = Threads::of_worker(&server.config, index, server.loop_count());
        let pool = start_pool(server, &threads)?;
        let budget = Budget::new(server.config.engine.max_buffer_bytes.as_usize());
        let seat = places.first().map_or(0, |place| place.get(ProcessWord::Seat));
        let addresses = status.address_counts(index, usize::try_from(seat).unwrap_or(0));
        let plan = Plan { server, status, places, pool: pool.as_ref(), threads: &threads, budget, addresses };
        let (loops, intake, handles) = if server.hands_over() && !inherited.channels.is_empty() {
            plan.another_accepts(inherited)?
        } else if server.has_acceptor() {
            plan.main_accepts(inherited)?
        } else {
            plan.each_accepts(inherited)?
        };
        Ok(Self { loops, intake, handles, pool, threads })
    }

    /// Builds a worker that nobody connects to, to find out whether it can be built.
    pub(crate) fn without_sockets(
        server: &ServerBuilder,
        status: &StatusSource,
        places: Vec<ProcessMetrics>,
    ) -> Result<Self, Error> {
        let threads = Threads::of_worker(&server.config, 0, server.loop_count());
        let pool = start_pool(server, &threads)?;
        let budget = Budget::new(server.config.engine.max_buffer_bytes.as_usize());
        let addresses = AddressCounts::new();
        let plan = Plan { server, status, places, pool: pool.as_ref(), threads: &threads, budget, addresses };
        let none: Vec<_> = server.listeners.iter().map(|_| Vec::new()).collect();
        let loops = plan.loops_of_datagrams(&none, &[])?;
        let (loops, handles): (Vec<_>, Vec<_>) = loops.into_iter().unzip();
        Ok(Self { loops, intake: None, handles: Handles::of_loops(handles), pool, threads })
    }

    /// One loop that accepts for itself.
    pub(crate) fn of_loop((event_loop, handle): (EventLoop, LoopHandle), threads: Threads) -> Self {
        let handles = Handles::of_loops(vec![handle]);
        Self { loops: vec![event_loop], intake: None, handles, pool: None, threads }
    }

    /// Nothing but an acceptor.
    pub(crate) fn of_acceptor(
        (acceptor, handle): (Acceptor<Epoll>, AcceptorHandle),
        threads: Threads,
    ) -> Self {
        let intake = Some(IntakeHandle::Acceptor(handle));
        let handles = Handles { intake, ..Handles::of_loops(Vec::new()) };
        let intake = Some(Intake::Acceptor(Box::new(acceptor)));
        Self { loops: Vec::new(), intake, handles, pool: None, threads }
    }
}

/// What the loops of a worker are made from.
struct Plan<'a> {
    server: &'a ServerBuilder,
    status: &'a StatusSource,
    /// Among the counters, in the order of the seats.
    places: Vec<ProcessMetrics>,
    pool: Option<&'a HandlerPool>,
    threads: &'a Threads,
    /// Of all loops together.
    budget: Budget,
    addresses: AddressCounts,
}

type Parts = (Vec<EventLoop>, Option<Intake>, Handles);

impl Plan<'_> {
    /// Loops with sockets of their own.
    fn each_accepts(&self, mut inherited: Inherited) -> Result<Parts, Error> {
        let (mut loops, mut handles) = (Vec::new(), Vec::new());
        for number in 0..self.server.loop_count() {
            let sockets = inherited.in_slot(self.server.listeners.len(), number);
            let sockets = self.engine_sockets(sockets, &inherited.paused);
            let (event_loop, handle) = self.event_loop(number, sockets)?;
            loops.push(event_loop);
            handles.push(handle);
        }
        Ok((loops, None, Handles::of_loops(handles)))
    }

    /// Loops without sockets, and an acceptor that has them.
    fn main_accepts(&self, mut inherited: Inherited) -> Result<Parts, Error> {
        let mut sockets = inherited.in_slot(self.server.listeners.len(), 0);
        let own = self.take_datagrams(&mut sockets);
        let loops = self.loops_of_datagrams(&own, &inherited.paused)?;
        let (loops, handles): (Vec<_>, Vec<_>) = loops.into_iter().unzip();
        let sockets = self.engine_sockets(sockets, &inherited.paused);
        let own = self.places[self.server.loop_count()].clone();
        let mut builder = AcceptorBuilder::new(balance(self.server), handles.clone()).metrics(own);
        for (listener, sockets) in self.server.listeners.iter().zip(sockets) {
            builder = builder.listen(&listener.name, sockets);
        }
        let (acceptor, handle) = builder.build().map_err(Error::Service)?;
        let intake = Some(IntakeHandle::Acceptor(handle));
        let handles = Handles { loops: handles, intake, datagrams: self.datagrams() };
        Ok((loops, Some(Intake::Acceptor(Box::new(acceptor))), handles))
    }

    /// Loops without sockets, and a receiver of what another process accepts.
    fn another_accepts(&self, mut inherited: Inherited) -> Result<Parts, Error> {
        let sockets = inherited.in_slot(self.server.listeners.len(), 0);
        let loops = self.loops_of_datagrams(&sockets, &inherited.paused)?;
        let (loops, handles): (Vec<_>, Vec<_>) = loops.into_iter().unzip();
        let own = self.places[self.server.loop_count()].clone();
        let mut builder = ReceiverBuilder::new(balance(self.server), handles.clone()).metrics(own);
        for channel in inherited.channels {
            let channel = FdChannel::from_fd(channel).map_err(Error::system("taking a channel"))?;
            builder = builder.channel(channel);
        }
        let (receiver, handle) = builder.build().map_err(Error::Service)?;
        let intake = Some(IntakeHandle::Receiver(handle));
        let handles = Handles { loops: handles, intake, datagrams: self.datagrams() };
        Ok((loops, Some(Intake::Receiver(Box::new(receiver))), handles))
    }

    /// The numbers of the listeners of datagrams.
    fn datagrams(&self) -> Vec<usize> {
        let listeners = self.server.listeners.iter().enumerate();
        listeners.filter(|(_, listener)| listener.address.is_datagram()).map(|(number, _)| number).collect()
    }

    /// Takes the sockets for datagrams out of those of all listeners.
    fn take_datagrams(&self, sockets: &mut [Vec<Listening>]) -> Vec<Vec<Listening>> {
        let mut own: Vec<Vec<Listening>> = sockets.iter().map(|_| Vec::new()).collect();
        for number in self.datagrams() {
            own[number] = std::mem::take(&mut sockets[number]);
        }
        own
    }

    /// Loops that are handed their connections, and share the sockets for datagrams: each datagram wakes one of them.
    fn loops_of_datagrams(
        &self,
        sockets: &[Vec<Listening>],
        paused: &[String],
    ) -> Result<Vec<(EventLoop, LoopHandle)>, Error> {
        let share = |of: &Vec<Listening>| -> std::io::Result<Vec<Listening>> {
            of.iter().map(|it| Ok(Listening { fd: it.fd.try_clone()?, shared: true })).collect()
        };
        let mut loops = Vec::with_capacity(self.server.loop_count());
        for number in 0..self.server.loop_count() {
            let own: std::io::Result<Vec<_>> = sockets.iter().map(share).collect();
            let own = self.engine_sockets(own.map_err(Error::system("sharing a socket"))?, paused);
            let listeners = self.server.listeners.iter().zip(own);
            let sockets = listeners.map(|(listener, own)| match listener.address.is_datagram() {
                true => own,
                false => Sockets::from(Socket::handed_over()).proxy_protocol(listener.options.proxied),
            });
            loops.push(self.event_loop(number, sockets.collect())?);
        }
        Ok(loops)
    }

    /// The sockets with their options, by listener.
    fn engine_sockets(&self, sockets: Vec<Vec<Listening>>, paused: &[String]) -> Vec<Sockets> {
        let with_options = self.server.listeners.iter().zip(sockets).map(|(listener, sockets)| {
            let of = |Listening { fd, shared }| {
                let socket = if shared { Socket::shared(fd) } else { Socket::own(fd) };
                socket.nodelay(listener.options.tcp.nodelay)
            };
            let sockets: Sockets = sockets.into_iter().map(of).collect::<Vec<Socket>>().into();
            let sockets = sockets.proxy_protocol(listener.options.proxied);
            if paused.contains(&listener.name) { sockets.paused() } else { sockets }
        });
        with_options.collect()
    }

    /// Builds the services and the loop around them.
    fn event_loop(&self, number: usize, sockets: Vec<Sockets>) -> Result<(EventLoop, LoopHandle), Error> {
        let server = self.server;
        let builder = LoopBuilder::new(engine_config(server)).metrics(self.places[number].clone());
        let builder = builder.budget(&self.budget).address_counts(&self.addresses);
        let mut builder = builder.threads(self.threads.pool_config(pool_threads(server)));
        if let Some(pool) = self.pool {
            builder = builder.pool(pool);
        }
        for (listener, sockets) in server.listeners.iter().zip(sockets) {
            builder = builder.listen_boxed(&listener.name, sockets, (listener.factory)(self.status));
        }
        for client in &server.clients {
            let service = (client.factory)();
            builder = match &client.upstream {
                Some(config) => builder.upstream_boxed(&client.name, config.clone(), service),
                None => builder.client_boxed(&client.name, service),
            };
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

pub(crate) fn balance(server: &ServerBuilder) -> Balance {
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
