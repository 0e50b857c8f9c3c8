//! The clock of the master: the one place of this crate that reads one.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::time::Duration;
use tidegate_timer::Instant;

/// Nanoseconds of `CLOCK_MONOTONIC`.
pub(crate) fn now() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    let part = |number: i64| u64::try_from(number).unwrap_or(0);
    Instant::from_nanos(part(time.tv_sec).saturating_mul(1_000_000_000).saturating_add(part(time.tv_nsec)))
}

/// A waiting time as poll(2) takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_does_not_go_back() {
        let first = now();
        assert!(first > Instant::from_nanos(0) && now() >= first);
    }

    #[test]
    fn a_waiting_time_keeps_its_parts() {
        let time = timespec(Duration::new(3, 7));
        assert_eq!((time.tv_sec, time.tv_nsec), (3, 7));
        assert_eq!(timespec(Duration::MAX).tv_sec, i64::MAX);
    }
}
