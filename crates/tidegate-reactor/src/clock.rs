//! The clocks, which nothing above the reactor reads.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tidegate_timer::Instant;

/// `CLOCK_MONOTONIC`, clock_gettime(2).
pub(crate) fn monotonic() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Whole seconds since 1970. The coarse clock is a memory read, and a tick of some milliseconds is exact enough here.
pub(crate) fn unix_time() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// A duration as epoll_wait(2) takes it.
pub(crate) fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
