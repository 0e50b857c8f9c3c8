//! How many frames a second a peer may send: a token bucket in eight bytes.
//!
//! The bucket holds one second's worth. Instead of tokens it keeps when it will be full again, which needs no refilling.

use std::time::Duration;

use tidegate_engine::Instant;

/// The bucket of one connection.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Rate {
    full_at: Instant,
}

const SECOND: Duration = Duration::from_secs(1);

impl Rate {
    /// Takes one token at `now`; false when there is none. A rate of 0 is no limit.
    pub(crate) fn take(&mut self, now: Instant, per_second: u32) -> bool {
        if per_second == 0 {
            return true;
        }
        let full_at = self.full_at.max(now) + SECOND / per_second;
        if full_at.saturating_duration_since(now) > SECOND {
            return false;
        }
        self.full_at = full_at;
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(5_000_000_000 + millis * 1_000_000)
    }

    #[test]
    fn a_burst_of_one_second_is_allowed_and_no_more() {
        for per_second in [1, 3, 10, 999] {
            let mut rate = Rate::default();
            for n in 0..per_second {
                assert!(rate.take(at(0), per_second), "{n} of {per_second}");
            }
            assert!(!rate.take(at(0), per_second));
        }
    }

    #[test]
    fn tokens_come_back_at_the_rate() {
        let mut rate = Rate::default();
        while rate.take(at(0), 10) {}
        assert!(!rate.take(at(99), 10));
        assert!(rate.take(at(100), 10));
        assert!(!rate.take(at(100), 10));
        let later = (0..50).filter(|_| rate.take(at(60_000), 10)).count();
        assert_eq!(later, 10, "a long rest fills the bucket once");
    }

    #[test]
    fn a_rate_of_zero_is_no_limit() {
        let mut rate = Rate::default();
        assert!((0..100_000).all(|_| rate.take(at(0), 0)));
    }
}
