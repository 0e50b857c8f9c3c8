//! `Server`: listeners and services, run as a master with workers or inside the calling process.
//!
//! The same builder runs in every process: the program's `main` reaches [`ServerBuilder::run`] in the master and, started
//! again by it, in each child, which then plays its part there. Services are made by their factories, in workers only.

use std::fmt;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{BoxError, BoxedService, CounterDef, Service};
use tidegate_log::LogServer;
use tidegate_process::{Child, Signals};

use crate::config::{Accept, Acceptor, Address, Config, Count, Engine};
use crate::layout::Layout;
use crate::run;
use crate::run::loops::WorkerLoops;
use crate::sockets::{BindOptions, Bound, Share};
use crate::status::{ListenerMeta, StatusSource};
use crate::{Error, ListenOptions};

/// Where servers come from.
///
/// ```no_run
/// use tidegate::{Flow, Server, Stream};
///
/// fn main() -> Result<(), tidegate::Error> {
///     let echo = || Stream::new(|io, bytes| { io.send(bytes); Flow::Continue });
///     Server::builder().listen("127.0.0.1:7000", echo).run()
/// }
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Server;

impl Server {
    /// A server without listeners: as many workers as processors, nothing on disk.
    pub fn builder() -> ServerBuilder {
        let mut config = Config::default();
        config.listen.clear();
        ServerBuilder::new(config)
    }
}

/// Makes the service of a listener, in each loop that serves it. The admin pages read the counters it is given.
pub(crate) type Factory = Arc<dyn Fn(&StatusSource) -> Result<BoxedService, BoxError> + Send + Sync>;

/// A listener and the service behind it.
#[derive(Clone)]
pub(crate) struct ListenSpec {
    pub(crate) name: String,
    pub(crate) address: Address,
    pub(crate) options: ListenOptions,
    /// Any worker can answer for all: one socket, whatever `process.accept` says.
    pub(crate) answers_for_all: bool,
    pub(crate) service: String,
    pub(crate) counters: &'static [CounterDef],
    pub(crate) factory: Factory,
}

/// Puts a server together.
#[must_use = "a server does nothing until it is run"]
pub struct ServerBuilder {
    pub(crate) config: Config,
    pub(crate) listeners: Vec<ListenSpec>,
    /// A server with a data folder: pid file, control socket, log server.
    pub(crate) operated: bool,
    pub(crate) on_ready: Option<OnReady>,
    /// The first thing that was wrong with what the builder was given.
    pub(crate) error: Option<Error>,
}

pub(crate) type OnReady = Box<dyn FnOnce(&Ready) + Send>;

/// A server that serves: its listeners by name, with their real addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    /// Name and address of each listener, in the order of the configuration.
    pub listeners: Vec<(String, String)>,
}

impl fmt::Display for Ready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ready,")?;
        self.listeners.iter().try_for_each(|(name, address)| write!(f, " {name}={address}"))
    }
}

impl fmt::Debug for ServerBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<&str> = self.listeners.iter().map(|listener| listener.name.as_str()).collect();
        f.debug_struct("ServerBuilder").field("listeners", &names).finish_non_exhaustive()
    }
}

impl ServerBuilder {
    pub(crate) fn new(config: Config) -> Self {
        Self { config, listeners: Vec::new(), operated: false, on_ready: None, error: None }
    }

    /// Adds a listener at `address` (`"127.0.0.1:7000"`, `"[::1]:7000"`, port 0 for a free one, `"unix:/path"`), whose
    /// connections are served by what `factory` makes. The first is called `main`, further ones `listener-2` and so on.
    pub fn listen<S: Service>(
        self,
        address: impl Into<String>,
        factory: impl Fn() -> S + Send + Sync + 'static,
    ) -> Self {
        let name = match self.listeners.len() {
            0 => "main".to_owned(),
            n => format!("listener-{}", n + 1),
        };
        self.listen_named(name, address, move || Ok(factory()))
    }

    /// As [`listen`](Self::listen), with a name, and a factory that may fail: its error is the error of the start.
    pub fn listen_named<S: Service>(
        self,
        name: impl Into<String>,
        address: impl Into<String>,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.listen_with(name, address, ListenOptions::default(), factory)
    }

