//! `Note`: what other threads tell a connection of the web service.

use crate::Response;
use crate::sink::SinkStep;

/// A letter to a connection. Only this crate writes any.
#[derive(Debug)]
pub struct Note(pub(crate) Word);

/// What it says.
#[derive(Debug)]
pub(crate) enum Word {
    /// The answer to the request that waits.
    Answer(Response),
    /// A sink has done something on the pool.
    Sink(SinkStep),
    /// A stream has something to send.
    Stream,
    /// Nothing; a connection that was suspended goes on.
    Resume,
    /// Whether the password of the request that waits is right.
    Login(bool),
}
