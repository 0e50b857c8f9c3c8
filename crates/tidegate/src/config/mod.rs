//! The configuration: where it comes from, what it may be, and what is wrong with it.
//!
//! Read [`Config`] and [`LoadOptions`] first. The invariant: a `Config` that [`Config::load`] returns holds
//! no value that the server does not serve; what is of a later version is refused, never ignored. This module
//! opens no socket and writes no file; it prints nothing, its callers do.
//!
//! ```text
//! built-in < file < TIDEGATE_… < --set      each value with its place
//!        \_____\________\___________\
//!                                    tree ── rules ── Config ── JSON to the children
//!                                      └──── errors, all of them
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};

mod build;
mod check;
mod cpus;
mod earlier;
mod effective;
mod error;
mod file;
mod kind;
mod load;
mod nearest;
mod nested;
mod origin;
mod overlay;
mod reference;
mod reload;
mod schema;
mod site;
mod syntax;
mod tls;
mod tree;
mod units;
mod value;
mod words;

pub use cpus::CpuSet;
pub use effective::Effective;
pub use error::{ConfigError, ConfigErrors};
pub use load::LoadOptions;
pub use origin::Origin;
pub use overlay::{RESERVED_ENV, RESERVED_ENV_PREFIXES};
pub use reference::{key_paths, reference};
pub use site::{BasicAuth, CacheControl, Hsts, LimitRequests, Redirect, WebSite};
pub use tls::{CertificateFiles, ListenerTls};
pub use units::{ByteSize, UnitError, format_duration, parse_duration};
pub use value::{Address, Count, Database, Invalid, Levels, Name, ServiceName, UNIX_PATH_MAX};
pub use words::{
    Accept, Acceptor, AccessLog, Backend, Balance, Dispatch, Level, OnUnknown, RequestId, Timers, TlsVersion,
    Trigger,
};

/// Everything that can be configured. The documentation of each key, its limits and its unit are in
/// `docs/configuration.md`.
///
/// A program makes one with [`Config::load`] or changes [`Config::default`]; the master hands it to its
/// children with [`Config::to_json`] and [`Config::from_json`].
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The folder of everything the server keeps. It need not exist yet.
    pub data_dir: PathBuf,
    /// Master and workers.
    pub process: Process,
    /// The event loops.
    pub engine: Engine,
    /// The listeners, in the order of the file. Names are unique, and addresses too but for port 0.
    pub listen: Vec<Listener>,
    /// The service `web`.
    pub web: Web,
    /// The service `gateway`.
    pub gateway: Gateway,
    /// Who may log in.
    pub accounts: Accounts,
    /// Records.
    pub log: Log,
    /// By the key as `Effective` has it; what is not here is the default.
    #[serde(default)]
    origins: BTreeMap<String, Origin>,
    /// The file that was read.
    #[serde(default)]
    file: Option<PathBuf>,
}

impl Config {
    /// The configuration for another process, by [`Config::from_json`].
    ///
    /// # Errors
    ///
    /// When a path is not UTF-8, which one that was loaded never is.
    pub fn to_json(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }

    /// The configuration that [`Config::to_json`] of the same version wrote. It is not checked again.
    ///
    /// # Errors
    ///
    /// When the bytes are something else.
    pub fn from_json(bytes: &[u8]) -> Result<Self, serde_json::Error> {
        serde_json::from_slice(bytes)
    }

    /// The file that was read, if any: absolute, unless there is no current folder.
    #[must_use]
    pub fn file(&self) -> Option<&Path> {
        self.file.as_deref()
    }

    /// Where a key got its value, by its name as [`Effective`] has it; `None`: it is the default.
    #[must_use]
    pub fn origin(&self, key: &str) -> Option<&Origin> {
        self.origins.get(key)
    }

    /// Whether a reload can replace `running` by this configuration.
    ///
    /// # Errors
    ///
    /// Every key that differs and needs a restart, with its place.
    pub fn check_reload(&self, running: &Self) -> Result<(), ConfigErrors> {
        reload::check(self, running)
    }

    /// Whether the folders that are to be served are there. The workers open them; this is to tell the place of the
    /// configuration before any of them has failed.
    ///
    /// # Errors
    ///
    /// Each that is not a folder, with its place.
    pub fn check_roots(&self) -> Result<(), ConfigErrors> {
        reload::check_roots(self)
    }

