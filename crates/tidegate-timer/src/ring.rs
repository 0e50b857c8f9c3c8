//! Timers linked to rings: circular, doubly linked lists through the entries of a slab.
//!
//! ```text
//!        head                       the last one comes before the head,
//!   +--> [ a ] <--> [ b ] <--> [ c ] <--+     so a ring needs no tail
//!   +-----------------------------------+
//! ```
//!
//! Invariant: every timer of such a slab is in exactly one ring; a new one is a ring of its own.
//!
//! A ring has no order but that of its links, and no name: whoever owns it keeps the index of its head.

use crate::TimerKey;
use crate::slab::{NIL, Slab};

/// The timers of rings.
pub(crate) type Ring<T> = Slab<Node, T>;

/// When a timer is due, and its neighbours.
pub(crate) struct Node {
    /// In the unit of the queue.
    due: u64,
    /// The next member of the ring; the timer itself when it is alone.
    next: u32,
    /// The previous member of the ring.
    prev: u32,
}

impl<T> Ring<T> {
    /// Stores a timer, as a ring of its own.
    pub(crate) fn insert_alone(&mut self, due: u64, value: T) -> TimerKey {
        self.insert(value, |index| Node { due, next: index, prev: index })
    }

    /// Puts the ring of one, `index`, into another ring before `successor`: before a head, that is at the end.
    pub(crate) fn link_before(&mut self, successor: u32, index: u32) {
        let prev = self.prev(successor);
        let node = self.node_mut(index);
        node.next = successor;
        node.prev = prev;
        self.node_mut(prev).next = index;
        self.node_mut(successor).prev = index;
    }

    /// Takes `index` out of its ring, and answers the member that followed it, or [`NIL`] if it was alone.
    pub(crate) fn unlink(&mut self, index: u32) -> u32 {
        let node = self.node_mut(index);
        let next = core::mem::replace(&mut node.next, index);
        let prev = core::mem::replace(&mut node.prev, index);
        if next == index {
            return NIL;
        }
        self.node_mut(prev).next = next;
        self.node_mut(next).prev = prev;
        next
    }

    pub(crate) fn due(&self, index: u32) -> u64 {
        self.node(index).due
    }

    pub(crate) fn prev(&self, index: u32) -> u32 {
        self.node(index).prev
    }
}

#[cfg(test)]
mod tests {
    use super::{NIL, Node, Ring};

    #[test]
    fn a_node_is_16_bytes() {
        assert_eq!(size_of::<Node>(), 16);
    }

    #[test]
    fn a_ring_keeps_its_order_when_a_member_leaves() {
        let mut ring = Ring::new();
        let [a, b, c] = ['a', 'b', 'c'].map(|name| ring.insert_alone(0, name).index);
        ring.link_before(a, b);
        ring.link_before(a, c);
        assert_eq!(ring.unlink(b), c);
        assert_eq!((ring.node(a).next, ring.node(c).next), (c, a));
        assert_eq!((ring.prev(a), ring.prev(c)), (c, a));
        assert_eq!(ring.unlink(a), c);
        assert_eq!(ring.unlink(c), NIL);
        assert_eq!(ring.unlink(b), NIL, "it was left as a ring of its own");
    }

    #[test]
    fn a_member_may_come_between_two_others() {
        let mut ring = Ring::new();
        let [a, b, c] = ['a', 'b', 'c'].map(|name| ring.insert_alone(0, name).index);
        ring.link_before(a, c);
        ring.link_before(c, b);
        assert_eq!([a, b, c].map(|index| ring.node(index).next), [b, c, a]);
        assert_eq!([a, b, c].map(|index| ring.prev(index)), [c, a, b]);
    }
}
