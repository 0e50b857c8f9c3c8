//! `Figures`: everything that the admin page shows, read once.
//!
//! Invariant: it is read from shared memory and from one small file of /proc for each process, so that a page costs the same
//! whatever the processes are at, and tells of one that is stopped.

use std::collections::BTreeMap;

use tidegate_engine::{LatencyHistogram, ProcessWord, Reason};
use tidegate_log::Record;

use super::chart::Series;
use crate::history::{Rates, SAMPLES, Sample};
use crate::run::sampling::ADMIN;
use crate::status::{Status, StatusSource};

/// What is shown.
#[derive(Clone, Debug)]
pub(super) struct Figures {
    pub(super) status: Status,
    pub(super) is_ready: bool,
    /// The oldest first.
    pub(super) samples: Vec<Sample>,
    /// Of each process, in the order of the status.
    pub(super) loads: Vec<Load>,
    /// Of each listener, in the order of the status: since they began.
    pub(super) latencies: Vec<LatencyHistogram>,
    /// How many connections ended for each reason, the most first.
    pub(super) closes: Vec<(Reason, u64)>,
    /// Warnings and errors, the newest first.
    pub(super) records: Vec<Record>,
    /// Whether samples and records are kept at all.
    pub(super) has_board: bool,
}

/// How a process is used.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Load {
    /// In the last second; `None` before the first of it has passed.
    pub(super) rates: Option<Rates>,
    pub(super) stalls: u64,
    pub(super) panics: u64,
}

impl Figures {
    pub(super) fn read(source: &StatusSource) -> Self {
        let mut figures = source.steadily(|| Self::counted(source));
        if let Some(board) = &source.board {
            figures.has_board = true;
            figures.samples = board.history().samples();
            figures.records = board.recent().read();
        }
        figures
    }

    fn counted(source: &StatusSource) -> Self {
        let status = source.brief();
        let load = |process: crate::status::ProcessCounters| {
            let pid = process.get(ProcessWord::Pid);
            let sum = |word| process.seats().map(|(_, place)| place.get(word)).sum();
            Load {
                rates: source.board.as_ref().and_then(|board| board.history().rates(pid)),
                stalls: sum(ProcessWord::Stalls),
                panics: sum(ProcessWord::Panics),
            }
        };
        Self {
            is_ready: source.is_ready(),
            loads: source.started().map(load).collect(),
            latencies: source.listener_latencies(&status.listeners),
            closes: closes(source),
            status,
            samples: Vec::new(),
            records: Vec::new(),
            has_board: false,
        }
    }

    /// What was in the last so many seconds: the sample with which they began, and the last one.
    pub(super) fn last(&self, seconds: u64) -> Option<(&Sample, &Sample)> {
        let last = self.samples.last()?;
        let from = last.monotonic_ns.saturating_sub(seconds * NANOS);
        let first = self.samples.iter().find(|sample| sample.monotonic_ns >= from)?;
        (first.monotonic_ns < last.monotonic_ns).then_some((first, last))
    }

    /// How long answers took in the last so many seconds.
    pub(super) fn latency(&self, seconds: u64) -> LatencyHistogram {
        self.last(seconds).map_or(LatencyHistogram::EMPTY, |(first, last)| last.latency.since(&first.latency))
    }

    /// The seconds that the charts show: as many as there are samples for, of what reads well.
    pub(super) fn span(&self) -> u64 {
        let (Some(first), Some(last)) = (self.samples.first(), self.samples.last()) else { return SPANS[0] };
        let known = last.monotonic_ns.saturating_sub(first.monotonic_ns) / NANOS;
        // The last sample is rarely to the second as old as it should be.
        SPANS.into_iter().find(|span| known <= span + 2).unwrap_or(SAMPLES as u64)
    }

    /// A line of what was between samples that are some seconds apart; where `value` has nothing to say there is no point.
    pub(super) fn series(&self, name: &'static str, value: impl Fn(&Between) -> Option<f64>) -> Series {
        let Some(now) = self.samples.last().map(|sample| sample.monotonic_ns) else {
            return Series { name, points: Vec::new() };
        };
        let step = usize::try_from(self.span().div_ceil(MOST_POINTS)).unwrap_or(1);
        // Counted back from the newest, so that the last point is not some seconds old.
        let skipped = self.samples.len().saturating_sub(1) % step;
        let taken = || self.samples.iter().skip(skipped).step_by(step);
        let pairs = taken().zip(taken().skip(1));
        let points = pairs.filter_map(|(first, last)| {
            let ns = last.monotonic_ns.saturating_sub(first.monotonic_ns);
            let is_gap = ns == 0 || ns > LONGEST_STEP_NS;
            let between = Between { first, last, seconds: ns as f64 / NANOS as f64 };
            let ago = now.saturating_sub(last.monotonic_ns) as f64 / NANOS as f64;
            if is_gap { None } else { value(&between).map(|value| (ago, value)) }
        });
        Series { name, points: points.collect() }
    }
}