    /// Whether the certificates of all listeners can be served. Reads their files.
    ///
    /// # Errors
    ///
    /// Each listener with one that cannot, with its place. Otherwise the sentences that an operator should read: of
    /// certificates that are out of date, or nearly.
    #[cfg(feature = "full")]
    pub fn check_certificates(&self) -> Result<Vec<String>, ConfigErrors> {
        let material = crate::tls::Material::read(self, None)?;
        let sentence = |(listener, names, warning)| format!("listen.{listener}.tls: {names}: {warning}");
        Ok(material.warnings().into_iter().map(sentence).collect())
    }

    /// An error at the place of a key, by its name as [`Effective`] has it.
    #[cfg(feature = "full")]
    pub(crate) fn error_at(&self, key: &str, message: String) -> ConfigError {
        reload::error(key, self.origin(key).cloned().unwrap_or(Origin::Default), message)
    }

    /// Where the master writes its process id.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.or_in_data_dir(self.process.pid_file.as_ref(), "tidegate.pid")
    }

    /// The socket of the commands.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.or_in_data_dir(self.process.control_socket.as_ref(), "control.sock")
    }

    /// Where accounts are kept.
    #[must_use]
    pub fn database(&self) -> Database {
        let derived = || Database::Sqlite(self.data_dir.join("accounts.db"));
        self.accounts.database.clone().unwrap_or_else(derived)
    }

    /// The folder of the log's files.
    #[must_use]
    pub fn log_dir(&self) -> PathBuf {
        self.or_in_data_dir(self.log.dir.as_ref(), "log")
    }

    /// Where the log server receives records.
    #[must_use]
    pub fn log_socket(&self) -> PathBuf {
        self.or_in_data_dir(self.log.socket.as_ref(), "log.sock")
    }

    fn or_in_data_dir(&self, said: Option<&PathBuf>, name: &str) -> PathBuf {
        said.cloned().unwrap_or_else(|| self.data_dir.join(name))
    }
}

/// `[process]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Worker processes; `Exactly(0)`: everything in one process. Resolve it with [`MAX_WORKERS`].
    pub workers: Count,
    /// How connections come to workers.
    pub accept: Accept,
    /// Whether to leave the terminal.
    pub daemon: bool,
    /// See [`Config::pid_file`].
    #[serde(with = "units::text_or_none")]
    pub pid_file: Option<PathBuf>,
    /// See [`Config::control_socket`].
    #[serde(with = "units::text_or_none")]
    pub control_socket: Option<PathBuf>,
    /// What the children become; `None`: they stay what the master is.
    #[serde(with = "units::text_or_none")]
    pub user: Option<String>,
    /// `QUIT`: what is still open after it is closed.
    #[serde(with = "units::duration")]
    pub shutdown_timeout: Duration,
    /// How long `/readyz` says 503 before accepting stops.
    #[serde(with = "units::duration")]
    pub shutdown_delay: Duration,
    /// How long a retired generation may drain; `None`: no limit.
    #[serde(with = "units::duration_or_off")]
    pub drain_timeout: Option<Duration>,
    /// Generations of workers at a time.
    pub max_generations: u32,
    /// When a worker that does not turn is replaced; `None`: never.
    #[serde(with = "units::duration_or_off")]
    pub hang_timeout: Option<Duration>,
    /// Open descriptors per process; 0: the soft limit is raised to the hard one.
    pub max_open_files: u64,
}

/// `[engine]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Engine {
    /// The kernel interface.
    pub backend: Backend,
    /// Registration on epoll.
    pub trigger: Trigger,
    /// Where handlers run.
    pub dispatch: Dispatch,
    /// Loops per worker, at least 1.
    pub loops: u32,
    /// Which loops accept.
    pub acceptor: Acceptor,
    /// Who gets the next connection when one accepts for others.
    pub balance: Balance,
    /// Threads of the pool.
    pub pool_threads: Count,
    /// The timer queue.
    pub timers: Timers,
    /// Connections per worker, at least 1.
    pub max_connections: usize,
    /// Bytes that the connections of a worker may hold in memory.
    pub max_buffer_bytes: ByteSize,
    /// When a silent connection of `echo` or `discard` is closed; `None`: never.
    #[serde(with = "units::duration_or_off")]
    pub idle_timeout: Option<Duration>,
    /// When a loop that does not turn is reported; `None`: never.
    #[serde(with = "units::duration_or_off")]
    pub stall_after: Option<Duration>,
    /// Stack of each thread of a loop or pool.
    pub thread_stack: ByteSize,
    /// Processors of each loop, taken in turn; empty: no binding.
    pub cpu_affinity: Vec<CpuSet>,
    /// Niceness of loop and pool threads, -20 to 19; 0: as the server was started.
    pub nice: i32,
}

