//! The services that come with the library: a closure over a stream, echo, discard, and the classic ones for trying things out, and the admin pages.

#[cfg(feature = "full")]
pub(crate) mod admin;
mod chargen;
mod datagrams;
mod daytime;
mod stream;
#[cfg(feature = "full")]
pub(crate) mod web;

pub use chargen::Chargen;
pub use datagrams::{Datagrams, discard_datagrams, echo_datagrams, may_answer};
pub use daytime::Daytime;
pub use stream::{Stream, discard, echo};
