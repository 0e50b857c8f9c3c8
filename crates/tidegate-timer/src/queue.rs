//! What every timer queue promises, and the key of a timer.
//!
//! Invariant: a key names one insertion for ever. When its timer has fired or was cancelled, the key is stale and
//! every queue answers `None` to it, even when the place of the timer is used again.
//!
//! The trait does not say in which order timers of different deadlines fire that are due in the same call.

use crate::Instant;
use core::fmt;
use core::num::NonZeroU32;

/// A set of timers, each a deadline and a value.
///
/// A turn of an event loop waits until [`next_deadline`](Self::next_deadline) at most, reads its clock, calls
/// [`pop_expired`](Self::pop_expired) until it answers `None`, and asks for the next deadline again.
///
/// A queue has a resolution, which may be a nanosecond: a timer never fires before its deadline, and may fire late
/// by less than the resolution. Timers with the same deadline fire in the order of their insertion. A deadline of
/// [`Instant::MAX`] never comes.
pub trait TimerQueue<T> {
    /// Adds a timer. A deadline in the past fires at the next [`pop_expired`](Self::pop_expired).
    ///
    /// # Panics
    ///
    /// When there are `u32::MAX` timers already; the limits on what has timers are far below that.
    fn insert(&mut self, deadline: Instant, value: T) -> TimerKey;

    /// Removes a timer and hands its value back, or answers `None` when it has fired or was cancelled.
    fn cancel(&mut self, key: TimerKey) -> Option<T>;

    /// When to call [`pop_expired`](Self::pop_expired) next; `None` when there is no timer.
    ///
    /// It is never later than the earliest deadline, rounded up to the resolution. It may be earlier: then nothing
    /// fires, and the answer has moved on. After `pop_expired(now)` has answered `None` it is later than `now`, so
    /// a loop that sleeps until then never spins.
    fn next_deadline(&self) -> Option<Instant>;

    /// Removes one timer whose deadline has come and hands out its value. Call it until it answers `None`.
    ///
    /// Time does not run backwards: a `now` before that of an earlier call counts as the earlier one. The caller
    /// may insert timers between calls; one that is due already is handed out by the same run, so a value that
    /// always inserts itself anew in the past would keep the run from ending.
    fn pop_expired(&mut self, now: Instant) -> Option<T>;

    /// How many timers there are.
    fn len(&self) -> usize;

    /// Whether there is no timer.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Names one timer of the queue that made it: a place, and the generation of what is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TimerKey {
    /// The place in the queue's slab.
    pub(crate) index: u32,
    /// Not zero, so that an `Option<TimerKey>` is no larger than a key.
    pub(crate) generation: NonZeroU32,
}

/// Shows the state of a queue, not its timers: there may be a million.
pub(crate) fn fmt_state<T>(
    name: &str,
    queue: &impl TimerQueue<T>,
    f: &mut fmt::Formatter<'_>,
) -> fmt::Result {
    f.debug_struct(name)
        .field("len", &queue.len())
        .field("next_deadline", &queue.next_deadline())
        .finish_non_exhaustive()
}

#[cfg(test)]
mod tests {
    use super::TimerKey;

    #[test]
    fn a_key_is_eight_bytes_with_or_without_option() {
        assert_eq!(size_of::<TimerKey>(), 8);
        assert_eq!(size_of::<Option<TimerKey>>(), 8);
    }
}
