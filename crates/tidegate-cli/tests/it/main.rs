//! The whole program: the real binary with real sockets, and processes that are killed for real.

#![expect(
    clippy::unwrap_used,
    clippy::print_stderr,
    reason = "a test fails by a panic, and shows what its server said"
)]

mod acceptor;
mod admin_page;
mod api;
mod bench;
mod bench_capture;
mod bench_load;
mod browser;
mod config;
mod control;
mod daemon;
mod datagrams;
mod death;
mod devices;
mod docs;
mod ends;
mod forwarder;
mod full_disk;
mod http;
mod keys;
mod latency;
mod links;
mod log;
mod msg;
mod network;
mod operator;
mod options;
mod overload;
mod processes;
mod reload;
mod serve;
mod signals;
mod sites;
mod start;
mod stop;
mod support;
mod systemd;
mod threads;
mod tls;
mod tshark;
mod upgrade;
mod usage;
mod user;
mod vanished;
mod web_browser;
