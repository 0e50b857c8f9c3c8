//! `Figures`: what was measured of one model under one load, and their median over rounds.

use serde::Serialize;

use crate::measure::Syscalls;
use crate::{Failures, LatencySummary, middle};

/// Figures of one round, or the medians of all.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Figures {
    /// Right answers, in all rounds.
    pub requests: u64,
    /// What failed, in all rounds.
    pub failures: Failures,
    /// Right answers per second.
    pub rate: f64,
    /// Times from question to answer; `max_us` is the longest of all rounds.
    #[serde(flatten)]
    pub latency: LatencySummary,
    /// The processor time of all of the server's processes per answer, in microseconds.
    pub cpu_us: f64,
    /// Their memory while the connections stand, in bytes.
    pub memory_bytes: u64,
    /// How many processes the server has.
    pub processes: usize,
    /// And threads in all.
    pub threads: u64,
    /// Threads woken by a new connection.
    pub wakes_per_accept: Option<f64>,
    /// System calls per answer.
    pub syscalls: Syscalls,
}

impl Figures {
    /// The medians of all rounds; `None` without any.
    pub(super) fn median(rounds: &[Self]) -> Option<Self> {
        let first = rounds.first()?;
        let of = |figure: fn(&Self) -> f64| {
            let mut figures: Vec<f64> = rounds.iter().map(figure).collect();
            middle(&mut figures)
        };
        let mut memory: Vec<u64> = rounds.iter().map(|round| round.memory_bytes).collect();
        memory.sort_unstable();
        let mut wakes: Vec<f64> = rounds.iter().filter_map(|round| round.wakes_per_accept).collect();
        let mut failures = Failures::default();
        rounds.iter().for_each(|round| failures.add(round.failures.clone()));
        Some(Self {
            requests: rounds.iter().map(|round| round.requests).sum(),
            failures,
            rate: of(|round| round.rate)?,
            latency: LatencySummary {
                p50_us: of(|round| round.latency.p50_us)?,
                p99_us: of(|round| round.latency.p99_us)?,
                max_us: rounds.iter().map(|round| round.latency.max_us).fold(0.0, f64::max),
            },
            cpu_us: of(|round| round.cpu_us)?,
            memory_bytes: *memory.get(memory.len() / 2)?,
            wakes_per_accept: middle(&mut wakes),
            ..first.clone()
        })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Figures with this rate.
    pub(in crate::models) fn figures(rate: f64) -> Figures {
        Figures {
            requests: 10,
            failures: Failures::default(),
            rate,
            latency: LatencySummary { p50_us: rate, p99_us: rate * 2.0, max_us: 100.0 - rate },
            cpu_us: -rate,
            memory_bytes: 7,
            processes: 4,
            threads: 5,
            wakes_per_accept: None,
            syscalls: Syscalls::NotAsked,
        }
    }

    #[test]
    fn medians_are_taken_of_each_figure_and_counts_added_up() {
        let failures = Failures { wrong: 2, ..Failures::default() };
        let rounds =
            [figures(3.0), Figures { failures, wakes_per_accept: Some(1.5), ..figures(1.0) }, figures(2.0)];
        let median = Figures::median(&rounds).unwrap();
        assert_eq!((median.rate, median.cpu_us, median.latency.p99_us), (2.0, -2.0, 4.0));
        assert_eq!((median.latency.max_us, median.failures.wrong, median.requests), (99.0, 2, 30));
        assert_eq!(median.wakes_per_accept, Some(1.5));
        assert_eq!(Figures::median(&[]), None);
    }
}
