//! `Pace`: whether a peer that owes a body, or is to take output, does so fast enough.
//!
//! ```text
//!   begins ── grace ──▶ until ── each byte puts it off by 1/rate s ──▶ passed: the peer is too slow
//! ```
//!
//! A peer that was fast is given credit for it, but never for longer than the stall that it would be allowed anyway, so one
//! fast moment does not pay for an hour of trickling. Nothing is done while bytes come: they are counted when the time is up.
//!
//! Invariant: it runs only while the peer is waited for. Time in which it is not is nobody's fault, and followed by a new grace.

use std::time::Duration;

use tidegate_timer::Instant;

use crate::{Limits, Phase, Reason};

/// What is awaited of a peer, since when, and until when it will do.
#[derive(Debug)]
pub(crate) struct Pace {
    /// [`Phase::Body`] or [`Phase::Write`].
    phase: Phase,
    /// The most bytes in that direction that were counted: what turns out to have been none earns nothing again.
    counted: u64,
    /// When it was too slow, unless more has come by then; `None`: it was not waited for meanwhile, and begins anew.
    until: Option<Instant>,
}

/// How fast a peer has to be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    bytes_per_second: u32,
    grace: Duration,
    /// How far ahead of the present the end may be put off at the most.
    credit: Duration,
}

impl Rate {
    /// What the limits ask for in this phase; `None`: nothing.
    #[inline]
    pub(crate) fn of(limits: &Limits, phase: Phase) -> Option<Self> {
        if limits.min_rate_bytes == 0 {
            return None;
        }
        let stall = match phase {
            Phase::Body => limits.body_timeout,
            Phase::Write => limits.write_timeout,
            Phase::Idle | Phase::Head => return None,
        };
        let grace = limits.min_rate_grace;
        let credit = grace.saturating_add(stall.unwrap_or_default());
        Some(Self { bytes_per_second: limits.min_rate_bytes, grace, credit })
    }
}

impl Pace {
    /// Begins to wait, when so many bytes have come or gone before.
    pub(crate) fn begin(phase: Phase, bytes: u64, now: Instant, rate: Rate) -> Self {
        Self { phase, counted: bytes, until: Some(now + rate.grace) }
    }

    pub(crate) fn phase(&self) -> Phase {
        self.phase
    }

    /// The peer is not waited for at present.
    pub(crate) fn interrupt(&mut self) {
        self.until = None;
    }

    /// When it is to be [judged](Self::judge); the peer is waited for.
    pub(crate) fn due(&mut self, bytes: u64, now: Instant, rate: Rate) -> Instant {
        match self.until {
            Some(until) => until,
            None => {
                *self = Self::begin(self.phase, bytes, now, rate);
                now + rate.grace
            }
        }
    }

    /// Counts what has come since the last time. Whether the peer was too slow.
    pub(crate) fn judge(&mut self, bytes: u64, now: Instant, rate: Rate) -> bool {
        let until = self.due(bytes, now, rate);
        let nanos =
            u128::from(bytes - self.counted.min(bytes)) * 1_000_000_000 / u128::from(rate.bytes_per_second);
        let earned = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.counted = self.counted.max(bytes);
        let until = (until + earned).min(now + rate.credit);
        self.until = Some(until);
        until <= now
    }

    /// Why the connection is closed in the end.
    pub(crate) fn reason(&self) -> Reason {
        if self.phase == Phase::Write { Reason::SLOW_READER } else { Reason::SLOW_BODY }
    }

    /// The end, as it is known without counting anew.
    pub(crate) fn until(&self) -> Option<Instant> {
        self.until
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits {
        idle_timeout: None,
        head_timeout: None,
        body_timeout: Some(Duration::from_secs(30)),
        write_timeout: None,
        max_input_bytes: 0,
        high_water_bytes: 0,
        low_water_bytes: 0,
        max_output_bytes: 0,
        min_rate_bytes: 500,
        min_rate_grace: Duration::from_secs(5),
        max_connections_per_address: 0,
    };

    fn at(ms: u64) -> Instant {
        Instant::from_nanos(0) + Duration::from_millis(1_000_000 + ms)
    }

    /// When a peer is found too slow that sends `bytes` each `every_ms`, within `limit_ms`.
    fn ends(phase: Phase, bytes: u64, every_ms: u64, limit_ms: u64) -> Option<u64> {
        let rate = Rate::of(&LIMITS, phase).unwrap();
        let mut pace = Pace::begin(phase, 77, at(0), rate);
        loop {
            let due = pace.due(0, at(0), rate);
            let ms = u64::try_from(due.saturating_duration_since(at(0)).as_millis()).unwrap();
            if ms > limit_ms {
                return None;
            }
            if pace.judge(77 + ms / every_ms * bytes, due, rate) {
                return Some(ms);
            }
        }
    }

    #[test]
    fn who_is_fast_enough_is_never_ended_and_who_is_not_is_after_the_grace() {
        const DAY_MS: u64 = 86_400_000;
        // Silent, a byte a second, half the rate: what they send puts the end off by as much as it is worth.
        assert_eq!(ends(Phase::Body, 0, 1, DAY_MS), Some(5000));
        assert_eq!(ends(Phase::Body, 1, 1000, DAY_MS), Some(5010));
        assert!(matches!(ends(Phase::Body, 250, 1000, DAY_MS), Some(9000..=10_000)));
        assert_eq!(ends(Phase::Write, 0, 1, DAY_MS), Some(5000));
        // At the rate, evenly or in lumps that come within the grace, and above it.
        assert_eq!(ends(Phase::Body, 500, 1000, DAY_MS), None);
        assert_eq!(ends(Phase::Body, 2500, 5000, DAY_MS), None);
        assert_eq!(ends(Phase::Body, 20_000, 30_000, DAY_MS), Some(5000), "nothing within the grace");
        assert_eq!(ends(Phase::Body, 1_000_000, 1000, DAY_MS), None);
    }

    #[test]
    fn credit_is_worth_no_more_than_a_stall_that_is_allowed() {
        for (phase, credit) in [(Phase::Body, 35), (Phase::Write, 5)] {
            let rate = Rate::of(&LIMITS, phase).unwrap();
            let mut pace = Pace::begin(phase, 0, at(0), rate);
            assert!(!pace.judge(u64::MAX, at(5000), rate));
            assert_eq!(pace.until(), Some(at(5000) + Duration::from_secs(credit)));
            assert!(pace.judge(u64::MAX, at(5000) + Duration::from_secs(credit), rate));
        }
    }

    #[test]
    fn time_in_which_the_peer_is_not_waited_for_does_not_count() {
        let rate = Rate::of(&LIMITS, Phase::Body).unwrap();
        let mut pace = Pace::begin(Phase::Body, 0, at(0), rate);
        pace.interrupt();
        assert_eq!(pace.due(10, at(60_000), rate), at(65_000));
        assert!(!pace.judge(10, at(64_999), rate));
        assert!(pace.judge(10, at(65_000), rate));
    }

    #[test]
    fn without_a_rate_nothing_is_asked_for() {
        let off = Limits { min_rate_bytes: 0, ..LIMITS };
        assert!(Rate::of(&off, Phase::Body).is_none());
        assert!(Rate::of(&LIMITS, Phase::Idle).is_none() && Rate::of(&LIMITS, Phase::Head).is_none());
    }
}
