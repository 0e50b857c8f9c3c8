//! Round trips: the smoothed one and the time-out of RFC 6298, and the jitter of RFC 3550.
//!
//! Invariant: what goes in was told apart from retransmissions before (Karn's algorithm); here every sample counts.

use serde::Serialize;

use crate::sample::{Percentiles, Sample};

/// Round trips in one direction of one connection.
#[derive(Clone, Debug, Default)]
pub(crate) struct Rtt {
    samples: Sample,
    estimate: Option<Estimate>,
    jitter: Jitter,
}

/// The state of RFC 6298, section 2, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Estimate {
    smoothed: f64,
    variation: f64,
}

/// Jitter by RFC 3550, section 6.4.1, of round trips in place of one-way transits: a capture knows one clock only.
#[derive(Clone, Debug, Default)]
struct Jitter {
    last_ns: Option<u64>,
    value: f64,
    differences: Sample,
}

/// Round trips between the place of the capture and one end.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct RttReport {
    /// Their times.
    pub times: Percentiles,
    /// The smoothed round trip at the end (RFC 6298, section 2), in nanoseconds; of one connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub smoothed_ns: Option<u64>,
    /// Its variation at the end, in nanoseconds; of one connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub variation_ns: Option<u64>,
    /// The retransmission time-out at the end, at least one second (RFC 6298, section 2.4), in nanoseconds; of one
    /// connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_ns: Option<u64>,
    /// The jitter at the end (RFC 3550, section 6.4.1, of round trips), in nanoseconds; of one connection only.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub jitter_ns: Option<u64>,
    /// By how much a round trip differed from the one before it on the same connection.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub differences: Option<Percentiles>,
}

impl Rtt {
    /// Counts a round trip, and tells by how much it differs from the one before.
    pub(crate) fn record(&mut self, rtt_ns: u64) -> Option<u64> {
        self.samples.record(rtt_ns);
        let rtt = as_f64(rtt_ns);
        // RFC 6298, section 2.2 and 2.3, with its alpha of 1/8 and beta of 1/4; the variation is the first to change.
        self.estimate = Some(match self.estimate {
            None => Estimate { smoothed: rtt, variation: rtt / 2.0 },
            Some(Estimate { smoothed, variation }) => Estimate {
                variation: 0.75 * variation + 0.25 * (smoothed - rtt).abs(),
                smoothed: 0.875 * smoothed + 0.125 * rtt,
            },
        });
        self.jitter.record(rtt_ns)
    }

    /// Memory beside itself that it has taken, in bytes.
    pub(crate) fn held(&self) -> usize {
        self.samples.held() + self.jitter.differences.held()
    }

    /// What is to be told, when there was a sample.
    pub(crate) fn report(&self) -> Option<RttReport> {
        let times = self.samples.percentiles()?;
        let Estimate { smoothed, variation } = self.estimate?;
        Some(RttReport {
            times,
            smoothed_ns: Some(as_ns(smoothed)),
            variation_ns: Some(as_ns(variation)),
            timeout_ns: Some(as_ns((smoothed + 4.0 * variation).max(MIN_TIMEOUT_NS))),
            jitter_ns: self.jitter.last_ns.map(|_| as_ns(self.jitter.value)),
            differences: self.jitter.differences.percentiles(),
        })
    }
}

impl Jitter {
    fn record(&mut self, transit_ns: u64) -> Option<u64> {
        let difference = self.last_ns.replace(transit_ns).map(|last| last.abs_diff(transit_ns))?;
        self.value += (as_f64(difference) - self.value) / 16.0;
        self.differences.record(difference);
        Some(difference)
    }
}

#[expect(
    clippy::cast_precision_loss,
    reason = "beyond 2^53 ns, which is 104 days, nobody counts nanoseconds"
)]
fn as_f64(ns: u64) -> f64 {
    ns as f64
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "none of them is below 0, and the cast saturates"
)]
fn as_ns(ns: f64) -> u64 {
    ns.round() as u64
}

const MIN_TIMEOUT_NS: f64 = 1e9;

#[cfg(test)]
mod tests {
    use super::*;

    fn of(samples: &[u64]) -> RttReport {
        let mut rtt = Rtt::default();
        samples.iter().for_each(|ns| {
            rtt.record(*ns);
        });
        rtt.report().unwrap()
    }

    #[test]
    fn the_first_sample_is_the_estimate_and_half_of_it_the_variation() {
        let report = of(&[2_000_000_000]);
        assert_eq!((report.smoothed_ns, report.variation_ns), (Some(2_000_000_000), Some(1_000_000_000)));
        assert_eq!(report.timeout_ns, Some(6_000_000_000));
        assert_eq!((report.jitter_ns, report.differences), (Some(0), None));
    }

    #[test]
    fn later_samples_move_it_by_an_eighth_and_a_quarter() {
        let report = of(&[1_000, 2_000]);
        // 0.75 * 500 + 0.25 * 1000, and 0.875 * 1000 + 0.125 * 2000.
        assert_eq!((report.variation_ns, report.smoothed_ns), (Some(625), Some(1_125)));
        assert_eq!(report.timeout_ns, Some(1_000_000_000), "it is never below a second");
    }

    #[test]
    fn jitter_is_a_sixteenth_of_each_difference() {
        // 1600 / 16 = 100, then 100 + (1600 - 100) / 16 = 193.75.
        let report = of(&[10_000, 11_600, 10_000]);
        assert_eq!(report.jitter_ns, Some(194));
        let differences = report.differences.unwrap();
        assert_eq!((differences.count, differences.min_ns, differences.max_ns), (2, 1_600, 1_600));
    }

    #[test]
    fn nothing_is_told_of_nothing() {
        assert!(Rtt::default().report().is_none());
    }
}
