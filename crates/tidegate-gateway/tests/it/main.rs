//! The gateway on real sockets, in real event loops.
#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

#[cfg(feature = "accounts")]
mod accounts;
mod bad_input;
mod frames;
mod heartbeat;
mod limits;
mod served;
