//! Timers in a B-tree, in the order of their deadlines.
//!
//! Invariant: the tree holds exactly the timers of the slab, each under the deadline and the number of insertion
//! that are its node.
//!
//! It keeps no nodes of the tree for later: it is the one queue that allocates and frees as timers come and go.

use crate::clock::Clock;
use crate::slab::Slab;
use crate::{Instant, TimerKey, TimerQueue};
use alloc::collections::BTreeMap;
use core::fmt;

/// A [`TimerQueue`] with exact deadlines, whose every operation takes logarithmic time and never more.
///
/// | operation | time |
/// |---|---|
/// | insert | O(log n) |
/// | cancel | O(log n) |
/// | next deadline | O(log n) |
/// | pop, for each timer | O(log n) |
///
/// A timer costs 24 bytes and its value, and 22 to 55 bytes in the tree, which gives them back: a node of the tree is
/// 232 bytes for 5 to 11 timers, and those above the leaves 96 more. Timers fire in the
/// order of their deadlines, those with the same deadline in the order of their insertion.
///
/// ```
/// use core::time::Duration;
/// use tidegate_timer::{Instant, TimerQueue, Tree};
///
/// let start = Instant::from_nanos(0);
/// let mut tree = Tree::new(start);
/// let idle = tree.insert(start + Duration::from_secs(60), "idle");
/// tree.insert(start + Duration::from_secs(5), "heartbeat");
/// assert_eq!(tree.next_deadline(), Some(start + Duration::from_secs(5)));
/// assert_eq!(tree.pop_expired(start + Duration::from_secs(6)), Some("heartbeat"));
/// assert_eq!(tree.cancel(idle), Some("idle"));
/// ```
pub struct Tree<T> {
    clock: Clock,
    /// The place in the slab of each timer.
    tree: BTreeMap<Order, u32>,
    /// The number of the next insertion; it does not wrap in the life of a machine.
    inserted: u64,
    timers: Slab<Order, T>,
}

/// What timers are ordered by; the order of the fields matters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Order {
    deadline: Instant,
    /// The number of the insertion, which no two timers share.
    seq: u64,
}

impl<T> Tree<T> {
    /// Makes a tree without timers, whose time is `now`.
    #[must_use]
    pub const fn new(now: Instant) -> Self {
        Self { clock: Clock::new(now), tree: BTreeMap::new(), inserted: 0, timers: Slab::new() }
    }
}

impl<T> TimerQueue<T> for Tree<T> {
    fn insert(&mut self, deadline: Instant, value: T) -> TimerKey {
        let order = Order { deadline, seq: self.inserted };
        self.inserted += 1;
        let key = self.timers.insert(value, |_| order);
        self.tree.insert(order, key.index);
        key
    }

    fn cancel(&mut self, key: TimerKey) -> Option<T> {
        let index = self.timers.find(key)?;
        self.tree.remove(self.timers.node(index));
        Some(self.timers.remove(index))
    }

    #[inline]
    fn next_deadline(&self) -> Option<Instant> {
        Some(self.tree.first_key_value()?.0.deadline)
    }

    fn pop_expired(&mut self, now: Instant) -> Option<T> {
        self.clock.advance(now);
        let first = self.tree.first_entry()?;
        if !self.clock.has_come(first.key().deadline) {
            return None;
        }
        Some(self.timers.remove(first.remove()))
    }

    #[inline]
    fn len(&self) -> usize {
        self.timers.len()
    }
}

impl<T> fmt::Debug for Tree<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        crate::queue::fmt_state("Tree", self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::Tree;
    use crate::conformance::{EXACT, suite};
    use crate::{Instant, TimerQueue};

    suite!(Tree::new, EXACT, 1, 1_000);

    #[test]
    fn a_timer_that_leaves_leaves_the_tree_as_well() {
        let mut tree = Tree::new(Instant::default());
        let key = tree.insert(Instant::from_nanos(5), 'a');
        tree.insert(Instant::from_nanos(5), 'b');
        tree.insert(Instant::from_nanos(6), 'c');
        assert_eq!(tree.cancel(key), Some('a'));
        assert_eq!(tree.tree.len(), 2);
        assert_eq!(tree.pop_expired(Instant::from_nanos(5)), Some('b'));
        assert_eq!(tree.tree.len(), 1);
    }
}
