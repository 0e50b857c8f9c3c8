//! The load generator: a client of the engine that asks, checks every answer, and tells how long each took.
//!
//! Read [`LoadSpec`] first, then [`run`]. Without a rate it is a closed loop, which finds out what a server can do. With one it
//! is an open loop: each request is due at its time and is measured from then on, so that a server that stalls is not spared
//! the requests that it kept from being sent (no coordinated omission).

mod address;
mod client;
mod course;
mod dialogue;
mod driver;
mod echo;
mod http;
mod msg;
mod report;
mod spec;
mod tally;
mod threads;

pub use address::{AddressError, HttpUrl, resolve};
pub use driver::{LoadError, run};
pub use report::{LoadReport, Progress, Second};
pub use spec::{
    Ask, LoadSpec, Login, MAX_CONNECTIONS, MAX_ECHO_BYTES, MAX_IN_FLIGHT_BYTES, MAX_PIPELINE, SpecError,
};
pub use tally::Failures;
