//! A binary heap of timers in which each timer knows its position.
//!
//! ```text
//! heap:   position  0     1     2     3            children of p: 2p + 1, 2p + 2
//!                 [ 5 ] [ 9 ] [ 7 ] [ 9 ] ...
//!                   |     ^
//!                   v     |  the node of a timer is its position
//! slab:           [   ] [   ] [   ] ...
//! ```
//!
//! Invariant: no timer comes before its parent, and the node of the timer at position *p* is *p*. So a cancelled
//! timer leaves at once, and nothing of it stays behind in the heap.
//!
//! It shrinks neither heap nor slab: their size is that of the most timers there ever were at a time.

use crate::clock::Clock;
use crate::slab::Slab;
use crate::{Instant, TimerKey, TimerQueue};
use alloc::vec::Vec;
use core::fmt;

/// A [`TimerQueue`] with exact deadlines, for many timers of which most fire.
///
/// | operation | time |
/// |---|---|
/// | insert | O(log n); O(1) on average when deadlines are random or the new one is the last to fire |
/// | cancel | O(log n) |
/// | next deadline | O(1) |
/// | pop, for each timer | O(log n) |
///
/// A timer costs 32 bytes and its value, a heap without timers about a cache line. Timers fire in the order of their
/// deadlines, those with the same deadline in the order of their insertion.
///
/// ```
/// use core::time::Duration;
/// use tidegate_timer::{Heap, Instant, TimerQueue};
///
/// let start = Instant::from_nanos(0);
/// let mut heap = Heap::new(start);
/// let idle = heap.insert(start + Duration::from_secs(60), "idle");
/// heap.insert(start + Duration::from_secs(5), "heartbeat");
/// assert_eq!(heap.next_deadline(), Some(start + Duration::from_secs(5)));
/// assert_eq!(heap.pop_expired(start + Duration::from_secs(6)), Some("heartbeat"));
/// assert_eq!(heap.cancel(idle), Some("idle"));
/// ```
pub struct Heap<T> {
    clock: Clock,
    heap: Vec<Item>,
    /// The number of the next insertion; it does not wrap in the life of a machine.
    inserted: u64,
    timers: Slab<Position, T>,
}

/// Where in the heap a timer is.
struct Position(u32);

/// A timer in the heap; the order of the fields is that of the timers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Item {
    deadline: Instant,
    /// The number of the insertion, which no two timers share.
    seq: u64,
    /// The place in the slab.
    index: u32,
}

impl<T> Heap<T> {
    /// Makes a heap without timers, whose time is `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { clock: Clock::new(now), heap: Vec::new(), inserted: 0, timers: Slab::new() }
    }

    /// Removes the timer at a position and hands its value out.
    fn take(&mut self, position: usize) -> T {
        let taken = self.heap.swap_remove(position);
        if let Some(&moved) = self.heap.get(position) {
            // The last timer has come here. It belongs further down, or, when it is of another branch, further up.
            let position = self.rise(position, moved);
            self.sink(position, moved);
        }
        self.timers.remove(taken.index)
    }

    /// Moves the parents of a position down until `item` may come there, puts it there, and answers where that is.
    fn rise(&mut self, mut position: usize, item: Item) -> usize {
        while position > 0 {
            let parent = (position - 1) / 2;
            if self.heap[parent] < item {
                break;
            }
            self.put(position, self.heap[parent]);
            position = parent;
        }
        self.put(position, item);
        position
    }

    /// Moves the children of a position up until `item` may come there, and puts it there.
    fn sink(&mut self, mut position: usize, item: Item) {
        while let Some(child) = self.first_child(position) {
            if item < self.heap[child] {
                break;
            }
            self.put(position, self.heap[child]);
            position = child;
        }
        self.put(position, item);
    }

    /// The child that fires first, of those that there are.
    fn first_child(&self, position: usize) -> Option<usize> {
        let (left, right) = (2 * position + 1, 2 * position + 2);
        match (self.heap.get(left), self.heap.get(right)) {
            (Some(a), Some(b)) => Some(if b < a { right } else { left }),
            (Some(_), None) => Some(left),
            (None, _) => None,
        }
    }

    /// The one place where a timer's position changes: in the heap and in its node.
    fn put(&mut self, position: usize, item: Item) {
        self.heap[position] = item;
        *self.timers.node_mut(item.index) = Position::new(position);
    }
}

impl Position {
    fn new(position: usize) -> Self {
        Self(u32::try_from(position).expect("there are no more positions than places in the slab"))
    }
}

impl<T> TimerQueue<T> for Heap<T> {
    fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let position = self.heap.len();
        let key = self.timers.insert(value, |_| Position::new(position));
        let item = Item { deadline, seq: self.inserted, index: key.index };
        self.inserted += 1;
        self.heap.push(item);
        self.rise(position, item);
        key
    }

    fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let index = self.timers.find(key)?;
        Some(self.take(self.timers.node(index).0 as usize))
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        Some(self.heap.first()?.deadline)
    }

    fn pop_expired(&mut self, now: Instant) -> Option<T> {
        self.clock.advance(now);
        let deadline = self.next_deadline()?;
        self.clock.has_come(deadline).then(|| self.take(0))
    }

    #[inline]
    fn len(&self) -> usize {
        self.heap.len()
    }
}

impl<T> fmt::Debug for Heap<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::queue::fmt_state("Heap", self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{Heap, Item};
    use crate::conformance::{EXACT, suite};
    use crate::{Instant, TimerQueue};
    use proptest::prelude::*;

    suite!(Heap::new, EXACT, 1, 1_000);

    fn assert_is_a_heap<T>(heap: &Heap<T>) {
        assert_eq!(heap.timers.len(), heap.heap.len());
        for (position, item) in heap.heap.iter().enumerate() {
            assert_eq!(heap.timers.node(item.index).0 as usize, position);
            assert!(position == 0 || heap.heap[(position - 1) / 2] < *item, "at {position}");
        }
    }

    proptest! {
        #[test]
        fn stays_a_heap_when_any_timer_leaves(
            deadlines in prop::collection::vec(0_u64..100, 1..100),
            leaving in prop::collection::vec(any::<prop::sample::Index>(), 1..100),
        ) {
            let mut heap = Heap::new(Instant::default());
            let mut keys = Vec::new();
            for deadline in deadlines {
                keys.push(heap.insert(Instant::from_nanos(deadline), ()));
                assert_is_a_heap(&heap);
            }
            for pick in leaving {
                if !keys.is_empty() {
                    let key = keys.swap_remove(pick.index(keys.len()));
                    prop_assert_eq!(heap.cancel(key), Some(()));
                    assert_is_a_heap(&heap);
                }
            }
        }
    }

    #[test]
    fn a_timer_costs_32_bytes_and_its_value() {
        assert_eq!(size_of::<Item>(), 24);
        assert!(size_of::<Heap<u64>>() <= 80, "{} bytes", size_of::<Heap<u64>>());
    }

    #[test]
    fn the_last_timer_may_rise_when_another_branch_loses_one() {
        let mut heap = Heap::new(Instant::default());
        // Position:            0  1   2  3   4   5  6
        let keys: Vec<_> = [0, 10, 1, 11, 12, 2, 3]
            .into_iter()
            .map(|deadline| heap.insert(Instant::from_nanos(deadline), deadline))
            .collect();
        assert_eq!(heap.cancel(keys[3]), Some(11));
        assert_is_a_heap(&heap);
        let popped: Vec<u64> = core::iter::from_fn(|| heap.pop_expired(Instant::from_nanos(20))).collect();
        assert_eq!(popped, [0, 1, 2, 3, 10, 12]);
    }
}
