//! `LoopBuilder`: puts listeners, services and limits together into an [`EventLoop`].

use std::any::TypeId;
use std::collections::VecDeque;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use tidegate_buf::Pool as Blocks;
use tidegate_reactor::{Epoll, Reactor, Trigger};
use tidegate_timer::{AnyQueue, TimerQueue};

use crate::accepting::Reports;
use crate::addresses::AddressCounts;
use crate::backend::Backend;
use crate::budget::{Budget, Share};
use crate::datagram::{DatagramHost, DatagramHosted, DatagramService, Vacant};
use crate::event_loop::away::Crew;
use crate::event_loop::layers::Handshakes;
use crate::event_loop::outgoing;
use crate::event_loop::relief::Memory;
use crate::event_loop::upstreams::Pool;
use crate::event_loop::visits::Visits;
use crate::event_loop::{Loop, Stage};
use crate::handle::Shared;
use crate::host::{Host, Hosted};
use crate::io::{Due, Retirement, Turn};
use crate::job::Home;
use crate::layer::{AnyClientLayer, AnyLayer, ClientLayer, Layer};
use crate::layered::Workspace;
use crate::loop_handle::{LoopHandle, Running};
use crate::metrics::{Metrics, ProcessMetrics};
use crate::model::{EventLoop, Model};
use crate::pool::{HandlerPool, PoolConfig, PoolHandle};
use crate::record::Record;
use crate::sampler::Sampler;
use crate::shared_loop::{Kind, SharedLoop};
use crate::sites::{Plan, Sites, Source};
use crate::socket::Sockets;
use crate::spares::Spares;
use crate::stepped_loop::SteppedLoop;
use crate::table::Table;
use crate::{CounterDef, Service, TimerKind, UpstreamConfig};

/// Limits of a loop, and how it works within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EngineConfig {
    /// Connections at the same time; peers beyond it wait in the kernel's queue. Default 10,000.
    pub max_connections: usize,
    /// Bytes that all connections of the loop hold together: see [`Budget`]. Default 256 MiB.
    pub max_buffer_bytes: usize,
    /// The kernel interface under the loop. Default [`Backend::Auto`].
    pub backend: Backend,
    /// How connections are registered with epoll. Default [`Trigger::Edge`].
    pub trigger: Trigger,
    /// Which threads run the handlers. Default [`Dispatch::Inline`].
    pub dispatch: Dispatch,
    /// Threads that a loop makes for itself, unless it is given a pool or [`LoopBuilder::threads`]. Default: one for each
    /// CPU.
    pub pool_threads: usize,
    /// The queue of deadlines and timers. Default [`TimerKind::Wheel`].
    pub timers: TimerKind,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            max_connections: 10_000,
            max_buffer_bytes: 256 << 20,
            backend: Backend::default(),
            trigger: Trigger::default(),
            dispatch: Dispatch::default(),
            pool_threads: PoolConfig::default().threads,
            timers: TimerKind::default(),
        }
    }
}

/// Which threads run [`Service::on_message`]. All other callbacks run in the loop.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dispatch {
    /// The loop itself.
    #[default]
    Inline,
    /// The threads of a [`HandlerPool`]: complete messages wait in a bounded queue, one of a connection at a time and in
    /// order, and what the handlers send goes out through the loop.
    Pool,
    /// Threads that receive, handle and send by themselves, once the loop has told them which connection is ready: the
    /// classic reactor. With epoll, one-shot.
    Reactor,
    /// Threads of which one waits, promotes another when something is ready, and then receives, handles and sends by
    /// itself: leader/followers. With epoll, one-shot.
    LeaderFollower,
}

impl Dispatch {
    /// Whether messages go to a pool, and whether connections go to other threads as a whole.
    fn hands(self) -> (bool, bool) {
        (self == Self::Pool, matches!(self, Self::Reactor | Self::LeaderFollower))
    }
}

/// Why a service or a loop could not be made.
pub type BoxError = Box<dyn Error + Send + Sync>;

/// A factory's error, with the listener whose service it was to make.
#[derive(Debug, thiserror::Error)]
#[error("service of listener \"{listener}\": {source}")]
pub(crate) struct FactoryError {
    pub(crate) listener: String,
    pub(crate) source: BoxError,
}

/// A service of whatever type, ready to be put into a loop.
pub struct BoxedService {
    pub(crate) host: Box<dyn Hosted>,
    /// What serves datagrams, and then nothing else does.
    pub(crate) datagrams: Option<Box<dyn DatagramHosted>>,
    pub(crate) note: TypeId,
    /// What stands between its connections' bytes and itself.
    pub(crate) layer: Option<AnyLayer>,
    /// The same for connections that are outgoing.
    pub(crate) client_layer: Option<AnyClientLayer>,
    counters: &'static [CounterDef],
}

