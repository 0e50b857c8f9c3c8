//! Where the timers of a wheel are stored, and how they are linked.
//!
//! ```text
//! entries:  [ armed ] [ vacant ] [ armed ] [ armed ] [ vacant ]
//!               ^          |         ^         ^         ^
//!               +---------- ring of a slot ----+         |     free list: through the vacant entries
//!                          +-----------------------------+
//! ```
//!
//! Invariant: every armed entry is in exactly one ring (a circular, doubly linked list, named by any of its
//! members), and every vacant entry that can be used again is in the free list.
//!
//! The slab grows by need and never shrinks: its size is that of the most timers there ever were at a time. It
//! knows neither ticks nor slots; it only keeps them for the wheel.

use crate::TimerKey;
use alloc::vec::Vec;
use core::num::NonZeroU32;

/// The index of no entry.
pub(crate) const NIL: u32 = u32::MAX;

/// The timers and their links.
pub(crate) struct Slab<T> {
    entries: Vec<Entry<T>>,
    /// The vacant entry to use next, or [`NIL`].
    free: u32,
    /// How many entries are armed.
    armed: usize,
}

/// The part of an armed entry that the wheel works with.
pub(crate) struct Node {
    /// The tick at which the timer is due.
    pub(crate) tick: u64,
    /// The next member of the ring; the entry itself when it is alone.
    next: u32,
    /// The previous member of the ring.
    prev: u32,
    generation: NonZeroU32,
    /// The slot of the wheel whose ring this entry is in.
    pub(crate) slot: u16,
}

/// Its size is that of a [`Node`] and a value: what tells the variants apart is that a generation is not zero.
enum Entry<T> {
    Armed { node: Node, value: T },
    Vacant { next_free: u32, generation: NonZeroU32 },
}

impl<T> Slab<T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, armed: 0 }
    }

    /// Stores a timer, as a ring of its own.
    pub(crate) fn insert(&mut self, tick: u64, value: T) -> TimerKey {
        let (index, generation) = self.vacancy();
        let node = Node { tick, next: index, prev: index, generation, slot: 0 };
        self.entries[index as usize] = Entry::Armed { node, value };
        self.armed += 1;
        TimerKey { index, generation }
    }

    /// Removes a timer that is a ring of its own, and makes its key stale.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        let generation = self.node(index).generation;
        // A place that has used up its generations is never used again: 32 bytes are lost in four thousand million
        // timers, and a stale key stays stale for ever.
        let vacant = match generation.checked_add(1) {
            Some(generation) => {
                Entry::Vacant { next_free: core::mem::replace(&mut self.free, index), generation }
            }
            None => Entry::Vacant { next_free: NIL, generation },
        };
        match core::mem::replace(&mut self.entries[index as usize], vacant) {
            Entry::Armed { value, .. } => {
                self.armed -= 1;
                value
            }
            Entry::Vacant { .. } => unreachable!("{NOT_ARMED}"),
        }
    }

    /// The index of the timer that `key` names, unless the key is stale.
    pub(crate) fn find(&self, key: TimerKey) -> Option<u32> {
        match self.entries.get(key.index as usize) {
            Some(Entry::Armed { node, .. }) if node.generation == key.generation => Some(key.index),
            _ => None,
        }
    }

    /// Puts the ring of one, `index`, at the end of the ring that begins with `head`.
    pub(crate) fn append(&mut self, head: u32, index: u32) {
        let tail = self.node(head).prev;
        let node = self.node_mut(index);
        node.next = head;
        node.prev = tail;
        self.node_mut(tail).next = index;
        self.node_mut(head).prev = index;
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

    pub(crate) fn node(&self, index: u32) -> &Node {
        match &self.entries[index as usize] {
            Entry::Armed { node, .. } => node,
            Entry::Vacant { .. } => unreachable!("{NOT_ARMED}"),
        }
    }

    pub(crate) fn node_mut(&mut self, index: u32) -> &mut Node {
        match &mut self.entries[index as usize] {
            Entry::Armed { node, .. } => node,
            Entry::Vacant { .. } => unreachable!("{NOT_ARMED}"),
        }
    }

    /// How many timers are stored.
    pub(crate) fn len(&self) -> usize {
        self.armed
    }

    /// Finds or makes a place for one more timer, and takes it out of the free list.
    fn vacancy(&mut self) -> (u32, NonZeroU32) {
        if self.free == NIL {
            let index = u32::try_from(self.entries.len()).expect("fewer than u32::MAX timers");
            assert!(index != NIL, "fewer than u32::MAX timers");
            self.entries.push(Entry::Vacant { next_free: NIL, generation: NonZeroU32::MIN });
            return (index, NonZeroU32::MIN);
        }
        match self.entries[self.free as usize] {
            Entry::Vacant { next_free, generation } => {
                (core::mem::replace(&mut self.free, next_free), generation)
            }
            Entry::Armed { .. } => unreachable!("the free list holds vacant entries only"),
        }
    }
}

const NOT_ARMED: &str = "rings and valid keys lead to armed entries only";

#[cfg(test)]
mod tests {
    use super::{Entry, NIL, Slab};
    use core::num::NonZeroU32;

    #[test]
    fn an_entry_is_a_value_and_24_bytes() {
        assert_eq!(size_of::<Entry<u64>>(), 24 + 8);
        assert_eq!(size_of::<Entry<[u64; 3]>>(), 24 + 24);
        assert_eq!(size_of::<Entry<()>>(), 24);
    }

    #[test]
    fn a_place_is_used_again_under_a_new_generation() {
        let mut slab = Slab::new();
        let old = slab.insert(1, 'a');
        assert_eq!(slab.find(old), Some(old.index));
        assert_eq!(slab.remove(old.index), 'a');
        assert_eq!(slab.find(old), None, "vacant");
        let new = slab.insert(2, 'b');
        assert_eq!(new.index, old.index);
        assert_eq!(slab.find(old), None, "somebody else's");
        assert_eq!(slab.find(new), Some(new.index));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_place_without_generations_left_is_retired() {
        let mut slab = Slab::new();
        let first = slab.insert(1, 'a');
        slab.remove(first.index);
        let Entry::Vacant { generation, .. } = &mut slab.entries[0] else { panic!("it was just removed") };
        *generation = NonZeroU32::MAX;
        let last = slab.insert(1, 'b');
        assert_eq!((last.index, last.generation), (first.index, NonZeroU32::MAX));
        assert_eq!(slab.remove(last.index), 'b');
        assert_eq!(slab.find(last), None);
        assert_ne!(slab.insert(1, 'c').index, last.index);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_ring_keeps_its_order_when_a_member_leaves() {
        let mut slab = Slab::new();
        let [a, b, c] = ['a', 'b', 'c'].map(|name| slab.insert(0, name).index);
        slab.append(a, b);
        slab.append(a, c);
        assert_eq!(slab.unlink(b), c);
        assert_eq!((slab.node(a).next, slab.node(c).next), (c, a));
        assert_eq!((slab.node(a).prev, slab.node(c).prev), (c, a));
        assert_eq!(slab.unlink(a), c);
        assert_eq!(slab.unlink(c), NIL);
        assert_eq!(slab.unlink(b), NIL, "it was left as a ring of its own");
    }
}
