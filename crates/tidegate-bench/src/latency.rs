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

/// All that is told of a run's times, in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each is the percentile that it is named after")]
pub struct Percentiles {
    pub mean_us: f64,
    pub p50_us: f64,
    pub p75_us: f64,
    pub p90_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub p99_99_us: f64,
    pub max_us: f64,
}

impl Percentiles {
    /// The three that tables of many servers have room for.
    #[must_use]
    pub fn summary(&self) -> LatencySummary {
        LatencySummary { p50_us: self.p50_us, p99_us: self.p99_us, max_us: self.max_us }
    }
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

    /// Counts what another histogram has counted, too.
    ///
    /// # Panics
    ///
    /// Never: all have the same bounds.
    pub fn add(&mut self, other: &Self) {
        self.0.add(&other.0).expect("both have the same bounds");
    }

    /// Forgets everything, and keeps the memory.
    pub fn clear(&mut self) {
        self.0.reset();
    }

    /// The time within which this share of the answers came; zero when nothing was counted.
    #[must_use]
    pub fn at(&self, share: f64) -> Duration {
        if self.0.is_empty() { Duration::ZERO } else { Duration::from_nanos(self.0.value_at_quantile(share)) }
    }

    /// The mean, the median and the tail; all 0 when nothing was counted.
    #[must_use]
    pub fn percentiles(&self) -> Percentiles {
        if self.0.is_empty() {
            return Percentiles::default();
        }
        let at = |share| microseconds(self.0.value_at_quantile(share));
        Percentiles {
            mean_us: self.0.mean() / 1e3,
            p50_us: at(0.5),
            p75_us: at(0.75),
            p90_us: at(0.9),
            p99_us: at(0.99),
            p99_9_us: at(0.999),
            p99_99_us: at(0.9999),
            max_us: microseconds(self.0.max()),
        }
    }

    /// The shares of the answers, from none to all, with the time in microseconds within which so many came. The nearer to
    /// all, the finer the steps, as far as there are answers for them.
    #[must_use]
    pub fn curve(&self) -> Vec<(f64, f64)> {
        if self.0.is_empty() {
            return Vec::new();
        }
        let steps = self.0.iter_quantiles(STEPS_PER_HALVING);
        steps.map(|step| (step.quantile_iterated_to(), microseconds(step.value_iterated_to()))).collect()
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

/// Points of the curve each time that the share that is missing to all is halved.
const STEPS_PER_HALVING: u32 = 4;

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
    fn histograms_add_up_and_the_curve_rises_to_the_longest() {
        let (mut all, mut other) = (Latency::new(), Latency::new());
        for us in 1..=5000 {
            all.record(Duration::from_micros(us), 1);
            other.record(Duration::from_micros(5000 + us), 1);
        }
        all.add(&other);
        other.clear();
        assert_eq!((all.count(), other.count()), (10_000, 0));
        let told = all.percentiles();
        assert!(near(told.mean_us, 5000.5) && near(told.p50_us, 5000.0), "{told:?}");
        assert!(near(told.p99_9_us, 9990.0) && near(told.p99_99_us, 9999.0), "{told:?}");
        let curve = all.curve();
        assert!(curve.is_sorted_by(|a, b| a.0 <= b.0 && a.1 <= b.1), "{curve:?}");
        let (share, longest) = curve.last().copied().unwrap();
        assert!(share >= 0.9999 && near(longest, 10_000.0), "{share} {longest}");
        assert!(all.at(0.5).as_micros().abs_diff(5000) <= 5);
    }

    #[test]
    fn nothing_counted_is_zero() {
        assert_eq!(Latency::new().percentiles(), Percentiles::default());
        assert_eq!((Latency::new().at(0.5), Latency::new().curve()), (Duration::ZERO, vec![]));
        assert_eq!(Latency::new().summary(), LatencySummary::default());
    }
}
