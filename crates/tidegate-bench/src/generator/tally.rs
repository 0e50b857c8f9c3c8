//! `Tally`: what one thread has counted, for another to look at now and then.
//!
//! Invariant: a request that was begun ends in exactly one of: an answer, a failure, or what is still in flight.

use serde::{Deserialize, Serialize};

use super::secured::Secured;
use crate::Latency;

/// What one thread has counted.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Since it was looked at last: answers that count, and how long they took.
    pub(super) latency: Latency,
    /// How much later than it was due a request was sent whose connection was free, at a constant rate.
    pub(super) lateness: Latency,
    /// How long connections took to be made, whenever they were.
    pub(super) connect: Latency,
    /// How they are secured.
    pub(super) secured: Secured,
    /// Right answers since it began to count, the last ones included that came later.
    pub(super) answered: u64,
    pub(super) bytes_in: u64,
    pub(super) bytes_out: u64,
    pub(super) failures: Failures,
    /// Requests of a constant rate that were due before the end and were not sent, and those that were sent and had no
    /// answer: they stand among the latencies with the time that they have waited.
    pub(super) unsent: u64,
    pub(super) lost: u64,
}

/// Requests without a right answer, by what became of them. A connection that fails with nothing in flight counts as one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failures {
    /// Connections that could not be made.
    pub connect: u64,
    /// The connection was reset, or failed otherwise.
    pub reset: u64,
    /// The server closed the connection in order, with the request unanswered.
    pub closed: u64,
    /// Nothing came for the time-out.
    pub timeout: u64,
    /// The answer was not what it had to be.
    pub wrong: u64,
    /// The answer says that the request has failed: a status of 400 or more, or a login that was refused.
    pub status: u64,
    /// What the first of them was.
    pub first: Option<String>,
}

impl Failures {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.connect + self.reset + self.closed + self.timeout + self.wrong + self.status
    }

    /// Each kind that happened, with its name.
    pub fn kinds(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("connect", self.connect),
            ("reset", self.reset),
            ("closed", self.closed),
            ("timeout", self.timeout),
            ("wrong answer", self.wrong),
            ("error status", self.status),
        ]
        .into_iter()
        .filter(|(_, count)| *count > 0)
    }

    /// Counts others too.
    pub(crate) fn add(&mut self, other: Self) {
        self.connect += other.connect;
        self.reset += other.reset;
        self.closed += other.closed;
        self.timeout += other.timeout;
        self.wrong += other.wrong;
        self.status += other.status;
        if self.first.is_none() {
            self.first = other.first;
        }
    }

    /// Keeps what happened if it is the first.
    pub(super) fn tell(&mut self, text: impl FnOnce() -> String) {
        if self.first.is_none() {
            self.first = Some(text());
        }
    }
}

impl Tally {
    /// Takes what `from` has counted, and leaves it empty, without memory to be made anew.
    pub(super) fn take(&mut self, from: &mut Self) {
        self.latency.add(&from.latency);
        from.latency.clear();
        self.lateness.add(&from.lateness);
        from.lateness.clear();
        self.connect.add(&from.connect);
        from.connect.clear();
        self.secured.add(std::mem::take(&mut from.secured));
        self.answered += std::mem::take(&mut from.answered);
        self.bytes_in += std::mem::take(&mut from.bytes_in);
        self.bytes_out += std::mem::take(&mut from.bytes_out);
        self.failures.add(std::mem::take(&mut from.failures));
        self.unsent += std::mem::take(&mut from.unsent);
        self.lost += std::mem::take(&mut from.lost);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn what_is_taken_is_gone_and_the_first_failure_stays_the_first() {
        let (mut all, mut one) = (Tally::default(), Tally::default());
        for (round, text) in ["first", "second"].into_iter().enumerate() {
            one.latency.record(Duration::from_millis(1), 2);
            one.bytes_in += 5;
            one.failures.timeout += 1;
            one.failures.tell(|| text.to_owned());
            one.failures.tell(|| "never".to_owned());
            all.take(&mut one);
            assert_eq!((one.latency.count(), one.failures.total(), one.bytes_in), (0, 0, 0), "{round}");
        }
        assert_eq!((all.latency.count(), all.bytes_in, all.failures.total()), (4, 10, 2));
        assert_eq!(all.failures.first.as_deref(), Some("first"));
        assert_eq!(all.failures.kinds().collect::<Vec<_>>(), [("timeout", 2)]);
    }
}
