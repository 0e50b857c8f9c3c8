//! `Layout`: which place among the counters belongs to whom.
//!
//! ```text
//!  0       1           2 …                    one worker after the other
//! +--------+------------+--------+--------+---+----------+--------+---
//! | master | log server | loop-0 | loop-1 | … | acceptor | loop-0 | …
//! +--------+------------+--------+--------+---+----------+--------+---
//! ```
//!
//! Invariant: all processes of a server have the same layout, since it follows from the configuration alone. The words of a
//! process stand in the first of its places, the words of a thread in its own.

use std::fmt;
use std::ops::Range;

/// The places of the processes, and of the threads of each worker that have counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Loops of each worker, at least 1.
    pub(crate) loops: usize,
    /// Whether each worker has an acceptor besides.
    pub(crate) has_acceptor: bool,
}

/// A thread of a worker that has counters of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Seat {
    /// An event loop, counted from 0 in each worker.
    Loop(usize),
    /// The main reactor, which accepts for the loops of its worker.
    Acceptor,
}

impl Layout {
    pub(crate) const MASTER: usize = 0;
    pub(crate) const LOG_SERVER: usize = 1;
    /// Where the workers begin.
    pub(crate) const FIRST_WORKER: usize = 2;

    /// How many places so many workers and the other processes have.
    pub(crate) const fn places(self, workers: usize) -> usize {
        Self::FIRST_WORKER + workers * self.worker_places()
    }

    /// How many places each worker has.
    pub(crate) const fn worker_places(self) -> usize {
        if self.has_acceptor { self.loops + 1 } else { self.loops }
    }

    /// The places of a worker, in the order of its [`seats`](Self::seats).
    pub(crate) const fn of_worker(self, worker: usize) -> Range<usize> {
        self.places(worker)..self.places(worker + 1)
    }

    /// The threads of a worker that have places.
    pub(crate) fn seats(self) -> impl Iterator<Item = Seat> {
        (0..self.loops).map(Seat::Loop).chain(self.has_acceptor.then_some(Seat::Acceptor))
    }
}

impl Seat {
    /// What the metrics call it.
    #[cfg(feature = "full")]
    pub(crate) fn label(self) -> String {
        match self {
            Self::Loop(index) => index.to_string(),
            Self::Acceptor => self.to_string(),
        }
    }
}

impl fmt::Display for Seat {
    /// The name of the thread.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Loop(index) => write!(f, "loop-{index}"),
            Self::Acceptor => f.write_str("acceptor"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_follow_each_other_with_their_acceptors() {
        let layout = Layout { loops: 3, has_acceptor: true };
        assert_eq!([layout.of_worker(0), layout.of_worker(1)], [2..6, 6..10]);
        assert_eq!(layout.places(2), 10);
        let names: Vec<String> = layout.seats().map(|seat| seat.to_string()).collect();
        assert_eq!(names, ["loop-0", "loop-1", "loop-2", "acceptor"]);
        let each = Layout { has_acceptor: false, ..layout };
        assert_eq!((each.of_worker(1), each.seats().count()), (5..8, 3));
    }
}