impl Engine {
    /// Why this cannot be served, if it cannot: the rules that [`Config::load`] has, for values that a program sets.
    pub(crate) fn contradiction(&self) -> Option<&'static str> {
        let shared_poller = matches!(self.dispatch, Dispatch::Reactor | Dispatch::LeaderFollower);
        match self {
            _ if shared_poller && self.backend == Backend::Uring => {
                Some("engine.backend: io_uring has completions alone, and engine.dispatch hands on readiness")
            }
            _ if shared_poller && self.loops != 1 => {
                Some("engine.loops: engine.dispatch has one poller for all of its threads")
            }
            _ if self.acceptor == Acceptor::Main && self.loops == 1 => {
                Some("engine.acceptor: a main reactor accepts for several loops, and there is one")
            }
            _ => None,
        }
    }
}

/// `[[listen]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Unique among the listeners.
    pub name: Name,
    /// As configured: port 0 is still 0 here.
    pub address: Address,
    /// What it serves.
    pub service: ServiceName,
    /// Connections that wait to be accepted, 1 to 65535.
    pub backlog: u32,
    /// Whether what is sent leaves at once.
    pub nodelay: bool,
    /// Silence before the kernel asks whether the peer is there; zero: never; `None`: as the service has it, see
    /// [`Listener::keepalive`](Self::keepalive()).
    #[serde(default, with = "units::duration_or_absent", skip_serializing_if = "Option::is_none")]
    pub keepalive: Option<Duration>,
    /// How long what was sent may stay unacknowledged; zero: as long as the kernel tries; `None`: as the service has it, see
    /// [`Listener::user_timeout`](Self::user_timeout()).
    #[serde(default, with = "units::duration_or_absent", skip_serializing_if = "Option::is_none")]
    pub user_timeout: Option<Duration>,
    /// `Some(0)`: every end is a reset; `None`: as the reason of the end says.
    #[serde(default, with = "units::duration_or_absent", skip_serializing_if = "Option::is_none")]
    pub linger: Option<Duration>,
    /// Bytes of the kernel's receive buffer of each connection; 0: the kernel's.
    pub receive_buffer: ByteSize,
    /// Bytes of the kernel's send buffer of each connection; 0: the kernel's.
    pub send_buffer: ByteSize,
    /// What may wait in the kernel to be sent for the first time; 0: the kernel's; `None`: see
    /// [`Listener::max_unsent`](Self::max_unsent()).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unsent: Option<ByteSize>,
    /// TLS, if it has any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// Whether each connection begins with a PROXY header.
    pub proxy_protocol: bool,
}

impl Listener {
    /// The silence before the kernel asks whether the peer is there, also when nobody says; zero: never.
    #[must_use]
    pub fn keepalive(&self) -> Duration {
        self.keepalive.unwrap_or_else(|| self.vanishing())
    }

    /// How long what was sent may stay unacknowledged, also when nobody says; zero: as long as the kernel tries.
    #[must_use]
    pub fn user_timeout(&self) -> Duration {
        self.user_timeout.unwrap_or_else(|| self.vanishing())
    }

    /// What may wait in the kernel to be sent for the first time, also when nobody says; 0: the kernel's.
    ///
    /// What TLS sends is memory of its own, while the pages of a file that is sent as it is are those of the file.
    #[must_use]
    pub fn max_unsent(&self) -> ByteSize {
        let usual = if self.tls.is_some() { UNSENT_OF_TLS } else { ByteSize::new(0) };
        self.max_unsent.unwrap_or(usual)
    }

    /// Peers of these services come from anywhere, and have no heartbeat of their own.
    fn vanishing(&self) -> Duration {
        match self.service {
            ServiceName::Web | ServiceName::Admin => Duration::from_secs(60),
            _ => Duration::ZERO,
        }
    }
}

