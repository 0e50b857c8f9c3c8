//! A hierarchical timer wheel.
//!
//! ```text
//! tick (ms) in base 64:     digit 7 ... digit 2   digit 1   digit 0
//!
//! level 0   [0|1|2|...|63]  a slot is 1 tick        (all of a level: 64 ms)
//! level 1   [0|1|2|...|63]  a slot is 64 ticks      (4 s)
//! level 2   [0|1|2|...|63]  a slot is 4096 ticks    (4.4 min)
//!   ...
//! level 7   [0|1|2|...|63]  a slot is 64^7 ticks    (8900 years: more than an `Instant` can say)
//! due       one slot        what is due and not yet popped
//! ```
//!
//! A timer is stored at the level of the highest digit in which its tick differs from the tick of the wheel, in the
//! slot of that digit. So all timers of a level are due before those of the levels above, within a level the slots
//! are in the order of time, and the next one to do is the first occupied slot of the lowest occupied level. When
//! the wheel gets to a slot, the timers in it are spread over the levels below, or are due. A timer so moves at most
//! once a level, and what lies between two occupied slots is skipped at no cost, be it a tick or a century.
//!
//! Invariant: a timer is due if and only if its tick is not after the wheel's; every other one is in the slot that
//! the two ticks say. The wheel's tick is never after the caller's clock.
//!
//! The scheme is that of Varghese and Lauck, "Hashed and Hierarchical Timing Wheels" (1987), scheme 7.

use crate::ring::Ring;
use crate::slab::NIL;
use crate::{Instant, TimerKey, TimerQueue};
use core::fmt;

/// A [`TimerQueue`] with a resolution of a millisecond, for many timers of which most are cancelled.
///
/// | operation | time |
/// |---|---|
/// | insert | O(1) |
/// | cancel | O(1) |
/// | next deadline | O(1) |
/// | pop, for each timer | O(1) amortised: a timer moves at most 8 times, once a level |
///
/// A timer costs 24 bytes and its value, a wheel without timers about 2 KiB. Timers fire in the order of their ticks
/// (but one that is overdue when it is inserted comes after those that are due already), those of the same tick in
/// the order of their insertion.
///
/// ```
/// use core::time::Duration;
/// use tidegate_timer::{Instant, TimerQueue, Wheel};
///
/// let start = Instant::from_nanos(0);
/// let mut wheel = Wheel::new(start);
/// let idle = wheel.insert(start + Duration::from_secs(60), "idle");
/// wheel.insert(start + Duration::from_secs(5), "heartbeat");
/// assert_eq!(wheel.pop_expired(start + Duration::from_secs(6)), Some("heartbeat"));
/// assert_eq!(wheel.pop_expired(start + Duration::from_secs(6)), None);
/// assert_eq!(wheel.cancel(idle), Some("idle"));
/// assert_eq!(wheel.cancel(idle), None, "the key is stale");
/// assert_eq!(wheel.next_deadline(), None);
/// ```
pub struct Wheel<T> {
    /// The latest tick that the caller said it is; never before `elapsed`.
    now: u64,
    /// How far the wheel has turned, in ticks.
    elapsed: u64,
    /// A lower bound of the ticks of the timers that are due; of no meaning when none is.
    due_since: u64,
    /// For each level, bit *s* is set if and only if its slot *s* has timers.
    occupied: [u64; LEVELS],
    /// The oldest timer of each slot, level by level, and of [`DUE`]; or [`NIL`].
    heads: [u32; SLOTS + 1],
    /// All timers of a slot, and all that are due, in one ring; due in ticks.
    timers: Ring<T>,
}

