//! `Wish`: what a callback asks of the loop that is not about its own connection alone.
//!
//! Wishes wait until the events at hand are done with, so that nothing is done to one connection in the midst of another.

use tidegate_reactor::Token;

use crate::connect::Dial;

/// Something that is done at the end of the turn.
#[derive(Debug)]
pub(crate) enum Wish {
    /// A connection is wanted.
    Connect(Dial),
    /// Two connections are to be tied together.
    Tie(Tie),
}

/// Two connections that belong together from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Tie {
    /// The one whose service has asked for it.
    pub(crate) one: Token,
    pub(crate) other: Token,
}

/// Why two connections cannot be tied together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TieError {
    /// They are of different event loops.
    #[error("the two connections belong to different event loops")]
    OtherLoop,
    /// They are one and the same.
    #[error("a connection cannot be tied to itself")]
    Itself,
}
