//! `History`: what a server has done in each of the last ten minutes' seconds, and what each process did in the last one.
//!
//! ```text
//! +-------+--------------------------+-----+------+---------------------+-----
//! | count | ticket | sample | ticket | … 600 …   | pid | rates         | … 256
//! +-------+--------------------------+-----+------+---------------------+-----
//! ```
//!
//! Samples are totals, so that any two of them tell what was between them. One writes, everybody reads. Invariant: a sample
//! is read only if it stands whole under its ticket, so one that is overwritten meanwhile is left out.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering, fence};

use tidegate_engine::{LatencyHistogram, Words};

/// The last samples. Clones are the same.
#[derive(Clone, Debug)]
pub(crate) struct History {
    words: Arc<dyn Words>,
    at: usize,
}

/// What all processes have done up to a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample {
    /// In seconds since 1970.
    pub(crate) unix_time: u64,
    /// The monotonic clock, in nanoseconds.
    pub(crate) monotonic_ns: u64,
    /// Connections that are open.
    pub(crate) connections: u64,
    pub(crate) accepted: u64,
    /// Requests, frames, datagrams: whatever messages are to the services.
    pub(crate) requests: u64,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) stalls: u64,
    /// What the event loops were busy, in thousandths of all their time since the sample before.
    pub(crate) busy_permille: u64,
    pub(crate) latency: LatencyHistogram,
}

/// What a process did since the sample before.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rates {
    pub(crate) pid: u64,
    /// Requests in a second.
    pub(crate) requests: u64,
    /// Bytes received in a second.
    pub(crate) bytes_in: u64,
    /// Bytes sent in a second.
    pub(crate) bytes_out: u64,
    /// What its loops were busy, in thousandths of their time.
    pub(crate) busy_permille: u64,
}

impl History {
    /// How many words it takes.
    pub(crate) const WORDS: usize = RATES_AT + PROCESSES * RATE_WORDS;

    /// The history that stands from `at` on in words that were zero when they were new; `None` when there is no room.
    pub(crate) fn new(words: Arc<dyn Words>, at: usize) -> Option<Self> {
        let end = at.checked_add(Self::WORDS)?;
        (end <= words.words().len()).then_some(Self { words, at })
    }

    /// Enters a sample in the place of the oldest. Only one thread of one process may.
    pub(crate) fn push(&self, sample: &Sample) {
        let words = self.words();
        let ticket = words[0].load(Ordering::Relaxed).wrapping_add(1).max(1);
        let place = place(words, ticket);
        place[0].store(0, Ordering::Relaxed);
        fence(Ordering::Release);
        for (word, value) in place[1..].iter().zip(sample.to_words()) {
            word.store(value, Ordering::Relaxed);
        }
        place[0].store(ticket, Ordering::Release);
        words[0].store(ticket, Ordering::Release);
    }

    /// Enters what the processes did; more than there is room for are left out. Only one thread of one process may.
    pub(crate) fn set_rates(&self, rates: &[Rates]) {
        let places = self.words()[RATES_AT..].chunks_exact(RATE_WORDS);
        let rates = rates.iter().copied().chain(std::iter::repeat(Rates::default()));
        for (place, rates) in places.zip(rates) {
            let values = [rates.pid, rates.requests, rates.bytes_in, rates.bytes_out, rates.busy_permille];
            for (word, value) in place.iter().zip(values) {
                word.store(value, Ordering::Relaxed);
            }
        }
    }

    /// The samples, the oldest first.
    #[cfg(any(feature = "full", test))]
    pub(crate) fn samples(&self) -> Vec<Sample> {
        let words = self.words();
        let newest = words[0].load(Ordering::Acquire);
        let oldest = newest.saturating_sub(SAMPLES as u64 - 1).max(1);
        let whole = (oldest..=newest).filter_map(|ticket| {
            let place = place(words, ticket);
            if place[0].load(Ordering::Acquire) != ticket {
                return None;
            }
            let sample = Sample::of_words(|at| place[1 + at].load(Ordering::Relaxed));
            fence(Ordering::Acquire);
            (place[0].load(Ordering::Relaxed) == ticket).then_some(sample)
        });
        whole.collect()
    }

    /// What a process did; `None` for one that is not known yet. The numbers are only roughly of the same second.
    #[cfg(any(feature = "full", test))]
    pub(crate) fn rates(&self, pid: u64) -> Option<Rates> {
        let mut places = self.words()[RATES_AT..].chunks_exact(RATE_WORDS);
        let place = places.find(|place| pid != 0 && place[0].load(Ordering::Relaxed) == pid)?;
        let word = |at: usize| place[at].load(Ordering::Relaxed);
        Some(Rates { pid, requests: word(1), bytes_in: word(2), bytes_out: word(3), busy_permille: word(4) })
    }

