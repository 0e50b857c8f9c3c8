//! The services that come with the library: a closure over a stream, echo, discard, and the admin pages.

#[cfg(feature = "full")]
pub(crate) mod admin;
mod stream;

pub use stream::{Stream, discard, echo};