impl<T> Wheel<T> {
    /// Makes a wheel without timers, whose time is `now`.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        let now = tick_at(now);
        Self {
            now,
            elapsed: now,
            due_since: 0,
            occupied: [0; LEVELS],
            heads: [NIL; SLOTS + 1],
            timers: Ring::new(),
        }
    }

    /// Turns to the first occupied slot that has begun by now, and spreads its timers. Answers false, and turns to
    /// now, when there is none.
    fn turn(&mut self) -> bool {
        match self.first_occupied() {
            Some((slot, start)) if start <= self.now => {
                self.elapsed = start;
                self.spread(slot);
                true
            }
            _ => {
                self.elapsed = self.now;
                false
            }
        }
    }

    /// Moves the timers of a slot to where they belong now that the wheel has got there.
    fn spread(&mut self, slot: u16) {
        let mut next = core::mem::replace(&mut self.heads[usize::from(slot)], NIL);
        self.mark_vacant(slot);
        while next != NIL {
            let index = next;
            next = self.timers.unlink(index);
            self.link(index);
        }
    }

    /// The occupied slot whose timers come next, and the tick at which it begins.
    fn first_occupied(&self) -> Option<(u16, u64)> {
        let level = self.occupied.iter().position(|&slots| slots != 0)?;
        let digit = u64::from(self.occupied[level].trailing_zeros());
        let shift = DIGIT_BITS * level;
        let above = self.elapsed >> shift >> DIGIT_BITS << DIGIT_BITS << shift;
        Some((slot_at(level, digit), above | digit << shift))
    }

    /// Puts a timer that is in no slot at the end of the one where it belongs.
    fn link(&mut self, index: u32) {
        let tick = self.timers.due(index);
        let slot = self.slot_of(tick);
        let head = self.heads[usize::from(slot)];
        if slot == DUE {
            self.due_since = if head == NIL { tick } else { self.due_since.min(tick) };
        } else {
            self.occupied[level_of(slot)] |= bit_of(slot);
        }
        if head == NIL {
            self.heads[usize::from(slot)] = index;
        } else {
            self.timers.link_before(head, index);
        }
    }

    /// Takes a timer out of its slot.
    fn unlink(&mut self, index: u32) {
        let slot = self.slot_of(self.timers.due(index));
        let next = self.timers.unlink(index);
        if self.heads[usize::from(slot)] == index {
            self.heads[usize::from(slot)] = next;
            if next == NIL {
                self.mark_vacant(slot);
            }
        }
    }

    fn mark_vacant(&mut self, slot: u16) {
        if slot != DUE {
            self.occupied[level_of(slot)] &= !bit_of(slot);
        }
    }

    /// Where a timer belongs whose tick is `tick`.
    fn slot_of(&self, tick: u64) -> u16 {
        if tick <= self.elapsed {
            return DUE;
        }
        let level = (tick ^ self.elapsed).ilog2() as usize / DIGIT_BITS;
        slot_at(level, (tick >> (DIGIT_BITS * level)) & DIGIT_MASK)
    }
}

impl<T> TimerQueue<T> for Wheel<T> {
    fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let key = self.timers.insert_alone(deadline.as_nanos().div_ceil(TICK_NANOS), value);
        self.link(key.index);
        key
    }

    fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let index = self.timers.find(key)?;
        self.unlink(index);
        Some(self.timers.remove(index))
    }

    fn next_deadline(&self) -> Option<Instant> {
        let tick =
            if self.heads[usize::from(DUE)] == NIL { self.first_occupied()?.1 } else { self.due_since };
        // The last tick begins beyond the range of instants: it saturates to `Instant::MAX`.
        Some(Instant::from_nanos(tick.saturating_mul(TICK_NANOS)))
    }

    fn pop_expired(&mut self, now: Instant) -> Option<T> {
        self.now = self.now.max(tick_at(now));
        while self.heads[usize::from(DUE)] == NIL {
            if !self.turn() {
                return None;
            }
        }
        let index = self.heads[usize::from(DUE)];
        self.unlink(index);
        Some(self.timers.remove(index))
    }

    fn len(&self) -> usize {
        self.timers.len()
    }
}

impl<T> fmt::Debug for Wheel<T> {
    /// Shows the state, not the timers: there may be a million.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wheel")
            .field("elapsed", &self.elapsed)
            .field("len", &self.len())
            .field("next_deadline", &self.next_deadline())
            .finish_non_exhaustive()
    }
}

/// The tick in which `now` lies.
const fn tick_at(now: Instant) -> u64 {
    now.as_nanos() / TICK_NANOS
}

fn slot_at(level: usize, digit: u64) -> u16 {
    u16::try_from((level as u64) << DIGIT_BITS | digit).expect("ticks have eight digits of 64 values")
}

fn level_of(slot: u16) -> usize {
    usize::from(slot >> DIGIT_BITS)
}

fn bit_of(slot: u16) -> u64 {
    1 << (u64::from(slot) & DIGIT_MASK)
}