    /// As [`listen_named`](Self::listen_named), with options of the socket and its connections. An option that a Unix socket
    /// does not have is an error of the start.
    pub fn listen_with<S: Service>(
        mut self,
        name: impl Into<String>,
        address: impl Into<String>,
        options: ListenOptions,
        factory: impl Fn() -> Result<S, BoxError> + Send + Sync + 'static,
    ) -> Self {
        let text = address.into();
        let fits = |address: Address| match (&address, options.tcp_only()) {
            (Address::Unix(_), Some(option)) => Err(format!("a Unix socket has no option {option}")),
            _ => Ok(address),
        };
        match parse_address(&text).and_then(fits) {
            Ok(address) => self.listeners.push(ListenSpec {
                name: name.into(),
                address,
                options,
                answers_for_all: false,
                service: "program".to_owned(),
                counters: S::COUNTERS,
                factory: Arc::new(move |_| factory().map(BoxedService::new)),
            }),
            Err(reason) => {
                self.error.get_or_insert(Error::Address { address: text, reason });
            }
        }
        self
    }

    /// How many worker processes; 0: everything in the calling process. Default: as many as processors.
    pub fn workers(mut self, workers: u32) -> Self {
        self.config.process.workers = Count::Exactly(workers);
        self
    }

    /// How long connections may take to finish in a graceful stop. Default 30 s.
    pub fn shutdown_timeout(mut self, timeout: Duration) -> Self {
        self.config.process.shutdown_timeout = timeout;
        self
    }

    /// Connections per worker at the same time. Default 10,000.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.config.engine.max_connections = connections;
        self
    }

    /// How many event loops each worker has, each on a thread of its own. Default 1.
    pub fn loops(mut self, loops: u32) -> Self {
        self.config.engine.loops = loops.max(1);
        self
    }

    /// Changes how the loops work: the concurrency model and whatever else `[engine]` has.
    ///
    /// ```
    /// use tidegate::config::Dispatch;
    /// let server = tidegate::Server::builder().engine(|engine| {
    ///     engine.dispatch = Dispatch::Pool;
    ///     engine.loops = 2;
    /// });
    /// ```
    ///
    /// What does not go together is an error of [`run`](Self::run) and [`spawn`](Self::spawn), with the reason. With
    /// `reactor` and `leader-follower` connections are registered one-shot, whatever `trigger` says.
    pub fn engine(mut self, change: impl FnOnce(&mut Engine)) -> Self {
        change(&mut self.config.engine);
        self
    }

    /// Calls `on_ready` once, in the master, when all workers serve.
    pub fn on_ready(mut self, on_ready: impl FnOnce(&Ready) + Send + 'static) -> Self {
        self.on_ready = Some(Box::new(on_ready));
        self
    }

    /// Runs the server until it is stopped by `TERM`, `INT` or `QUIT`. To be called before the program starts a thread.
    ///
    /// In a worker, which is the same program started again, it returns when the worker's work is done.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn run(self) -> Result<(), Error> {
        match Child::from_env()? {
            Some(child) => self.run_child(child),
            None if self.worker_count() == 0 => {
                let signals = Signals::block()?;
                run::single::run(self.checked()?, &signals)
            }
            None => {
                let signals = Signals::block()?;
                run::master::run(self.checked()?, signals)
            }
        }
    }

    /// Plays the part of a child that the program found out it is.
    pub(crate) fn run_child(self, child: Child) -> Result<(), Error> {
        let this = self.checked()?;
        match child.role() {
            tidegate_process::Role::LogServer => run::log_server::run(&this, child),
            tidegate_process::Role::Worker(index) => run::worker::run(&this, child, index),
        }
    }

    /// Runs the server on threads of the calling process, which keeps its signals.
    ///
    /// # Errors
    ///
    /// When an address is taken, or a service cannot be built.
    pub fn spawn(self) -> Result<SpawnedServer, Error> {
        run::single::spawn(&self.checked()?)
    }

    fn checked(mut self) -> Result<Self, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        match self.config.engine.contradiction() {
            Some(why) => Err(Error::Service(why.into())),
            None => Ok(self),
        }
    }

    pub(crate) fn worker_count(&self) -> u32 {
        self.config.process.workers.resolve(crate::config::MAX_WORKERS)
    }

    /// Event loops of a worker.
    pub(crate) fn loop_count(&self) -> usize {
        usize::try_from(self.config.engine.loops).unwrap_or(usize::MAX).max(1)
    }

    /// Whether a main reactor accepts for the loops of each worker.
    pub(crate) fn has_acceptor(&self) -> bool {
        self.config.engine.acceptor == Acceptor::Main
    }

    /// How many sockets of a listener each worker needs, unless all poll the same one.
    pub(crate) fn slots_per_worker(&self) -> usize {
        if self.has_acceptor() { 1 } else { self.loop_count() }
    }

    pub(crate) fn layout(&self) -> Layout {
        Layout { loops: self.loop_count(), has_acceptor: self.has_acceptor() }
    }

    /// Binds all listeners for whoever accepts in so many workers; an address that is taken is tried again for as long as `patience`.
    pub(crate) fn bind(&self, workers: u32, patience: Duration) -> Result<Vec<Bound>, Error> {
        let mut bound = Vec::with_capacity(self.listeners.len());
        for listener in &self.listeners {
            let sharing = match self.config.process.accept {
                _ if listener.answers_for_all => Share::All,
                Accept::Shared => Share::One,
                Accept::Reuseport | Accept::Handoff => {
                    Share::Each(usize::try_from(workers.max(1)).unwrap_or(1) * self.slots_per_worker())
                }
            };
            let options = BindOptions { tcp: listener.options.tcp, sharing, patience };
            bound.push(Bound::bind(&listener.name, &listener.address, options)?);
        }
        Ok(bound)
    }

    /// How many listeners are counted: the log server's socket comes after those of the configuration.
    pub(crate) fn counted_listeners(&self) -> usize {
        self.listeners.len() + usize::from(self.operated)
    }

    /// What those who read the counters know of the listeners, whose real addresses are given.
    pub(crate) fn listener_metas<'a>(&self, addresses: impl Iterator<Item = &'a str>) -> Arc<[ListenerMeta]> {
        let metas = self.listeners.iter().zip(addresses).map(|(listener, address)| ListenerMeta {
            name: listener.name.clone(),
            address: address.to_owned(),
            service: listener.service.clone(),
            counters: listener.counters,
        });
        let log = self.operated.then(|| ListenerMeta {
            name: "log".to_owned(),
            address: format!("unix:{}", self.config.log_socket().display()),
            service: "log-server".to_owned(),
            counters: LogServer::COUNTERS,
        });
        metas.chain(log).collect()
    }
}

