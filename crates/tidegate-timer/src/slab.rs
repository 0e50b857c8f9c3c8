//! Where the timers of a queue are stored, and what makes their keys stale.
//!
//! ```text
//! entries:  [ armed ] [ vacant ] [ armed ] [ armed ] [ vacant ]
//!                          |                             ^
//!                          +--- free list: through the --+
//!                               vacant entries
//! ```
//!
//! Invariant: every vacant entry that can be used again is in the free list, and a key finds an entry only while the
//! timer it was made for is there.
//!
//! The slab grows by need and never shrinks: its size is that of the most timers there ever were at a time. It does
//! not order the timers; it keeps a node for each, with which the queue does.

use crate::TimerKey;
use alloc::vec::Vec;
use core::num::NonZeroU32;

/// The index of no entry.
pub(crate) const NIL: u32 = u32::MAX;

/// The timers: for each a value, and the node that says where in the queue's order it is.
pub(crate) struct Slab<N, T> {
    entries: Vec<Entry<N, T>>,
    /// The vacant entry to use next, or [`NIL`].
    free: u32,
    /// How many entries are armed.
    armed: usize,
}

/// No discriminant is stored: what tells the variants apart is that a generation is not zero.
enum Entry<N, T> {
    Armed { generation: NonZeroU32, node: N, value: T },
    Vacant { generation: NonZeroU32, next_free: u32 },
}

impl<N, T> Slab<N, T> {
    pub(crate) const fn new() -> Self {
        Self { entries: Vec::new(), free: NIL, armed: 0 }
    }

    /// Stores a timer, with the node that `node` makes from its index.
    pub(crate) fn insert(&mut self, value: T, node: impl FnOnce(u32) -> N) -> TimerKey {
        let (index, generation) = self.vacancy();
        self.entries[index as usize] = Entry::Armed { generation, node: node(index), value };
        self.armed += 1;
        TimerKey { index, generation }
    }

    /// Removes a timer that the queue has taken out of its order, and makes its key stale.
    pub(crate) fn remove(&mut self, index: u32) -> T {
        let entry = &mut self.entries[index as usize];
        let Entry::Armed { generation, .. } = *entry else { unreachable!("{NOT_ARMED}") };
        // A place that has used up its generations is never used again: one entry is lost in four thousand million
        // timers, and a stale key stays stale for ever.
        let vacant = match generation.checked_add(1) {
            Some(generation) => {
                Entry::Vacant { generation, next_free: core::mem::replace(&mut self.free, index) }
            }
            None => Entry::Vacant { generation, next_free: NIL },
        };
        match core::mem::replace(entry, vacant) {
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
            Some(Entry::Armed { generation, .. }) if *generation == key.generation => Some(key.index),
            _ => None,
        }
    }

    pub(crate) fn node(&self, index: u32) -> &N {
        match &self.entries[index as usize] {
            Entry::Armed { node, .. } => node,
            Entry::Vacant { .. } => unreachable!("{NOT_ARMED}"),
        }
    }

    pub(crate) fn node_mut(&mut self, index: u32) -> &mut N {
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
            self.entries.push(Entry::Vacant { generation: NonZeroU32::MIN, next_free: NIL });
            return (index, NonZeroU32::MIN);
        }
        match self.entries[self.free as usize] {
            Entry::Vacant { generation, next_free } => {
                (core::mem::replace(&mut self.free, next_free), generation)
            }
            Entry::Armed { .. } => unreachable!("the free list holds vacant entries only"),
        }
    }
}

const NOT_ARMED: &str = "a queue's order and valid keys lead to armed entries only";

#[cfg(test)]
mod tests {
    use super::{Entry, Slab};
    use core::num::NonZeroU32;

    #[test]
    fn an_entry_is_a_node_a_value_and_four_bytes() {
        assert_eq!(size_of::<Entry<u32, u64>>(), 16);
        assert_eq!(size_of::<Entry<(u64, u64), u32>>(), 24);
    }

    #[test]
    fn a_place_is_used_again_under_a_new_generation() {
        let mut slab = Slab::new();
        let old = slab.insert('a', |_| ());
        assert_eq!(slab.find(old), Some(old.index));
        assert_eq!(slab.remove(old.index), 'a');
        assert_eq!(slab.find(old), None, "vacant");
        let new = slab.insert('b', |_| ());
        assert_eq!(new.index, old.index);
        assert_eq!(slab.find(old), None, "somebody else's");
        assert_eq!(slab.find(new), Some(new.index));
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_place_without_generations_left_is_retired() {
        let mut slab = Slab::new();
        let first = slab.insert('a', |_| ());
        slab.remove(first.index);
        let Entry::Vacant { generation, .. } = &mut slab.entries[0] else { panic!("it was just removed") };
        *generation = NonZeroU32::MAX;
        let last = slab.insert('b', |_| ());
        assert_eq!((last.index, last.generation), (first.index, NonZeroU32::MAX));
        assert_eq!(slab.remove(last.index), 'b');
        assert_eq!(slab.find(last), None);
        assert_ne!(slab.insert('c', |_| ()).index, last.index);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn a_node_knows_its_index_and_can_change() {
        let mut slab = Slab::new();
        slab.insert('a', |index| index);
        let b = slab.insert('b', |index| index).index;
        assert_eq!(*slab.node(b), b);
        *slab.node_mut(b) = 7;
        assert_eq!((*slab.node(0), *slab.node(b)), (0, 7));
    }
}
