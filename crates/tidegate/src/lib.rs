//! Long-lived connections, served and not dropped.
//!
//! Implement one trait, [`Service`], and get a supervised, measured TCP and Unix-socket server: a master that owns the
//! listening sockets, workers with event loops, deadlines, back-pressure and counters. Read [`Server`] and [`Service`]
//! first.
//!
//! ```no_run
//! use tidegate::{Flow, Server, Stream};
//!
//! fn main() -> Result<(), tidegate::Error> {
//!     let echo = || Stream::new(|io, bytes| { io.send(bytes); Flow::Continue });
//!     Server::builder().listen("127.0.0.1:7000", echo).run()
//! }
//! ```
//!
//! The same `main` runs in every process: the master starts the program again for each child, and [`ServerBuilder::run`]
//! sees which part it plays there. So what stands before `run` in `main` happens in each of them, and must start no thread.
//! `HUP` reloads a running server: a new generation of workers takes over, and then the old one finishes what it holds. `USR2`
//! replaces the program in place. A worker that dies or hangs is replaced, and [`ServerBuilder::process`] adds a process of
//! the program's own that is looked after like the others. With `workers(0)`, and by [`ServerBuilder::spawn`], everything runs
//! in the calling process, without any of that.
//!
//! To hand descriptors from one process to another there is [`FdChannel`].
//!
//! Features: `web` (static sites, the admin pages), `gateway` (the framed message protocol), `accounts` (register and login
//! for it), `tls` (TLS of listeners by rustls), `full` (all of them). Without features there is neither SQLite nor argon2 nor
//! rustls in the tree.
#![forbid(unsafe_code)]

/// The examples of the document compile.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/clients.md")]
mod clients_document {}

#[cfg(feature = "full")]
mod assemble;
mod board;
mod clients;
pub mod config;
mod connections;
mod error;
mod history;
mod holder;
mod layout;
mod listen_options;
#[cfg(feature = "full")]
mod prometheus;
mod run;
mod server;
mod services;
mod sockets;
mod status;
mod tables;
#[cfg(feature = "full")]
mod tls;

#[cfg(feature = "full")]
pub use assemble::{from_config, from_options, run_if_child};
pub use config::Config;
pub use connections::{ConnectionPage, ConnectionStatus, NextClose};
pub use error::Error;
pub use listen_options::ListenOptions;
pub use run::process::{ProcessContext, ProcessEvent};
pub use server::{Ready, Server, ServerBuilder, SpawnedServer};
pub use services::{
    Chargen, Datagrams, Daytime, Stream, discard, discard_datagrams, echo, echo_datagrams, may_answer,
};
pub use sockets::BindError;
pub use status::{GenerationStatus, LatencyStatus, ListenerStatus, ProcessStatus, Status, ThreadStatus};

pub use tidegate_engine::{
    Address as DatagramAddress, Backoff, BoxError, Closed, ConnHandle, ConnId, Connect, ConnectError,
    ConnectFailed, ConnectFailure, CounterDef, DatagramIo, DatagramLimits, DatagramPeer, DatagramService,
    Decoded, End, FdChannel, Flow, HandleError, Instant, Io, LayerError, Limits, NotConnected, Peer,
    PeerAddress, Phase, Reason, Received, Refusal, Security, Service, Target, TieError, TimerToken, Upstream,
    UpstreamConfig, check_connection,
};
/// Records: what the processes log, and how it is read back.
pub use tidegate_log as log;
pub use tidegate_process::{ENV_PROGRAM, control_socket};
/// Detaching from the terminal.
pub use tidegate_sys::daemon;

#[cfg(feature = "gateway")]
pub use tidegate_gateway as gateway;
/// TLS for services of one's own: see [`ServerBuilder::tls`].
#[cfg(feature = "tls")]
pub use tidegate_tls::{
    Certificate, CertificateError, CertificateWarning, Roots, RootsError, TicketSecret, Tls, TlsClient,
    TlsClientBuilder, TlsError, Version as TlsVersion,
};
#[cfg(feature = "web")]
pub use tidegate_web as web;
