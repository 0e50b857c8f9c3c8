//! The load generator: a client of the engine that asks, checks every answer, and tells how long each took.
//!
//! Read [`LoadSpec`] first, then [`run`]. Without a rate it is a closed loop, which finds out what a server can do. With one it
//! is an open loop: each request is due at its time and is measured from then on, so that a server that stalls is not spared
//! the requests that it kept from being sent (no coordinated omission).

mod address;
mod ask;
mod client;
mod course;
mod dialogue;
mod driver;
mod echo;
mod error;
mod http;
mod loss;
mod msg;
mod places;
mod report;
mod secured;
mod service;
mod spec;
mod stop;
mod tally;
mod threads;
mod unsent;

pub use address::{AddressError, HttpUrl, name_of, resolve};
pub use ask::{Ask, Login};
pub use driver::{Held, run, run_held};
pub use error::LoadError;
pub use report::{LoadReport, Progress, Second};
pub use secured::{Agreed, Secured};
pub use spec::{LoadSpec, MAX_CONNECTIONS, MAX_ECHO_BYTES, MAX_IN_FLIGHT_BYTES, MAX_PIPELINE, SpecError};
pub use stop::Stop;
pub use tally::Failures;
