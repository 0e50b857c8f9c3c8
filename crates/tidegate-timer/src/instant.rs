//! A point in time, in nanoseconds of a monotonic clock.
//!
//! Invariant: an instant is a plain number; only the owner of the clock knows where its zero is. Arithmetic
//! saturates, so a deadline that is out of range is far away, never in the past.
//!
//! It does not read a clock, and instants of different clocks must not be compared.

use core::ops::{Add, AddAssign};
use core::time::Duration;

/// Nanoseconds since the zero of the caller's monotonic clock; the range is 584 years.
///
/// ```
/// use core::time::Duration;
/// use tidegate_timer::Instant;
///
/// let now = Instant::from_nanos(1_000);
/// let deadline = now + Duration::from_micros(2);
/// assert_eq!(deadline.as_nanos(), 3_000);
/// assert_eq!(deadline.saturating_duration_since(now), Duration::from_micros(2));
/// assert_eq!(now.saturating_duration_since(deadline), Duration::ZERO);
/// assert_eq!(now + Duration::MAX, Instant::MAX);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The last instant, which stands for "never": no clock gets there.
    pub const MAX: Self = Self(u64::MAX);

    /// The instant `nanos` nanoseconds after the zero of the clock.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the zero of the clock.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// The time from `earlier` to this instant; zero when `earlier` is the later of the two.
    #[must_use]
    pub const fn saturating_duration_since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Instant {
    type Output = Self;

    /// The instant `duration` later, or [`Instant::MAX`] when that is out of range.
    fn add(self, duration: Duration) -> Self {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }
}

impl AddAssign<Duration> for Instant {
    fn add_assign(&mut self, duration: Duration) {
        *self = *self + duration;
    }
}

#[cfg(test)]
mod tests {
    use super::Instant;
    use core::time::Duration;

    #[test]
    fn addition_saturates() {
        assert_eq!(Instant::from_nanos(5) + Duration::from_nanos(7), Instant::from_nanos(12));
        assert_eq!(Instant::from_nanos(5) + Duration::from_nanos(u64::MAX), Instant::MAX);
        assert_eq!(Instant::default() + Duration::MAX, Instant::MAX);
        let mut instant = Instant::from_nanos(1);
        instant += Duration::from_secs(1);
        assert_eq!(instant.as_nanos(), 1_000_000_001);
    }

    #[test]
    fn a_difference_is_never_negative() {
        let (early, late) = (Instant::from_nanos(3), Instant::from_nanos(10));
        assert_eq!(late.saturating_duration_since(early), Duration::from_nanos(7));
        assert_eq!(early.saturating_duration_since(late), Duration::ZERO);
        assert_eq!(
            Instant::MAX.saturating_duration_since(Instant::default()).as_nanos(),
            u128::from(u64::MAX)
        );
    }
}
