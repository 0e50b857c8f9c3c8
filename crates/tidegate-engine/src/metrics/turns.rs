//! `TurnHistogram`: how long the turns of a loop take, in buckets that cost two instructions to find.
//!
//! Invariant: every length of time is in exactly one bucket, the first whose limit it does not exceed.

/// How long the turns of a loop took, from the end of one wait to the beginning of the next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnHistogram {
    /// Turns that took no longer than each of [`TurnHistogram::LIMITS_NS`], but longer than the one before it; behind them,
    /// those that took longer than all.
    pub counts: [u64; Self::BUCKETS],
    /// All of them together, in nanoseconds.
    pub sum_ns: u64,
}

impl TurnHistogram {
    /// The upper limits of its buckets, in nanoseconds: 10 µs, and each four times the one before, up to 10.5 s.
    pub const LIMITS_NS: [u64; 11] = {
        let mut limits = [FIRST_LIMIT_NS; 11];
        let mut index = 1;
        while index < limits.len() {
            limits[index] = limits[index - 1] * 4;
            index += 1;
        }
        limits
    };

    /// How many buckets there are.
    pub const BUCKETS: usize = Self::LIMITS_NS.len() + 1;

    /// The upper limit of each bucket, `None` for the last, and how many turns are in it and in no other.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + use<> {
        Self::LIMITS_NS.into_iter().map(Some).chain([None]).zip(self.counts)
    }

    /// The bucket of a turn: a division by a constant, and the number of binary digits of what it gives.
    #[inline]
    pub(super) const fn bucket(ns: u64) -> usize {
        let steps = ns.saturating_sub(1) / FIRST_LIMIT_NS;
        let bucket = (u64::BITS - steps.leading_zeros()).div_ceil(2) as usize;
        if bucket < Self::LIMITS_NS.len() { bucket } else { Self::LIMITS_NS.len() }
    }
}

const FIRST_LIMIT_NS: u64 = 10_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_fall_into_the_bucket_whose_limit_they_do_not_exceed() {
        assert_eq!(TurnHistogram::LIMITS_NS[10], 10_485_760_000);
        for (bucket, limit) in TurnHistogram::LIMITS_NS.into_iter().enumerate() {
            assert_eq!(TurnHistogram::bucket(limit - 1), bucket, "{limit}");
            assert_eq!(TurnHistogram::bucket(limit), bucket, "{limit}");
            assert_eq!(TurnHistogram::bucket(limit + 1), bucket + 1, "{limit}");
        }
        assert_eq!((TurnHistogram::bucket(0), TurnHistogram::bucket(u64::MAX)), (0, 11));
    }
}
