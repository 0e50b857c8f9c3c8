//! The whole program: the real binary with real sockets, and processes that are killed for real.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by a panic, and shows what its server said"
)]

mod acceptor;
mod config;
mod control;
mod death;
mod docs;
mod ends;
mod http;
mod log;
mod msg;
mod options;
mod overload;
mod processes;
mod serve;
mod start;
mod stop;
mod support;
mod threads;
mod usage;