/// Two samples, one after the other.
#[derive(Clone, Copy, Debug)]
pub(super) struct Between<'a> {
    pub(super) first: &'a Sample,
    pub(super) last: &'a Sample,
    seconds: f64,
}

impl Between<'_> {
    /// What a total has grown by in a second. One that began anew is less than before.
    pub(super) fn rate(&self, total: impl Fn(&Sample) -> u64) -> f64 {
        total(self.last).saturating_sub(total(self.first)) as f64 / self.seconds
    }
}

/// Of the two samples of [`Figures::last`].
pub(super) fn rate_of((first, last): (&Sample, &Sample), total: impl Fn(&Sample) -> u64) -> u64 {
    let ns = last.monotonic_ns.saturating_sub(first.monotonic_ns).max(1);
    let came = u128::from(total(last).saturating_sub(total(first))) * u128::from(NANOS);
    u64::try_from(came / u128::from(ns)).unwrap_or(u64::MAX)
}

/// Over all listeners but those of the admin pages.
fn closes(source: &StatusSource) -> Vec<(Reason, u64)> {
    let mut closes: BTreeMap<u8, (Reason, u64)> = BTreeMap::new();
    let reasons = || Reason::ALL.iter().copied().chain(Reason::all_custom());
    for view in &source.generations {
        let listeners = view.listeners.iter().enumerate().filter(|(_, meta)| meta.service != ADMIN);
        for (listener, _) in listeners {
            for place in 0..view.metrics.processes() {
                let counts = view.metrics.process(place).listener(listener);
                for reason in reasons() {
                    closes.entry(reason.number()).or_insert((reason, 0)).1 += counts.closed(reason);
                }
            }
        }
    }
    let mut closes: Vec<_> = closes.into_values().filter(|(_, count)| *count > 0).collect();
    closes.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    closes
}

const NANOS: u64 = 1_000_000_000;
/// Of a line; more are not seen.
const MOST_POINTS: u64 = 150;
/// Samples that are further apart have a gap between them.
const LONGEST_STEP_NS: u64 = 12 * NANOS;
const SPANS: [u64; 4] = [60, 120, 300, SAMPLES as u64];

#[cfg(test)]
mod tests {
    use super::*;

    /// Figures with a sample for each second, whose requests are as given.
    pub(crate) fn figures(requests: &[(u64, u64)]) -> Figures {
        let sample = |(second, requests): &(u64, u64)| Sample {
            monotonic_ns: second * NANOS,
            requests: *requests,
            ..Sample::default()
        };
        Figures {
            status: Status::default(),
            is_ready: true,
            samples: requests.iter().map(sample).collect(),
            loads: Vec::new(),
            latencies: Vec::new(),
            closes: Vec::new(),
            records: Vec::new(),
            has_board: true,
        }
    }

    #[test]
    fn a_rate_is_what_came_over_the_time_it_came_in() {
        let figures = figures(&[(1, 100), (2, 150), (4, 400), (5, 10)]);
        let of = |seconds| figures.last(seconds).map(|last| rate_of(last, |sample| sample.requests));
        assert_eq!(of(1), Some(0), "one that began anew has done nothing");
        assert_eq!(of(0), None);
        let figures = super::tests::figures(&[(1, 100), (2, 150), (4, 400)]);
        assert_eq!(figures.last(2).map(|last| rate_of(last, |sample| sample.requests)), Some(125));
        assert_eq!(figures.last(600).map(|last| rate_of(last, |sample| sample.requests)), Some(100));
    }

    #[test]
    fn charts_begin_with_a_minute_and_end_with_ten() {
        let span = |last: u64| figures(&[(1, 0), (last, 0)]).span();
        assert_eq!(
            [span(2), span(61), span(70), span(200), span(400), span(9999)],
            [60, 60, 120, 300, 600, 600]
        );
        assert_eq!(figures(&[]).span(), 60);
        let minute: Vec<(u64, u64)> = (0..=30).map(|second| (second, second)).collect();
        assert_eq!(figures(&minute).series("a", |_| Some(0.0)).points.len(), 30, "one for each second");
    }

    #[test]
    fn a_line_has_a_point_for_some_seconds_and_none_for_a_gap() {
        let mut seconds: Vec<(u64, u64)> = (0..=8).map(|second| (second, second * 10)).collect();
        seconds.extend((508..=512).map(|second| (second, 1000)));
        let figures_of = figures(&seconds);
        assert_eq!(figures_of.span(), 600);
        let line = figures_of.series("a", |between| Some(between.rate(|sample| sample.requests)));
        // Seconds 1, 5 | 508, 512: the step from the second to the third is too long.
        assert_eq!(line.points, [(507.0, 10.0), (0.0, 0.0)]);
        assert!(figures(&[]).series("a", |_| Some(1.0)).points.is_empty());
    }
}
