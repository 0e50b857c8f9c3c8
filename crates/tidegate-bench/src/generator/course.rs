//! `Course`: the time of a run: when is asked, when it counts, and when each request of a constant rate is due.
//!
//! Invariant: times are nanoseconds of `CLOCK_MONOTONIC`, the clock of the reactor, so that a timer for one of them is set by
//! subtraction.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What all threads of a run know of its time.
#[derive(Debug, Default)]
pub(crate) struct Course {
    /// A warm-up of its own, of which nothing counts.
    warmup: OnceLock<Times>,
    times: OnceLock<Times>,
}

/// Set once, when all connections are open.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    /// From when on is asked.
    pub(crate) go: u64,
    /// From when on it counts.
    pub(crate) begin: u64,
    /// From when on nothing is asked any more.
    pub(crate) end: u64,
}

impl Times {
    /// Begins now.
    pub(crate) fn from_now(warmup: Duration, duration: Duration) -> Self {
        let go = now();
        let begin = go.saturating_add(nanos(warmup));
        Self { go, begin, end: begin.saturating_add(nanos(duration)) }
    }

    /// Begins now, and nothing of it counts.
    pub(crate) fn of_warmup(warmup: Duration) -> Self {
        let go = now();
        Self { go, begin: u64::MAX, end: go.saturating_add(nanos(warmup)) }
    }

    /// Whether what happens at this time counts.
    #[inline]
    pub(crate) fn counts(&self, at: u64) -> bool {
        (self.begin..self.end).contains(&at)
    }
}

impl Course {
    /// Asking begins, for a warm-up that ends before anything else does. It does so once.
    pub(crate) fn set_warmup(&self, times: Times) {
        let _ = self.warmup.set(times);
    }

    /// Asking begins. It does so once.
    pub(crate) fn set(&self, times: Times) {
        // A second time would find the first in its place, which is as good.
        let _ = self.times.set(times);
    }

    /// `None` before it has begun.
    #[inline]
    pub(crate) fn times(&self) -> Option<&Times> {
        self.times.get().or_else(|| self.warmup.get())
    }
}

/// When the requests of a constant rate are due: evenly over the run, and in turn over its connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// From one request to the next, over all connections.
    interval_ns: f64,
    connections: u32,
}

impl Pace {
    pub(crate) fn new(rate: f64, connections: u32) -> Self {
        Self { interval_ns: 1e9 / rate, connections }
    }

    /// How long after the beginning request `nth` of connection `number` is due.
    #[inline]
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "requests of a run are far below 2^52, and the cast saturates"
    )]
    pub(crate) fn due(&self, number: u32, nth: u64) -> u64 {
        let place = nth.saturating_mul(self.connections.into()).saturating_add(number.into());
        // To the nearest: the last one of a period would else fall before its end by a nanosecond.
        (place as f64 * self.interval_ns).round() as u64
    }
}

/// `CLOCK_MONOTONIC`, clock_gettime(2): no system call, since the vDSO answers it.
#[inline]
pub(crate) fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    seconds.saturating_mul(1_000_000_000).saturating_add(u64::try_from(time.tv_nsec).unwrap_or(0))
}

pub(crate) fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_spread_evenly_over_connections_and_does_not_drift() {
        let pace = Pace::new(3_000.0, 7);
        let mut due: Vec<u64> =
            (0..7).flat_map(|number| (0..3_000).map(move |nth| pace.due(number, nth))).collect();
        due.sort_unstable();
        assert_eq!(due.len(), 21_000);
        for (place, &at) in (0_u64..).zip(&due) {
            assert!(at.abs_diff(place * 1_000_000_000 / 3_000) <= 1, "{place} at {at}");
        }
    }

    #[test]
    fn only_what_lies_between_begin_and_end_counts() {
        let times = Times { go: 5, begin: 10, end: 20 };
        let counted: Vec<u64> = (0..30).filter(|&at| times.counts(at)).collect();
        assert_eq!((counted.first(), counted.last()), (Some(&10), Some(&19)));
    }

    #[test]
    fn a_period_has_as_many_requests_as_it_should() {
        for (connections, every) in [(41_u32, 0.1), (7, 0.3), (1000, 30.0), (3, 1.0)] {
            let pace = Pace::new(f64::from(connections) / every, connections);
            let period = nanos(Duration::from_secs_f64(every));
            for nth in 1..1000 {
                assert_eq!(pace.due(0, nth), nth * period, "{connections} {every} {nth}");
            }
        }
    }

    #[test]
    fn it_is_set_once_after_a_warm_up_of_its_own() {
        let course = Course::default();
        assert!(course.times().is_none());
        course.set_warmup(Times::of_warmup(Duration::from_secs(1)));
        assert!(course.times().is_some_and(|times| !times.counts(times.go) && !times.counts(times.end)));
        course.set(Times { go: 1, begin: 2, end: 3 });
        course.set(Times { go: 4, begin: 5, end: 6 });
        assert_eq!(course.times().unwrap().go, 1);
    }
}