impl BoxedService {
    /// Boxes a service.
    #[must_use]
    pub fn new<S: Service>(service: S) -> Self {
        Self {
            host: Box::new(Host::new(service)),
            datagrams: None,
            note: Host::<S>::note_type(),
            layer: None,
            client_layer: None,
            counters: S::COUNTERS,
        }
    }

    /// Boxes a service of datagrams. Its listener has sockets for datagrams.
    #[must_use]
    pub fn of_datagrams<S: DatagramService>(service: S) -> Self {
        let datagrams: Box<dyn DatagramHosted> = Box::new(DatagramHost::new(service));
        Self { datagrams: Some(datagrams), counters: S::COUNTERS, ..Self::new(Vacant) }
    }

    /// Puts a layer between the service and the bytes of the connections that it accepts, as TLS. The service is told of a
    /// connection when the handshake is done. Has no meaning for datagrams; a client that is given one is refused.
    #[must_use]
    pub fn layer(mut self, layer: Arc<dyn Layer>) -> Self {
        self.layer = Some(AnyLayer(layer));
        self
    }

    /// Puts a layer between the service and the bytes of the outgoing connections that it gets as a client, as TLS. The
    /// service is told of a connection when the handshake is done, and by
    /// [`on_connect_failed`](Service::on_connect_failed) when it fails. A listener that is given one is refused.
    #[must_use]
    pub fn client_layer(mut self, layer: Arc<dyn ClientLayer>) -> Self {
        self.client_layer = Some(AnyClientLayer(layer));
        self
    }

    /// The service's own counters.
    #[must_use]
    pub fn counters(&self) -> &'static [CounterDef] {
        self.counters
    }
}

impl fmt::Debug for BoxedService {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BoxedService").field("counters", &self.counters).finish_non_exhaustive()
    }
}

/// Puts a loop together.
///
/// ```
/// use tidegate_engine::{Decoded, EngineConfig, Flow, Io, LoopBuilder, Peer, Refusal, Service};
///
/// struct Echo;
/// impl Service for Echo {
///     type Session = ();
///     type Head = ();
///     type Note = ();
///     fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> { Ok(()) }
///     fn decode(&self, _: &mut (), input: &[u8]) -> Decoded<()> {
///         Decoded::Message { len: input.len(), head: () }
///     }
///     fn on_message(&self, io: &mut Io<'_>, _: &mut (), _: (), bytes: &[u8]) -> Flow {
///         io.send(bytes);
///         Flow::Continue
///     }
/// }
///
/// # fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
/// let socket = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let running = LoopBuilder::new(EngineConfig::default()).listen("echo", socket, || Ok(Echo)).spawn()?;
/// running.stop();
/// running.join()?;
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
pub struct LoopBuilder {
    config: EngineConfig,
    listeners: Vec<Plan>,
    clients: Vec<Plan>,
    metrics: Option<ProcessMetrics>,
    pool: Option<PoolHandle>,
    threads: PoolConfig,
    budget: Option<Budget>,
    addresses: AddressCounts,
}

impl LoopBuilder {
    /// Starts with no listener.
    #[must_use]
    pub fn new(config: EngineConfig) -> Self {
        let threads = PoolConfig { threads: config.pool_threads, ..PoolConfig::default() };
        Self {
            config,
            listeners: Vec::new(),
            clients: Vec::new(),
            metrics: None,
            pool: None,
            threads,
            budget: None,
            addresses: AddressCounts::new(),
        }
    }

    /// Adds a listener with its sockets and the service that `factory` makes. Its error is the error of the build.
    #[must_use]
    pub fn listen<S: Service>(
        self,
        name: &str,
        sockets: impl Into<Sockets>,
        factory: impl FnOnce() -> Result<S, BoxError>,
    ) -> Self {
        let service = factory().map(BoxedService::new);
        self.listen_boxed(name, sockets, service)
    }

    /// Adds a listener of datagrams with its sockets, which are bound, and the service that `factory` makes. Its error is
    /// the error of the build.
    #[must_use]
    pub fn listen_datagrams<S: DatagramService>(
        self,
        name: &str,
        sockets: impl Into<Sockets>,
        factory: impl FnOnce() -> Result<S, BoxError>,
    ) -> Self {
        let service = factory().map(BoxedService::of_datagrams);
        self.listen_boxed(name, sockets, service)
    }

    /// Adds a listener with a boxed service, of connections or of datagrams.
    #[must_use]
    pub fn listen_boxed(
        mut self,
        name: &str,
        sockets: impl Into<Sockets>,
        service: Result<BoxedService, BoxError>,
    ) -> Self {
        self.listeners.push(Plan {
            name: name.to_owned(),
            source: Source::Listener(sockets.into()),
            service,
        });
        self
    }

