//! `LoadError`: why a run did not take place.

use tidegate_engine::BoxError;

use super::spec::SpecError;

/// Why a run did not take place.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It cannot be run as it was asked for.
    #[error(transparent)]
    Spec(#[from] SpecError),
    /// The process may not have descriptors enough.
    #[error(
        "{connections} connections need about {needed} descriptors, and this process may have {most} (ulimit -Hn)"
    )]
    Descriptors {
        /// How many connections were asked for.
        connections: usize,
        /// Descriptors that they need, with those of the process itself.
        needed: u64,
        /// The hard limit.
        most: u64,
    },
    /// The server cannot be reached.
    #[error("{0}")]
    Unreachable(String),
    /// The server did not let a connection in.
    #[error("{0}")]
    Rejected(String),
    /// It was ended before it began to count.
    #[error("stopped before anything was measured")]
    Stopped,
    /// A thread of the client could not be started, or failed.
    #[error("a thread of the client: {0}")]
    Thread(BoxError),
}