/// A server on threads of this process. Dropping it stops the server.
#[derive(Debug)]
pub struct SpawnedServer {
    pub(crate) ready: Ready,
    /// Taken when it is joined.
    pub(crate) loops: Option<WorkerLoops>,
    pub(crate) bound: Vec<Bound>,
}

impl SpawnedServer {
    /// The listeners with their real addresses.
    #[must_use]
    pub fn ready(&self) -> &Ready {
        &self.ready
    }

    /// The real address of the TCP listener `name`.
    #[must_use]
    pub fn address(&self, name: &str) -> Option<SocketAddr> {
        let (_, address) = self.ready.listeners.iter().find(|(known, _)| known == name)?;
        address.parse().ok()
    }

    /// Stops accepting; connections may finish within `grace`.
    pub fn quit(&self, grace: Duration) {
        if let Some(loops) = &self.loops {
            loops.quit(grace);
        }
    }

    /// Closes everything.
    pub fn stop(&self) {
        if let Some(loops) = &self.loops {
            loops.stop();
        }
    }

    /// Waits until the server has ended.
    ///
    /// # Errors
    ///
    /// The first event loop's that failed.
    pub fn join(mut self) -> Result<(), Error> {
        self.loops.take().map_or(Ok(()), WorkerLoops::join)
    }
}

impl Drop for SpawnedServer {
    fn drop(&mut self) {
        self.stop();
        if let Some(Err(error)) = self.loops.take().map(WorkerLoops::join) {
            tracing::error!(%error, "event loop failed");
        }
        self.bound.iter().for_each(Bound::remove_file);
    }
}

fn parse_address(text: &str) -> Result<Address, String> {
    if let Ok(address) = text.parse() {
        return Ok(address);
    }
    // A host name, as "localhost:7000"; the first of its addresses is taken.
    let mut addresses = text.to_socket_addrs().map_err(|error| error.to_string())?;
    addresses.next().map(Address::Tcp).ok_or_else(|| "the name has no address".to_owned())
}
