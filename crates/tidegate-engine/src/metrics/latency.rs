//! `LatencyHistogram`: how long answers take, in buckets of which each is twice as wide as the one before.
//!
//! Invariant: every length of time is in exactly one bucket, the first whose limit it does not exceed.

/// How long answers took: from the moment in which a loop had the input to the one in which the answer was sent.
///
/// A loop measures a sample of its batches of messages, and enters each with the number of those that it stands for. So the
/// counts are near those of all batches, and their proportions are right.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyHistogram {
    /// Batches that took no longer than each of [`LatencyHistogram::LIMITS_NS`], but longer than the one before it; behind
    /// them, those that took longer than all.
    pub counts: [u64; Self::BUCKETS],
    /// All of them together, in nanoseconds.
    pub sum_ns: u64,
}

impl LatencyHistogram {
    /// The upper limits of its buckets, in nanoseconds: 4 µs, and each twice the one before, up to 8.4 s.
    pub const LIMITS_NS: [u64; 22] = {
        let mut limits = [FIRST_LIMIT_NS; 22];
        let mut index = 1;
        while index < limits.len() {
            limits[index] = limits[index - 1] * 2;
            index += 1;
        }
        limits
    };

    /// How many buckets there are.
    pub const BUCKETS: usize = Self::LIMITS_NS.len() + 1;

    /// How many words it takes: its buckets, and their sum.
    pub const WORDS: usize = Self::BUCKETS + 1;

    /// Nothing.
    pub const EMPTY: Self = Self { counts: [0; Self::BUCKETS], sum_ns: 0 };

    /// The upper limit of each bucket, `None` for the last, and how many are in it and in no other.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> + use<> {
        Self::LIMITS_NS.into_iter().map(Some).chain([None]).zip(self.counts)
    }

    /// All that were counted.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.counts.iter().fold(0, |sum, count| sum.wrapping_add(*count))
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|bucket| self.counts[bucket].wrapping_add(other.counts[bucket])),
            sum_ns: self.sum_ns.wrapping_add(other.sum_ns),
        }
    }

    /// What has come since it was `before`. Where there is less than there was, since it began anew, nothing has.
    #[must_use]
    pub fn since(&self, before: &Self) -> Self {
        Self {
            counts: std::array::from_fn(|bucket| self.counts[bucket].saturating_sub(before.counts[bucket])),
            sum_ns: self.sum_ns.saturating_sub(before.sum_ns),
        }
    }

    /// The time in nanoseconds that so many of a thousand did not exceed, as if those of a bucket were spread evenly over
    /// it; `None` when nothing was counted. Of those beyond the last limit it says that limit.
    ///
    /// ```
    /// use tidegate_engine::LatencyHistogram;
    /// let mut took = LatencyHistogram::EMPTY;
    /// took.counts[0] = 90; // up to 4 µs
    /// took.counts[3] = 10; // 16 to 32 µs
    /// assert_eq!(took.quantile_ns(900), Some(4_000));
    /// assert_eq!(took.quantile_ns(950), Some(24_000));
    /// assert_eq!(LatencyHistogram::EMPTY.quantile_ns(500), None);
    /// ```
    #[must_use]
    pub fn quantile_ns(&self, of_1000: u64) -> Option<u64> {
        let total = u128::from(self.total());
        if total == 0 {
            return None;
        }
        // In thousandths of a batch, so that nothing is rounded before the end.
        let wanted = total * u128::from(of_1000.min(1000));
        let (mut below, mut from) = (0, 0);
        for (limit, count) in self.buckets() {
            let Some(limit) = limit else { break };
            let count = u128::from(count) * 1000;
            if count > 0 && below + count >= wanted {
                let into = u128::from(limit - from) * (wanted - below) / count;
                return Some(from + u64::try_from(into).unwrap_or(limit - from));
            }
            below += count;
            from = limit;
        }
        Some(from)
    }

    /// The bucket of a time: a division by a constant, and the number of binary digits of what it gives.
    #[inline]
    pub(super) const fn bucket(ns: u64) -> usize {
        let steps = ns.saturating_sub(1) / FIRST_LIMIT_NS;
        let bucket = (u64::BITS - steps.leading_zeros()) as usize;
        if bucket < Self::LIMITS_NS.len() { bucket } else { Self::LIMITS_NS.len() }
    }
}

impl Default for LatencyHistogram {
    fn default() -> Self {
        Self::EMPTY
    }
}

const FIRST_LIMIT_NS: u64 = 4_000;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_fall_into_the_bucket_whose_limit_they_do_not_exceed() {
        assert_eq!(LatencyHistogram::LIMITS_NS[21], 8_388_608_000);
        for (bucket, limit) in LatencyHistogram::LIMITS_NS.into_iter().enumerate() {
            assert_eq!(LatencyHistogram::bucket(limit - 1), bucket, "{limit}");
            assert_eq!(LatencyHistogram::bucket(limit), bucket, "{limit}");
            assert_eq!(LatencyHistogram::bucket(limit + 1), bucket + 1, "{limit}");
        }
        assert_eq!((LatencyHistogram::bucket(0), LatencyHistogram::bucket(u64::MAX)), (0, 22));
    }

    #[track_caller]
    fn check(counts: &[(usize, u64)], of_1000: u64, expected: Option<u64>) {
        let mut took = LatencyHistogram::EMPTY;
        counts.iter().for_each(|(bucket, count)| took.counts[*bucket] = *count);
        assert_eq!(took.quantile_ns(of_1000), expected, "{counts:?} at {of_1000}");
    }

    #[test]
    fn a_quantile_lies_in_the_bucket_that_reaches_it() {
        check(&[], 500, None);
        check(&[(0, 1)], 0, Some(0));
        check(&[(0, 1)], 1000, Some(4_000));
        check(&[(1, 1)], 500, Some(6_000));
        check(&[(0, 99), (21, 1)], 990, Some(4_000));
        check(&[(0, 99), (21, 1)], 1000, Some(8_388_608_000));
        check(&[(22, 7)], 500, Some(8_388_608_000));
        check(&[(4, u64::MAX)], 1000, Some(64_000));
        check(&[(0, 1)], 5000, Some(4_000));
    }

    #[test]
    fn what_has_come_is_the_difference_and_never_less_than_nothing() {
        let mut before = LatencyHistogram::EMPTY;
        before.counts[2] = 5;
        before.sum_ns = 9;
        let mut now = before;
        now.counts[2] = 7;
        now.counts[3] = 1;
        now.sum_ns = 19;
        let came = now.since(&before);
        assert_eq!((came.counts[2], came.counts[3], came.sum_ns, came.total()), (2, 1, 10, 3));
        assert_eq!(before.since(&now), LatencyHistogram::EMPTY);
        assert_eq!(came.plus(&before), now);
    }
}
