//! The event loop: listeners, connections, services, deadlines and back-pressure.
//!
//! A program implements [`Service`]; an [`EventLoop`] made by [`LoopBuilder`] calls it. One thread owns a loop and all its
//! connections; other threads reach a connection by its [`ConnHandle`]. Read [`Service`] and [`Io`] first.
//!
//! Nothing here reads a clock, names a protocol, prints, or reads a configuration file.
#![forbid(unsafe_code)]

mod accepting;
mod acceptor;
mod address_table;
mod addresses;
mod backend;
mod budget;
mod builder;
mod conn;
mod conn_info;
mod connect;
mod datagram;
mod errand;
mod event_loop;
mod generations;
mod handle;
mod handover;
mod host;
mod inbox;
mod intake;
mod io;
mod job;
mod layer;
mod layered;
mod loop_handle;
mod metrics;
mod model;
mod order;
mod output;
mod pace;
mod pool;
mod proxy_header;
mod reason;
mod receiver;
mod record;
mod sampler;
mod service;
mod shared_loop;
mod sites;
mod socket;
mod spares;
mod stepped_loop;
mod table;
mod upstream;
mod visit;
mod wish;

pub use acceptor::{Acceptor, AcceptorBuilder, AcceptorHandle, Balance, LAST_WAIT};
pub use address_table::AddressTable;
pub use addresses::AddressCounts;
pub use backend::Backend;
pub use budget::Budget;
pub use builder::{BoxError, BoxedService, Dispatch, EngineConfig, LoopBuilder, MAX_LISTENERS};
pub use conn_info::{ConnInfo, ConnState, MAX_PAGE, Unanswered};
pub use connect::{Connect, ConnectError, ConnectFailed, ConnectFailure, MAX_CONNECTS};
pub use datagram::{DatagramIo, DatagramLimits, DatagramPeer, DatagramService, MAX_DATAGRAM_BYTES};
pub use handle::{ConnHandle, ConnId, HandleError, MAX_LETTER_BYTES, MAX_LETTERS};
pub use io::Io;
pub use layer::{ClientLayer, Layer, LayerError, LayerProgress, LayerSession, LayerState, Security};
pub use loop_handle::{LoopHandle, Running};
pub use metrics::{
    HEAD_WORDS, LISTENER_WORDS, LatencyHistogram, ListenerMetrics, ListenerWord, MAX_SERVICE_COUNTERS,
    MIN_LISTENER_WORDS, Metrics, ProcessMetrics, ProcessWord, RunningCallback, TurnHistogram, Words,
};
pub use model::EventLoop;
pub use pool::{HandlerPool, HandlerSteps, PoolConfig, QueuedMessage};
pub use reason::Reason;
pub use receiver::{Receiver, ReceiverBuilder, ReceiverHandle};
pub use service::{Closed, CounterDef, Decoded, Flow, Limits, Peer, Phase, Refusal, Service, TimerToken};
pub use socket::{Socket, Sockets};
pub use stepped_loop::{Step, SteppedLoop};
pub use tidegate_reactor::{Address, BadTarget, End, Epoll, Errno, PeerAddress, Target, Trigger, Uring};
pub use tidegate_sys::fd_channel::{FdChannel, Received, check_connection};
pub use tidegate_timer::{Instant, Kind as TimerKind};
pub use upstream::{Backoff, MAX_UPSTREAM_CONNECTIONS, NotConnected, Upstream, UpstreamConfig};
pub use wish::TieError;
