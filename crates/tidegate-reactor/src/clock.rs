//! The clocks, which nothing above the reactor reads: once when a wait begins, and once when it ends.

use std::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};
use tidegate_timer::Instant;

/// A wait ends after this long at the latest: a longer time-out does not fit into epoll_wait(2) of every kernel.
const LONGEST_WAIT: Duration = Duration::from_secs(3600);

/// The time as of the last wait.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clocks {
    now: Instant,
    unix_time: u64,
    busy: Duration,
    /// Whether there was a wait: what came before the first is no turn.
    turning: bool,
}

impl Clocks {
    pub(crate) fn read() -> Self {
        Self { now: monotonic(), unix_time: unix_time(), busy: Duration::ZERO, turning: false }
    }

    /// A wait begins, until `deadline` or without waiting `at_once`; answers how long it may take.
    #[inline]
    pub(crate) fn begin_wait(&mut self, deadline: Option<Instant>, at_once: bool) -> Option<Timespec> {
        let begin = monotonic();
        if self.turning {
            self.busy = begin.saturating_duration_since(self.now);
        }
        self.turning = true;
        if at_once {
            return Some(timespec(Duration::ZERO));
        }
        deadline.map(|at| timespec(at.saturating_duration_since(begin).min(LONGEST_WAIT)))
    }

    #[inline]
    pub(crate) fn end_wait(&mut self) {
        self.now = monotonic();
        self.unix_time = unix_time();
    }

    pub(crate) fn now(&self) -> Instant {
        self.now
    }

    pub(crate) fn unix_time(&self) -> u64 {
        self.unix_time
    }

    pub(crate) fn busy(&self) -> Duration {
        self.busy
    }
}

/// `CLOCK_MONOTONIC`, clock_gettime(2).
pub(crate) fn monotonic() -> Instant {
    let time = clock_gettime(ClockId::Monotonic);
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(time.tv_nsec).unwrap_or(0);
    Instant::from_nanos(seconds.saturating_mul(1_000_000_000).saturating_add(nanos))
}

/// Whole seconds since 1970. The coarse clock is a memory read, and a tick of some milliseconds is exact enough here.
fn unix_time() -> u64 {
    u64::try_from(clock_gettime(ClockId::RealtimeCoarse).tv_sec).unwrap_or(0)
}

/// A duration as epoll_wait(2) takes it.
fn timespec(duration: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(duration.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(duration.subsec_nanos()),
    }
}