/// The resolution: one millisecond, that of `epoll_wait(2)`.
const TICK_NANOS: u64 = 1_000_000;
/// A level has as many slots as a `u64` has bits: 64, which is six binary digits.
const DIGIT_BITS: usize = 6;
const DIGIT_MASK: u64 = (1 << DIGIT_BITS) - 1;
/// Enough for every tick of an `Instant`: the last one has 45 binary digits.
const LEVELS: usize = 8;
const SLOTS: usize = LEVELS << DIGIT_BITS;
/// The slot of the timers that are due, after those of the levels.
const DUE: u16 = 512;

const _: () = assert!(DUE as usize == SLOTS);
const _: () = assert!(u64::MAX / TICK_NANOS + 1 < 1 << (DIGIT_BITS * LEVELS));

#[cfg(test)]
mod tests {
    use super::{LEVELS, TICK_NANOS, Wheel};
    use crate::conformance::{Step, check, check_sleeper, drain, suite};
    use crate::{Instant, TimerQueue};
    use core::time::Duration;
    use proptest::prelude::*;

    const RESOLUTION: Duration = Duration::from_nanos(TICK_NANOS);

    suite!(Wheel::new, RESOLUTION, LEVELS, 1_000);

    fn at(millis: u64) -> Instant {
        Instant::from_nanos(millis * TICK_NANOS)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1_000))]

        #[test]
        fn fires_in_order_of_ticks_and_of_insertion(spans in prop::collection::vec(0_u64..200, 0..60), pause in 0_u64..100) {
            let mut wheel = Wheel::new(at(0));
            let (early, late) = spans.split_at(spans.len() / 2);
            let mut expected = Vec::new();
            for (id, &span) in early.iter().enumerate() {
                wheel.insert(at(100 + span), id);
                expected.push((100 + span, id));
            }
            // Half of them are inserted when the wheel has turned, and so perhaps at another level.
            prop_assert_eq!(wheel.pop_expired(at(pause)), None);
            for (id, &span) in late.iter().enumerate() {
                wheel.insert(at(100 + span), early.len() + id);
                expected.push((100 + span, early.len() + id));
            }
            expected.sort_unstable();
            let expected: Vec<usize> = expected.into_iter().map(|(_, id)| id).collect();
            prop_assert_eq!(drain(&mut wheel, at(1_000)), expected);
        }
    }

    #[test]
    fn is_small_without_timers() {
        assert!(size_of::<Wheel<u64>>() < 4096, "{} bytes", size_of::<Wheel<u64>>());
    }

    #[test]
    fn rounds_up_to_the_next_tick() {
        let mut wheel = Wheel::new(at(0));
        wheel.insert(Instant::from_nanos(1), ());
        assert_eq!(wheel.next_deadline(), Some(at(1)));
        assert_eq!(wheel.pop_expired(Instant::from_nanos(999_999)), None);
        assert_eq!(wheel.pop_expired(at(1)), Some(()));
    }

    #[test]
    fn what_is_overdue_when_inserted_fires_after_what_is_due() {
        let mut wheel = Wheel::new(at(100));
        wheel.insert(at(100), "now");
        wheel.insert(at(7), "past");
        assert_eq!(wheel.next_deadline(), Some(at(7)));
        assert_eq!(drain(&mut wheel, at(100)), ["now", "past"]);
    }

    #[test]
    fn a_timer_of_a_day_takes_a_wake_a_level_at_most() {
        check_sleeper(Wheel::new(at(63)), RESOLUTION, &[at(86_400_063)], 5);
    }

    #[test]
    fn the_last_tick_fires_and_what_is_after_it_never_does() {
        let mut wheel = Wheel::new(at(0));
        let last = Instant::from_nanos(u64::MAX / TICK_NANOS * TICK_NANOS);
        wheel.insert(last + Duration::from_nanos(1), "after");
        wheel.insert(last, "last");
        assert_eq!(drain(&mut wheel, Instant::MAX), ["last"]);
        assert_eq!(wheel.next_deadline(), Some(Instant::MAX));
    }

    #[test]
    fn a_far_jump_over_many_timers_pops_them_all() {
        let steps: Vec<Step> = (0..500).map(|n| Step::Insert(n * n * n * TICK_NANOS)).collect();
        let century = Duration::from_secs(100 * 365 * 86_400);
        let mut all = steps;
        all.push(Step::Advance(u64::try_from(century.as_nanos()).unwrap()));
        check(Wheel::new(at(0)), RESOLUTION, at(0), &all);
    }
}