    /// Adds a client: a service whose connections are outgoing ones, each of which somebody asks for by
    /// [`Io::connect`](crate::Io::connect) or [`LoopHandle::connect`]. Clients are numbered behind all listeners, in the order
    /// in which they are added, and each needs as much room in the metrics as a listener.
    #[must_use]
    pub fn client<S: Service>(self, name: &str, factory: impl FnOnce() -> Result<S, BoxError>) -> Self {
        let service = factory().map(BoxedService::new);
        self.client_boxed(name, service)
    }

    /// Adds a client with a boxed service.
    #[must_use]
    pub fn client_boxed(mut self, name: &str, service: Result<BoxedService, BoxError>) -> Self {
        self.clients.push(Plan { name: name.to_owned(), source: Source::Client, service });
        self
    }

    /// Adds a client of whose connections the loop keeps some open by itself: see [`UpstreamConfig`]. They are picked from
    /// by [`Io::upstream`](crate::Io::upstream) or [`LoopHandle::upstream`]; others can be asked for as of any client. A loop
    /// that retires makes none again, and closes them when it has no other connection left.
    #[must_use]
    pub fn upstream<S: Service>(
        self,
        name: &str,
        config: UpstreamConfig,
        factory: impl FnOnce() -> Result<S, BoxError>,
    ) -> Self {
        let service = factory().map(BoxedService::new);
        self.upstream_boxed(name, config, service)
    }

    /// Adds an upstream with a boxed service.
    #[must_use]
    pub fn upstream_boxed(
        mut self,
        name: &str,
        config: UpstreamConfig,
        service: Result<BoxedService, BoxError>,
    ) -> Self {
        self.clients.push(Plan { name: name.to_owned(), source: Source::Upstream(config), service });
        self
    }

    /// Counts in `metrics`, which must have room for as many listeners. Without it, the loop counts for itself.
    #[must_use]
    pub fn metrics(mut self, metrics: ProcessMetrics) -> Self {
        self.metrics = Some(metrics);
        self
    }

    /// Gives the messages to `pool`, which other loops may share. Only for [`Dispatch::Pool`], which without it has a pool
    /// of the loop's own.
    #[must_use]
    pub fn pool(mut self, pool: &HandlerPool) -> Self {
        self.pool = Some(pool.handle());
        self
    }

    /// Shares a limit on bytes with other loops, in addition to its own ([`EngineConfig::max_buffer_bytes`]).
    #[must_use]
    pub fn budget(mut self, budget: &Budget) -> Self {
        self.budget = Some(budget.clone());
        self
    }

    /// Counts the connections of each address together with other loops: see
    /// [`Limits::max_connections_per_address`](crate::Limits::max_connections_per_address).
    #[must_use]
    pub fn address_counts(mut self, counts: &AddressCounts) -> Self {
        self.addresses = counts.clone();
        self
    }

    /// How the threads are made that the loop has for itself: those of its own pool, or those that serve its ready
    /// connections. In place of [`EngineConfig::pool_threads`].
    #[must_use]
    pub fn threads(mut self, threads: PoolConfig) -> Self {
        self.threads = threads;
        self
    }

    /// Makes the loop and a handle to it.
    ///
    /// # Errors
    ///
    /// The first factory's error, the kernel's when it cannot poll, that there are more listeners than metrics for
    /// them or than [`MAX_LISTENERS`], or that only some of them are [handed over](crate::Socket::handed_over).
    pub fn build(self) -> Result<(EventLoop, LoopHandle), BoxError> {
        let kind = match self.config.dispatch {
            Dispatch::Inline | Dispatch::Pool => return self.build_single(),
            Dispatch::Reactor => Kind::Reactor,
            Dispatch::LeaderFollower => Kind::LeaderFollower,
        };
        if self.config.backend == Backend::Uring {
            return Err(
                "io_uring reports completions, and this dispatch hands readiness to its threads".into()
            );
        }
        let threads = self.threads.clone();
        let (event_loop, handle) = self.assemble(Epoll::lending()?)?;
        let shared = SharedLoop::new(event_loop, kind, threads);
        Ok((EventLoop(Model::Shared(Box::new(shared))), handle))
    }

    /// Makes a loop over a reactor of the caller's own, which drives it step by step: the seam for other kernels'
    /// interfaces, and for simulated ones. [`EngineConfig::backend`] and [`EngineConfig::trigger`] have no meaning then.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build); also when the configuration asks for a dispatch whose threads receive by themselves,
    /// which a reactor has to [lend](Reactor::lend) its connections for.
    pub fn build_on<R: Reactor>(self, reactor: R) -> Result<(SteppedLoop<R>, LoopHandle), BoxError> {
        if !matches!(self.config.dispatch, Dispatch::Inline | Dispatch::Pool) {
            return Err("a loop that is driven step by step handles messages inline or in a pool".into());
        }
        let (event_loop, handle) = self.assemble(reactor)?;
        Ok((SteppedLoop::new(event_loop), handle))
    }

