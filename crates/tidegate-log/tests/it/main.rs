//! The log service as a whole: real sockets, real files, real processes.
#![expect(
    unreachable_pub,
    clippy::unwrap_used,
    reason = "a test ends with a panic, and its modules are no interface"
)]

mod away;
mod delivery;
mod layer;
mod process;
mod server;
mod support;
mod tail;
