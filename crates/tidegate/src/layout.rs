//! `Layout`: which place among the counters belongs to whom.
//!
//! ```text
//!  of a generation:
//!  0         1          2 …                                  each worker twice: itself, and one that replaces it
//! +---------+----------+--------+--------+---+----------+--------+---
//! | carried | acceptor | loop-0 | loop-1 | … | acceptor | loop-0 | …
//! +---------+----------+--------+--------+---+----------+--------+---
//!  of those that belong to no generation:
//! +--------+------------+---------+---
//! | master | log server | process | …
//! +--------+------------+---------+---
//! ```
//!
//! Invariant: all processes of a generation have the same layout, since it follows from the configuration alone. The words
//! of a process stand in the first of its places, the words of a thread in its own. What generations that have ended did
//! is carried on in the first place of the one that serves.

use std::fmt;
use std::ops::Range;

use serde::{Deserialize, Serialize};

/// The places of the processes, and of the threads of each worker that have counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Layout {
    /// Loops of each worker, at least 1.
    pub(crate) loops: usize,
    /// Whether each worker has an acceptor besides, or a receiver.
    pub(crate) has_acceptor: bool,
    /// The processes are not those of a generation: each has one place.
    #[serde(default)]
    pub(crate) is_permanent: bool,
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
    /// Where the processes of a program's own begin.
    pub(crate) const FIRST_PROCESS: usize = 2;

    /// What was counted by generations that have ended.
    pub(crate) const CARRIED: usize = 0;
    pub(crate) const ACCEPTOR: usize = 1;
    /// Where the workers begin.
    pub(crate) const FIRST_WORKER: usize = 2;
    /// A worker, and one that replaces it while it still drains.
    pub(crate) const PROCESSES_OF_A_WORKER: usize = 2;

    /// The places of those that live over generations.
    pub(crate) const PERMANENT: Self = Self { loops: 1, has_acceptor: false, is_permanent: true };

    /// How many places a generation of so many workers has.
    pub(crate) const fn places(self, workers: usize) -> usize {
        Self::FIRST_WORKER + workers * Self::PROCESSES_OF_A_WORKER * self.worker_places()
    }

    /// How many places each worker has.
    pub(crate) const fn worker_places(self) -> usize {
        if self.has_acceptor { self.loops + 1 } else { self.loops }
    }

    /// The places of a worker, in the order of its [`seats`](Self::seats); `replacing` is 1 for one that replaces another.
    pub(crate) const fn of_worker(self, worker: usize, replacing: usize) -> Range<usize> {
        let at = self.places(worker) + (replacing % Self::PROCESSES_OF_A_WORKER) * self.worker_places();
        at..at + self.worker_places()
    }

    /// How many processes are workers of a generation of so many.
    pub(crate) const fn worker_seats(workers: usize) -> usize {
        workers * Self::PROCESSES_OF_A_WORKER
    }

    /// Which of these processes a worker is.
    pub(crate) const fn worker_seat(worker: usize, replacing: usize) -> usize {
        worker * Self::PROCESSES_OF_A_WORKER + replacing % Self::PROCESSES_OF_A_WORKER
    }

    /// Where places of more than one begin.
    pub(crate) const fn first_worker(self) -> usize {
        if self.is_permanent { usize::MAX } else { Self::FIRST_WORKER }
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
        let layout = Layout { loops: 3, has_acceptor: true, is_permanent: false };
        assert_eq!(
            [layout.of_worker(0, 0), layout.of_worker(0, 1), layout.of_worker(1, 0)],
            [2..6, 6..10, 10..14]
        );
        assert_eq!(layout.places(2), 18);
        let names: Vec<String> = layout.seats().map(|seat| seat.to_string()).collect();
        assert_eq!(names, ["loop-0", "loop-1", "loop-2", "acceptor"]);
        let each = Layout { has_acceptor: false, ..layout };
        assert_eq!((each.of_worker(1, 0), each.seats().count()), (8..11, 3));
    }
}
