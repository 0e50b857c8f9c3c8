//! A sorted, doubly linked list of timers.
//!
//! Invariant: from the head on, no timer is due before the one in front of it, and of those with the same deadline
//! the one inserted first comes first.
//!
//! It keeps no index into the list: to find the place of a new timer it walks.

use crate::clock::Clock;
use crate::ring::Ring;
use crate::slab::NIL;
use crate::{Instant, TimerKey, TimerQueue};
use core::fmt;

/// A [`TimerQueue`] with exact deadlines, for few timers or for those that all last equally long.
///
/// | operation | time |
/// |---|---|
/// | insert | O(1 + timers that are due later); O(1) when the new one is the last to fire |
/// | cancel | O(1) |
/// | next deadline | O(1) |
/// | pop, for each timer | O(1) |
///
/// A timer costs 24 bytes and its value, a list without timers less than a cache line. Timers fire in the order of
/// their deadlines, those with the same deadline in the order of their insertion.
///
/// ```
/// use core::time::Duration;
/// use tidegate_timer::{Instant, List, TimerQueue};
///
/// let start = Instant::from_nanos(0);
/// let mut list = List::new(start);
/// let idle = list.insert(start + Duration::from_secs(60), "idle");
/// list.insert(start + Duration::from_secs(5), "heartbeat");
/// assert_eq!(list.next_deadline(), Some(start + Duration::from_secs(5)));
/// assert_eq!(list.pop_expired(start + Duration::from_secs(6)), Some("heartbeat"));
/// assert_eq!(list.cancel(idle), Some("idle"));
/// ```
pub struct List<T> {
    clock: Clock,
    /// The timer that is due first, or [`NIL`].
    head: u32,
    /// All of them in one ring, due in nanoseconds.
    timers: Ring<T>,
}

impl<T> List<T> {
    /// Makes a list without timers, whose time is `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { clock: Clock::new(now), head: NIL, timers: Ring::new() }
    }

    /// The first timer that is due after `due`, or [`NIL`].
    ///
    /// The walk begins at the end: a time-out is most often the longest one of the list, because it has just begun.
    fn first_after(&self, due: u64) -> u32 {
        let mut found = NIL;
        let mut candidate = self.timers.prev(self.head);
        while self.timers.due(candidate) > due {
            found = candidate;
            if candidate == self.head {
                break;
            }
            candidate = self.timers.prev(candidate);
        }
        found
    }

    /// Removes a timer and hands its value out.
    fn take(&mut self, index: u32) -> T {
        let next = self.timers.unlink(index);
        if self.head == index {
            self.head = next;
        }
        self.timers.remove(index)
    }
}

impl<T> TimerQueue<T> for List<T> {
    fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let due = deadline.as_nanos();
        let key = self.timers.insert_alone(due, value);
        if self.head == NIL {
            self.head = key.index;
            return key;
        }
        match self.first_after(due) {
            NIL => self.timers.link_before(self.head, key.index),
            successor => {
                self.timers.link_before(successor, key.index);
                if successor == self.head {
                    self.head = key.index;
                }
            }
        }
        key
    }

    fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let index = self.timers.find(key)?;
        Some(self.take(index))
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        (self.head != NIL).then(|| Instant::from_nanos(self.timers.due(self.head)))
    }

    fn pop_expired(&mut self, now: Instant) -> Option<T> {
        self.clock.advance(now);
        let deadline = self.next_deadline()?;
        self.clock.has_come(deadline).then(|| self.take(self.head))
    }

    #[inline]
    fn len(&self) -> usize {
        self.timers.len()
    }
}

impl<T> fmt::Debug for List<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::queue::fmt_state("List", self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::List;
    use crate::conformance::{EXACT, suite};
    use crate::{Instant, TimerQueue};

    suite!(List::new, EXACT, 1, 1_000);

    #[test]
    fn is_smaller_than_a_cache_line() {
        assert!(size_of::<List<u64>>() < 64, "{} bytes", size_of::<List<u64>>());
    }

    #[test]
    fn a_new_timer_comes_first_in_the_middle_or_last() {
        let mut list = List::new(Instant::default());
        for due in [50, 10, 30, 60, 30, 9] {
            list.insert(Instant::from_nanos(due), due);
        }
        let popped: Vec<u64> = core::iter::from_fn(|| list.pop_expired(Instant::from_nanos(60))).collect();
        assert_eq!(popped, [9, 10, 30, 30, 50, 60]);
    }

    #[test]
    fn cancelling_the_head_makes_the_second_one_the_head() {
        let mut list = List::new(Instant::default());
        let first = list.insert(Instant::from_nanos(1), 'a');
        list.insert(Instant::from_nanos(2), 'b');
        assert_eq!(list.cancel(first), Some('a'));
        assert_eq!(list.next_deadline(), Some(Instant::from_nanos(2)));
        list.insert(Instant::from_nanos(1), 'c');
        assert_eq!(list.next_deadline(), Some(Instant::from_nanos(1)));
    }
}