    /// A loop that one thread drives.
    fn build_single(self) -> Result<(EventLoop, LoopHandle), BoxError> {
        match self.config.backend.choose() {
            Some(reactor) => {
                let (event_loop, handle) = self.assemble(reactor)?;
                Ok((EventLoop(Model::Uring(Box::new(event_loop))), handle))
            }
            None => {
                let reactor = Epoll::new(self.config.trigger)?;
                let (event_loop, handle) = self.assemble(reactor)?;
                Ok((EventLoop(Model::Epoll(Box::new(event_loop))), handle))
            }
        }
    }

    fn assemble<R: Reactor>(self, mut reactor: R) -> Result<(Loop<R>, LoopHandle), BoxError> {
        let count = self.listeners.len() + self.clients.len();
        let metrics = self.metrics.unwrap_or_else(|| Metrics::on_heap(count).process(0));
        let plans = self.listeners.into_iter().chain(self.clients).collect();
        let Sites { hosts, sites, accepting, datagrams, clients, pools } =
            Sites::open(plans, &metrics, &mut reactor)?;
        let handed = accepting.handed()?;
        // An acceptor may count one in while the loop takes the last place for one that it has asked for.
        let spare = usize::from(!handed.is_empty() && !clients.is_empty());
        let places = self.config.max_connections + spare;
        let shared = Arc::new(Shared::new(reactor.waker(), self.config.max_connections, handed, clients));
        let limit = self.config.max_buffer_bytes;
        let budget = self.budget.unwrap_or_else(|| Budget::new(limit));
        let memory = Memory::new(Share::new(budget, limit, reactor.waker()));
        let mut timers = AnyQueue::new(self.config.timers, reactor.now());
        for seat in Pool::seats(&pools) {
            timers.insert(reactor.now() + Duration::from_nanos(1), Due::Redial(seat));
        }
        let mut turn = Turn {
            record: Record::default(),
            timers,
            pool: Blocks::new(OUTPUT_BLOCK_BYTES, limit / OUTPUT_BLOCK_BYTES, memory.max_idle_blocks()),
            wishes: VecDeque::new(),
            now: reactor.now(),
            unix_time: reactor.unix_time(),
            retirement: Retirement::None,
            shared: Arc::clone(&shared),
            metrics: metrics.clone(),
        };
        // In the first turn, on the loop's own thread.
        let starts = datagrams.sites.iter().map(|site| Due::Start(site.index));
        starts.for_each(|start| _ = turn.timers.insert(turn.now, start));
        let (pooled, visited) = self.config.dispatch.hands();
        let crew = pooled.then(|| crew(self.pool, &self.threads, &reactor)).transpose()?;
        let sites_count = sites.len();
        let this = Loop {
            reactor,
            conns: Table::new(places),
            hosts,
            sites,
            turn,
            metrics,
            letters: Vec::new(),
            arrivals: Vec::new(),
            orders: Vec::new(),
            strays: VecDeque::new(),
            pending: outgoing::Pending::new(),
            pools,
            again: Vec::new(),
            again_now: Vec::new(),
            spares: Spares::default(),
            memory,
            accepting,
            datagrams,
            handshakes: Handshakes::new(sites_count),
            work: Workspace::default(),
            crew,
            visits: visited.then(Visits::default),
            stage: Stage::Serving,
            telling: None,
            sampler: Sampler::new(std::process::id()),
            addresses: self.addresses,
            bad_peers: Box::new(std::array::from_fn(|_| Reports::default())),
        };
        Ok((this, LoopHandle { shared }))
    }

    /// Makes the loop and runs it on a thread of its own.
    ///
    /// # Errors
    ///
    /// As [`build`](Self::build), or when no thread can be started.
    pub fn spawn(self) -> Result<Running, BoxError> {
        let (mut event_loop, handle) = self.build()?;
        let thread = std::thread::Builder::new().name("loop-0".into()).spawn(move || event_loop.run())?;
        Ok(Running::new(handle, thread))
    }
}

/// The pool that was given, or one of the loop's own.
fn crew(pool: Option<PoolHandle>, threads: &PoolConfig, reactor: &impl Reactor) -> io::Result<Crew> {
    let home = Home::new(reactor.waker());
    if let Some(pool) = pool {
        return Ok(Crew::new(pool, home, None));
    }
    let own = HandlerPool::start(threads)?;
    Ok(Crew::new(own.handle(), home, Some(own)))
}

/// How many listeners a loop may have.
pub const MAX_LISTENERS: usize = 1024;
/// What refused output is copied to.
pub(crate) const OUTPUT_BLOCK_BYTES: usize = 16 << 10;
