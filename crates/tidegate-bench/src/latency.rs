//! `Latency`: times from question to answer, with three significant digits and a fixed size.
//!
//! Invariant: nothing is thrown away; a time beyond a minute counts as a minute.

use std::time::Duration;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};

/// A histogram of times.
#[derive(Clone, Debug)]
pub struct Latency(Histogram<u64>);

/// What is told of a histogram, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LatencySummary {
    /// Half of the answers came within this time.
    pub p50_us: f64,
    /// 99 of 100 did.
    pub p99_us: f64,
    /// All did.
    pub max_us: f64,
}

const LONGEST: Duration = Duration::from_secs(60);

impl Default for Latency {
    fn default() -> Self {
        Self::new()
    }
}

impl Latency {
    /// An empty histogram.
    ///
    /// # Panics
    ///
    /// Never: the bounds are constants, and valid ones.
    #[must_use]
    pub fn new() -> Self {
        let longest = nanoseconds(LONGEST);
        Self(
            Histogram::new_with_bounds(1, longest, 3)
                .expect("1 < 2 * 1 <= longest, and 3 digits are allowed"),
        )
    }

    /// Counts `answers` answers that took this long.
    #[inline]
    pub fn record(&mut self, time: Duration, answers: u64) {
        self.0.saturating_record_n(nanoseconds(time).max(1), answers);
    }

    /// How many answers were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.0.len()
    }

    /// The percentiles; all 0 when nothing was counted.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        if self.0.is_empty() {
            return LatencySummary::default();
        }
        LatencySummary {
            p50_us: microseconds(self.0.value_at_quantile(0.50)),
            p99_us: microseconds(self.0.value_at_quantile(0.99)),
            max_us: microseconds(self.0.max()),
        }
    }
}

fn nanoseconds(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn microseconds(nanoseconds: u64) -> f64 {
    Duration::from_nanos(nanoseconds).as_secs_f64() * 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn near(value: f64, expected: f64) -> bool {
        (value - expected).abs() <= expected * 0.002
    }

    #[test]
    fn percentiles_are_within_three_digits() {
        let mut latency = Latency::new();
        for us in 1..=1000 {
            latency.record(Duration::from_micros(us), 1);
        }
        let summary = latency.summary();
        assert_eq!(latency.count(), 1000);
        assert!(near(summary.p50_us, 500.0), "{summary:?}");
        assert!(near(summary.p99_us, 990.0), "{summary:?}");
        assert!(near(summary.max_us, 1000.0), "{summary:?}");
    }

    #[test]
    fn several_answers_at_once_count_each() {
        let mut latency = Latency::new();
        latency.record(Duration::from_micros(1), 99);
        latency.record(Duration::from_secs(1), 1);
        assert!(near(latency.summary().p99_us, 1.0));
        assert_eq!(latency.count(), 100);
    }

    #[test]
    fn extremes_are_counted_at_the_bounds() {
        let mut latency = Latency::new();
        latency.record(Duration::ZERO, 1);
        latency.record(Duration::MAX, 1);
        assert_eq!(latency.count(), 2);
        assert!(near(latency.summary().max_us, 60e6));
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert_eq!(Latency::new().summary(), LatencySummary::default());
    }
}
