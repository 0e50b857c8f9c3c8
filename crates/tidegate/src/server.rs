//! `Server`: listeners and services, run as a master with workers or inside the calling process.
//!
//! The same builder runs in every process: the program's `main` reaches [`ServerBuilder::run`] in the master and, started
//! again by it, in each child, which then plays its part there. Services are made by their factories, in workers only.

mod bind;
mod listen;
mod spawned;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;
use tidegate_engine::BoxError;
use tidegate_process::{Child, Limits, Part, Role, Signals};
use tidegate_sys::process::Credentials;

use crate::Error;
#[cfg(feature = "full")]
use crate::assemble;
use crate::clients::ClientSpec;
use crate::config::{Accept, Acceptor, Config, Count, Engine};
use crate::layout::Layout;
use crate::run;
use crate::run::handout::Handout;
use crate::run::process::{MAX_ARGS_BYTES, ProcessContext, ProcessSpec};
use crate::tables::TableSizes;

#[cfg(feature = "full")]
pub(crate) use listen::Factory;
pub(crate) use listen::ListenSpec;
pub use spawned::SpawnedServer;

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

/// Puts a server together.
#[must_use = "a server does nothing until it is run"]
pub struct ServerBuilder {
    pub(crate) config: Config,
    pub(crate) listeners: Vec<ListenSpec>,
    pub(crate) clients: Vec<ClientSpec>,
    /// A server with a data folder: pid file, control socket, log server.
    pub(crate) operated: bool,
    pub(crate) on_ready: Option<OnReady>,
    /// Processes of the program's own.
    pub(crate) processes: Vec<ProcessSpec>,
    /// Where the configuration is read again.
    #[cfg(feature = "full")]
    pub(crate) source: Option<crate::config::LoadOptions>,
    /// The certificates that were read.
    #[cfg(feature = "full")]
    pub(crate) tls: Arc<crate::tls::Material>,
    /// Memory that the loops of a generation share.
    pub(crate) tables: TableSizes,
    /// Who the children become.
    pub(crate) credentials: Option<Credentials>,
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
        Self {
            config,
            listeners: Vec::new(),
            clients: Vec::new(),
            operated: false,
            tables: TableSizes::default(),
            on_ready: None,
            processes: Vec::new(),
            #[cfg(feature = "full")]
            source: None,
            #[cfg(feature = "full")]
            tls: Arc::default(),
            credentials: None,
            error: None,
        }
    }

    /// The same server once more, as the master keeps it: without what happens once.
    pub(crate) fn again(&self) -> Self {
        Self {
            config: self.config.clone(),
            listeners: self.listeners.clone(),
            clients: self.clients.clone(),
            operated: self.operated,
            tables: self.tables,
            on_ready: None,
            processes: self.processes.clone(),
            #[cfg(feature = "full")]
            source: self.source.clone(),
            #[cfg(feature = "full")]
            tls: Arc::clone(&self.tls),
            credentials: self.credentials.clone(),
            error: None,
        }
    }

    /// The server as its configuration is now, for a generation that follows one with the configuration `current`.
    ///
    /// # Errors
    ///
    /// What is wrong with the configuration, or cannot be changed without a restart.
    pub(crate) fn reread(&self, current: &Config) -> Result<Self, Error> {
        #[cfg(feature = "full")]
        if let Some(source) = &self.source {
            let config = Config::load(source)?;
            config.check_reload(current)?;
            config.check_roots()?;
            let tls = crate::tls::Material::read(&config, Some(&self.tls))?;
            let next = assemble::assemble(config, tls)?;
            let (source, processes) = (self.source.clone(), self.processes.clone());
            return Self { source, processes, clients: self.clients.clone(), ..next }.checked();
        }
        let _ = current;
        Ok(self.again())
    }

    /// The server of another configuration, whose services are those of this program.
    pub(crate) fn with_config(&self, config: Config) -> Self {
        #[cfg(feature = "full")]
        if self.operated
            // Its certificates are with its children.
            && let Ok(server) = assemble::assemble(config.clone(), self.tls.tickets_alone())
        {
            let (source, processes) = (self.source.clone(), self.processes.clone());
            return Self { source, processes, clients: self.clients.clone(), ..server };
        }
        Self { config, ..self.again() }
    }

    /// What another image of this process needs to read the configuration again.
    pub(crate) fn frozen_source(&self) -> Result<serde_json::Value, String> {
        #[cfg(feature = "full")]
        if let Some(source) = &self.source {
            return serde_json::to_value(source).map_err(|error| error.to_string());
        }
        Ok(serde_json::Value::Null)
    }

    /// The times that the processes are granted.
    pub(crate) fn process_limits(&self) -> Limits {
        let process = &self.config.process;
        Limits {
            shutdown_timeout: process.shutdown_timeout,
            drain_timeout: process.drain_timeout,
            max_generations: process.max_generations,
            hang_timeout: process.hang_timeout,
            ..Limits::default()
        }
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

    /// Adds a process of the program's own, which the master starts, watches, starts again when it dies, and ends with the
    /// others. It lives over reloads. `args` are carried to it, and kept over restarts and upgrades; `entry` runs there, on
    /// the main thread, until it is told to end.
    ///
    /// ```no_run
    /// use std::time::Duration;
    /// use tidegate::{ProcessEvent, Server, echo};
    ///
    /// # fn main() -> Result<(), tidegate::Error> {
    /// Server::builder()
    ///     .listen("127.0.0.1:7000", echo)
    ///     .process("sweeper", Duration::from_secs(60), |process, every| {
    ///         process.ready()?;
    ///         loop {
    ///             match process.wait(every)? {
    ///                 None => { /* a minute has passed: sweep */ }
    ///                 Some(ProcessEvent::Reopen) => {}
    ///                 Some(_) => return Ok(()),
    ///             }
    ///         }
    ///     })
    ///     .run()
    /// # }
    /// ```
    ///
    /// The name, which `ps` and the status show, has 1 to 64 letters, digits, `-`, `_`, `.` or blanks and is nobody else's;
    /// the arguments have at most 1 MiB as JSON. Anything else is an error of [`run`](Self::run). There are no such processes
    /// in a server of one process (`workers(0)`), nor in one that is spawned.
    #[expect(clippy::needless_pass_by_value, reason = "the process has them, not the caller")]
    pub fn process<A: Serialize + DeserializeOwned + 'static>(
        mut self,
        name: impl Into<String>,
        args: A,
        entry: impl Fn(&mut ProcessContext<'_>, A) -> Result<(), BoxError> + Send + Sync + 'static,
    ) -> Self {
        let name = name.into();
        let is_good = |it: char| it.is_ascii_alphanumeric() || "-_. ".contains(it);
        let fits = (1..=64).contains(&name.len()) && name.chars().all(is_good);
        let why = match serde_json::to_vec(&args) {
            _ if !fits => {
                format!("process {name:?}: a name has 1 to 64 letters, digits, '-', '_', '.' or blanks")
            }
            _ if self.processes.iter().any(|known| known.name == name) => {
                format!("process {name:?}: there is another one of that name")
            }
            Err(error) => format!("process {name:?}: its arguments cannot be written: {error}"),
            Ok(args) if args.len() > MAX_ARGS_BYTES => {
                format!(
                    "process {name:?}: its arguments have {} bytes, at most {MAX_ARGS_BYTES} are taken",
                    args.len()
                )
            }
            Ok(args) => {
                let entry = Arc::new(move |context: &mut ProcessContext<'_>, args: &[u8]| {
                    entry(context, serde_json::from_slice(args)?)
                });
                self.processes.push(ProcessSpec { name, args: args.into(), entry });
                return self;
            }
        };
        self.error.get_or_insert(Error::Service(why.into()));
        self
    }

    /// Calls `on_ready` once, in the master, when all workers serve.
    pub fn on_ready(mut self, on_ready: impl FnOnce(&Ready) + Send + 'static) -> Self {
        self.on_ready = Some(Box::new(on_ready));
        self
    }

    /// Runs the server until it is stopped by `TERM`, `INT` or `QUIT`. To be called before the program starts a thread.
    ///
    /// In a worker, which is the same program started again, it returns when the worker's work is done. On `HUP` a new
    /// generation of workers takes the place of the old one; on `USR2` the program that stands at the path of this one then
    /// goes on in this process.
    ///
    /// # Errors
    ///
    /// See [`Error`].
    pub fn run(self) -> Result<(), Error> {
        match Part::from_env()? {
            Some(Part::Child(child)) if child.role() == Role::Probe => run::probe::run(|_| Ok(self), child),
            Some(Part::Child(mut child)) => {
                let handout = Handout::take(&mut child)?;
                self.run_child(child, &handout)
            }
            Some(Part::Successor(taken)) => {
                let signals = Signals::block()?;
                match self.checked() {
                    Ok(server) => run::master::resume(server, signals, taken),
                    Err(error) => Err(Error::Service(taken.revert(&error.to_string()).into())),
                }
            }
            None if self.worker_count() == 0 => {
                let signals = Signals::block()?;
                if !self.processes.is_empty() {
                    return Err(Error::Service(
                        "a server without workers cannot have processes of its own".into(),
                    ));
                }
                run::single::run(self.checked()?, &signals)
            }
            None => {
                let signals = Signals::block()?;
                run::master::run(self.checked()?, signals)
            }
        }
    }

    /// Plays the part of a child that the program found out it is.
    pub(crate) fn run_child(self, child: Child, handout: &Handout) -> Result<(), Error> {
        let this = self.checked()?;
        match child.role() {
            Role::LogServer => run::log_server::run(&this, child, handout),
            Role::Worker(index) => run::worker::run(&this, child, handout, index),
            Role::Acceptor => run::acceptor::run(&this, child, handout),
            Role::Process(index) => run::process::run(&this, child, handout, index),
            Role::Probe => run::probe::run(|_| Ok(this), child),
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

    pub(crate) fn checked(mut self) -> Result<Self, Error> {
        if let Some(error) = self.error.take() {
            return Err(error);
        }
        self.check_clients()?;
        if let Some(why) = self.config.engine.contradiction() {
            return Err(Error::Service(why.into()));
        }
        self.credentials = match &self.config.process.user {
            Some(user) if rustix::process::geteuid().is_root() => {
                Some(Credentials::of_user(user).map_err(|error| Error::Service(error.into()))?)
            }
            _ => None,
        };
        Ok(self)
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

    /// Whether a process accepts for all workers.
    pub(crate) fn hands_over(&self) -> bool {
        self.config.process.accept == Accept::Handoff && self.worker_count() > 0
    }

    /// How many sockets of a listener each worker needs, unless all poll the same one.
    pub(crate) fn slots_per_worker(&self) -> usize {
        if self.has_acceptor() { 1 } else { self.loop_count() }
    }

    pub(crate) fn layout(&self) -> Layout {
        let has_acceptor = self.has_acceptor() || self.hands_over();
        Layout { loops: self.loop_count(), has_acceptor, is_permanent: false }
    }
}
