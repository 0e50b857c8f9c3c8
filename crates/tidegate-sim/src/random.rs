//! `Random`: small, seeded, and the same everywhere.
//!
//! Invariant: what it answers follows from its seed and from how often it was asked, and from nothing else.

/// xorshift64*.
#[derive(Clone, Debug)]
pub(crate) struct Random(u64);

impl Random {
    /// The source for a seed.
    pub(crate) fn new(seed: u64) -> Self {
        // Seeds that are neighbours have nothing else in common: see splitmix64.
        Self(mix(seed) | 1)
    }

    /// A source of its own for something that has a number: what is drawn for one does not move what is drawn for the
    /// others, so a schedule that loses a step stays as it is elsewhere.
    pub(crate) fn of(seed: u64, number: u64) -> Self {
        Self::new(mix(seed) ^ mix(number.wrapping_add(0x5eed)))
    }

    /// A number below `bound`; 0 when there is none.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }

    /// As [`below`](Self::below), as an index.
    pub(crate) fn index(&mut self, bound: usize) -> usize {
        usize::try_from(self.below(bound as u64)).unwrap_or(0)
    }

    /// One of several.
    ///
    /// # Panics
    ///
    /// When there are none.
    pub(crate) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// True so often of a hundred times.
    pub(crate) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }
}

/// splitmix64's finisher.
pub(crate) fn mix(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}