/// `[web]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Web {
    /// The folder that is served; `None`: the built-in welcome site.
    #[serde(with = "units::text_or_none")]
    pub root: Option<PathBuf>,
    /// How long a connection may wait for its next request.
    #[serde(with = "units::duration")]
    pub keep_alive: Duration,
    /// How long a head may take.
    #[serde(with = "units::duration")]
    pub head_timeout: Duration,
    /// How long a TLS handshake may take where its listener says nothing else.
    #[serde(with = "units::duration")]
    pub handshake_timeout: Duration,
    /// Bytes per second that a body, or an answer that waits, has to make; 0: any rate will do.
    pub min_rate: u32,
    /// How long it may take before its rate is looked at.
    #[serde(with = "units::duration")]
    pub min_rate_grace: Duration,
    /// Connections of one address with all workers; 0: no limit.
    pub max_connections_per_address: u32,
    /// Whether accounts are served under `/api`.
    pub api: bool,
    /// How long a login lasts.
    #[serde(with = "units::duration")]
    pub api_session_lifetime: Duration,
    /// How far the time of a signed login may be from the server's.
    #[serde(with = "units::duration")]
    pub api_sign_window: Duration,
    /// Failed logins for a name from an address within 15 minutes.
    pub api_max_failures: u32,
    /// Accounts that an address may ask for within an hour; 0: no limit.
    pub api_max_registrations: u32,
    /// The files that stand for their folder, in the order in which they are looked for.
    pub index: Vec<String>,
    /// What is tried in turn for a path; empty: the file or the folder of it.
    pub try_files: Vec<String>,
    /// Whether folders without an index are listed.
    pub autoindex: bool,
    /// `Cache-Control` of files; the first glob that matches counts.
    pub cache_control: Vec<CacheControl>,
    /// Files under the root that answer errors, by their status or class.
    pub error_pages: BTreeMap<String, String>,
    /// Whether text is compressed.
    pub compress: bool,
    /// Whether compressed files beside others are sent in their place.
    pub precompressed: bool,
    /// Whether names that begin with a dot are served.
    pub dot_files: bool,
    /// Files that are kept open or in memory, for each site and loop, at least 1.
    pub max_cached_files: usize,
    /// Bytes of files in memory, for each site and loop.
    pub max_cached_bytes: ByteSize,
    /// Ranges that a request may ask for.
    pub max_ranges: usize,
    /// A request line with its fields.
    pub max_head_bytes: ByteSize,
    /// Fields of a request.
    pub max_fields: usize,
    /// The target of a request.
    pub max_target_bytes: ByteSize,
    /// The body of a request.
    pub max_body_bytes: ByteSize,
    /// What says nothing in a request: empty lines before it, chunk extensions, trailers.
    pub max_overhead_bytes: ByteSize,
    /// Requests of a connection; 0: no limit.
    pub max_requests_per_connection: u32,
    /// Networks whose `X-Forwarded-For` and `X-Forwarded-Proto` are believed.
    pub trusted_proxies: Vec<String>,
    /// Whether requests are recorded, and how.
    pub access_log: AccessLog,
    /// One in so many of them, at least 1.
    pub access_log_sample: u32,
    /// Where `X-Request-Id` comes from.
    pub request_id: RequestId,
    /// The port that listeners of the service `redirect` send their clients to.
    pub https_port: u16,
    /// Fixed answers. Paths are unique.
    pub respond: Vec<Respond>,
    /// Sites with a name.
    #[serde(default)]
    pub site: Vec<WebSite>,
}

/// `[[web.respond]]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Respond {
    /// The whole path; begins with `/`.
    pub path: String,
    /// 200 to 599.
    pub status: u16,
    /// At most 65536 bytes; empty with the statuses that have none.
    pub body: String,
    /// Visible ASCII and spaces: fit for a header field.
    pub content_type: String,
}

/// `[gateway]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Gateway {
    /// Half of the silence, less 10 s, after which a connection is closed; `None`: never.
    #[serde(with = "units::duration_or_off")]
    pub heartbeat_interval: Option<Duration>,
    /// Frames to one client that the kernel has not taken, at least 1.
    pub max_queued_frames: usize,
    /// Frames that a client may send per second; 0: no limit.
    pub max_frames_per_second: u32,
    /// What a frame without a handler does.
    pub on_unknown: OnUnknown,
}

/// `[accounts]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Accounts {
    /// See [`Config::database`].
    #[serde(with = "units::text_or_none")]
    pub database: Option<Database>,
    /// Threads per worker that hash and ask, at least 1.
    pub threads: usize,
    /// Logins per worker that wait for one of them, at least 1.
    pub queue: usize,
}

/// `[log]`
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Log {
    /// What is kept.
    pub level: Levels,
    /// See [`Config::log_dir`].
    #[serde(with = "units::text_or_none")]
    pub dir: Option<PathBuf>,
    /// See [`Config::log_socket`].
    #[serde(with = "units::text_or_none")]
    pub socket: Option<PathBuf>,
    /// The largest file.
    pub max_file_bytes: ByteSize,
    /// All files together.
    pub max_total_bytes: ByteSize,
    /// Records of one process that wait for the log server.
    pub client_buffer: ByteSize,
}

/// The most worker processes there can be: what `"auto"` stops at on a very large machine.
pub const MAX_WORKERS: u32 = 256;
/// What waits to be sent of a connection with TLS: two of the largest pieces that are sealed at a time.
const UNSENT_OF_TLS: ByteSize = ByteSize::new(128 << 10);
