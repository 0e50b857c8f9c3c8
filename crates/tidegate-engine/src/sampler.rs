//! `Sampler`: which batches of messages are measured, and how many each of these stands for.
//!
//! A clock is read for a batch that is measured, and reading it for each would cost more than all other counting together.
//! So a busy loop measures one of 64, and a loop that has little to do each of them. Invariant: the batches that are
//! measured, with their weights, stand for all batches that were asked about, but for those since the last one.

use std::time::Duration;

use tidegate_timer::Instant;

/// Picks batches.
#[derive(Debug)]
pub(crate) struct Sampler {
    /// Batches up to the next one that is measured, that one included.
    left: u32,
    /// What `left` was when it was set.
    gap: u32,
    last: Instant,
    seed: u32,
}

impl Sampler {
    /// One that measures the first batch; `seed` may be anything.
    pub(crate) const fn new(seed: u32) -> Self {
        // The generator never leaves 0.
        Self { left: 1, gap: 1, last: Instant::from_nanos(0), seed: seed | 1 }
    }

    /// Whether this batch is to be measured: for how many it stands then.
    #[inline]
    pub(crate) fn is_due(&mut self) -> Option<u32> {
        self.left -= 1;
        if self.left == 0 { Some(self.gap) } else { None }
    }

    /// A batch was measured that ended now.
    pub(crate) fn measured(&mut self, now: Instant) {
        let idle = now.saturating_duration_since(self.last) >= QUIET;
        self.last = now;
        self.gap = if idle { 1 } else { 1 + self.random() % (2 * MEAN_GAP - 1) };
        self.left = self.gap;
    }

    /// By turns of the same length always the same connections would be measured. Xorshift, by Marsaglia.
    fn random(&mut self) -> u32 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 17;
        self.seed ^= self.seed << 5;
        self.seed
    }
}

/// One of so many batches of a busy loop is measured.
const MEAN_GAP: u32 = 64;
/// When the last one that was measured is as long ago, the next is measured whatever follows.
const QUIET: Duration = Duration::from_millis(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// So many batches, one each `every` nanoseconds; answers how many were measured, and for how many they stand.
    fn run(batches: u32, every: u64) -> (u32, u32) {
        let mut sampler = Sampler::new(7);
        let (mut measured, mut stood_for) = (0, 0);
        for batch in 0..batches {
            if let Some(weight) = sampler.is_due() {
                measured += 1;
                stood_for += weight;
                sampler.measured(Instant::from_nanos(u64::from(batch + 1) * every));
            }
        }
        (measured, stood_for)
    }

    #[test]
    fn a_quiet_loop_measures_each_batch() {
        assert_eq!(run(1000, 2_000_000), (1000, 1000));
    }

    #[test]
    fn a_busy_loop_measures_one_of_64_and_these_stand_for_all() {
        let (measured, stood_for) = run(640_000, 1_000);
        assert!((9_000..11_000).contains(&measured), "{measured}");
        assert!(stood_for <= 640_000 && stood_for > 640_000 - 2 * MEAN_GAP, "{stood_for}");
    }
}