    fn words(&self) -> &[AtomicU64] {
        &self.words.words()[self.at..self.at + Self::WORDS]
    }
}

impl Sample {
    fn to_words(self) -> [u64; SAMPLE_WORDS] {
        let mut words = [0; SAMPLE_WORDS];
        let first = [
            self.unix_time,
            self.monotonic_ns,
            self.connections,
            self.accepted,
            self.requests,
            self.bytes_in,
            self.bytes_out,
            self.stalls,
            self.busy_permille,
            self.latency.sum_ns,
        ];
        words[..LATENCY_AT].copy_from_slice(&first);
        words[LATENCY_AT..].copy_from_slice(&self.latency.counts);
        words
    }

    #[cfg(any(feature = "full", test))]
    fn of_words(word: impl Fn(usize) -> u64) -> Self {
        Self {
            unix_time: word(0),
            monotonic_ns: word(1),
            connections: word(2),
            accepted: word(3),
            requests: word(4),
            bytes_in: word(5),
            bytes_out: word(6),
            stalls: word(7),
            busy_permille: word(8),
            latency: LatencyHistogram {
                sum_ns: word(9),
                counts: std::array::from_fn(|bucket| word(LATENCY_AT + bucket)),
            },
        }
    }
}

fn place(words: &[AtomicU64], ticket: u64) -> &[AtomicU64] {
    let number = usize::try_from(ticket % SAMPLES as u64).unwrap_or(0);
    let at = SAMPLES_AT + number * PLACE_WORDS;
    &words[at..at + PLACE_WORDS]
}

/// Ten minutes of one a second.
pub(crate) const SAMPLES: usize = 600;
/// Processes whose rates are kept.
const PROCESSES: usize = 256;
const RATE_WORDS: usize = 5;
/// Where the buckets are in a sample.
const LATENCY_AT: usize = 10;
const SAMPLE_WORDS: usize = LATENCY_AT + LatencyHistogram::BUCKETS;
const PLACE_WORDS: usize = 1 + SAMPLE_WORDS;
const SAMPLES_AT: usize = 1;
const RATES_AT: usize = SAMPLES_AT + SAMPLES * PLACE_WORDS;

#[cfg(test)]
mod tests {
    use super::*;

    fn history() -> History {
        let block: Box<[AtomicU64]> = (0..History::WORDS).map(|_| AtomicU64::new(0)).collect();
        History::new(Arc::new(block), 0).unwrap()
    }

    /// A sample with another number in each place.
    fn sample(number: u64) -> Sample {
        let words: Vec<u64> = (0..SAMPLE_WORDS as u64).map(|at| number * 1000 + at).collect();
        Sample::of_words(|at| words[at])
    }

    #[test]
    fn samples_come_back_in_their_order_and_the_oldest_go() {
        let history = history();
        assert!(history.samples().is_empty());
        history.push(&sample(1));
        history.push(&sample(2));
        assert_eq!(history.samples(), [sample(1), sample(2)]);
        (3..=700).for_each(|number| history.push(&sample(number)));
        let samples = history.samples();
        assert_eq!((samples.len(), samples[0], samples[599]), (SAMPLES, sample(101), sample(700)));
    }

    #[test]
    fn a_sample_that_is_being_written_is_left_out() {
        let history = history();
        (1..=3).for_each(|number| history.push(&sample(number)));
        place(history.words(), 2)[0].store(0, Ordering::Relaxed);
        assert_eq!(history.samples(), [sample(1), sample(3)]);
    }

    #[test]
    fn readers_never_see_half_a_sample() {
        let history = history();
        std::thread::scope(|scope| {
            let writer = history.clone();
            scope.spawn(move || (1..=20_000).for_each(|number| writer.push(&sample(number))));
            for _ in 0..20 {
                for seen in history.samples() {
                    assert_eq!(seen, sample(seen.unix_time / 1000));
                }
            }
        });
    }

    #[test]
    fn the_rates_of_processes_that_are_gone_go() {
        let history = history();
        let of = |pid| Rates { pid, requests: pid * 2, bytes_in: 3, bytes_out: 4, busy_permille: 5 };
        history.set_rates(&[of(7), of(8)]);
        assert_eq!((history.rates(7), history.rates(8), history.rates(0)), (Some(of(7)), Some(of(8)), None));
        history.set_rates(&[of(8)]);
        assert_eq!((history.rates(7), history.rates(8)), (None, Some(of(8))));
        history.set_rates(&vec![of(9); 1000]);
        assert_eq!(history.rates(9), Some(of(9)));
    }
}
