//! The time as a queue with exact deadlines knows it.
//!
//! Invariant: it never runs backwards, and [`Instant::MAX`] never comes.
//!
//! It does not read a clock: the caller of the queue says what time it is.

use crate::Instant;

/// The latest time that the queue was told.
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) const fn new(now: Instant) -> Self {
        Self(now)
    }

    /// Sets the clock to `now`, unless that is in the past.
    #[inline]
    pub(crate) fn advance(&mut self, now: Instant) {
        self.0 = self.0.max(now);
    }

    #[inline]
    pub(crate) fn has_come(&self, deadline: Instant) -> bool {
        deadline <= self.0 && deadline != Instant::MAX
    }
}

#[cfg(test)]
mod tests {
    use super::Clock;
    use crate::Instant;

    #[test]
    fn a_deadline_has_come_at_its_very_nanosecond() {
        let mut clock = Clock::new(Instant::from_nanos(9));
        assert!(!clock.has_come(Instant::from_nanos(10)));
        clock.advance(Instant::from_nanos(10));
        assert!(clock.has_come(Instant::from_nanos(10)));
        clock.advance(Instant::from_nanos(3));
        assert!(clock.has_come(Instant::from_nanos(10)), "it does not run backwards");
    }

    #[test]
    fn the_last_instant_never_comes() {
        let clock = Clock::new(Instant::MAX);
        assert!(clock.has_come(Instant::from_nanos(u64::MAX - 1)));
        assert!(!clock.has_come(Instant::MAX));
    }
}
