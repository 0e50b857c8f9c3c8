//! `Table`: values in numbered slots, each with the generation of its present user.
//!
//! Grown by chunks up to a limit, so that no value is ever copied to make room. A key is found only while its generation
//! is the slot's: what was kept of a former user finds nothing.

use tidegate_reactor::Token;

/// Values by slot and generation.
#[derive(Debug)]
pub(crate) struct Table<T> {
    chunks: Vec<Box<[Slot<T>]>>,
    /// The first vacant slot; the others hang behind it.
    vacant: u32,
    len: usize,
    limit: usize,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// The next vacant slot, while this one is vacant.
    next: u32,
    value: Option<T>,
}

const CHUNK: usize = 64;
const NONE: u32 = u32::MAX;

impl<T> Table<T> {
    /// What a value costs here, in bytes.
    #[cfg(test)]
    pub(crate) const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// An empty table for at most `limit` values.
    pub(crate) fn new(limit: usize) -> Self {
        Self { chunks: Vec::new(), vacant: NONE, len: 0, limit: limit.min(NONE as usize - CHUNK) }
    }

    /// Puts the value that `make` makes for its key into a vacant slot; `None` when the table is full.
    pub(crate) fn insert(&mut self, make: impl FnOnce(Token) -> T) -> Option<Token> {
        if self.len >= self.limit {
            return None;
        }
        if self.vacant == NONE {
            self.grow();
        }
        let index = self.vacant;
        let slot = &mut self.chunks[index as usize / CHUNK][index as usize % CHUNK];
        let key = Token { slot: index, generation: slot.generation };
        self.vacant = slot.next;
        slot.value = Some(make(key));
        self.len += 1;
        Some(key)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Token) -> Option<&mut T> {
        let index = key.slot as usize;
        let slot = self.chunks.get_mut(index / CHUNK)?.get_mut(index % CHUNK)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_mut()
    }

    /// Takes a value out; its key finds nothing from now on.
    pub(crate) fn remove(&mut self, key: Token) -> Option<T> {
        self.get_mut(key)?;
        let index = key.slot as usize;
        let slot = &mut self.chunks[index / CHUNK][index % CHUNK];
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.next = self.vacant;
        self.vacant = key.slot;
        self.len -= 1;
        slot.value.take()
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// The keys of all values, in the order of their slots.
    pub(crate) fn keys(&self) -> Vec<Token> {
        let slots = self.chunks.iter().flat_map(|chunk| chunk.iter());
        (0u32..)
            .zip(slots)
            .filter(|(_, slot)| slot.value.is_some())
            .map(|(index, slot)| Token { slot: index, generation: slot.generation })
            .collect()
    }

    fn grow(&mut self) {
        let first = u32::try_from(self.chunks.len() * CHUNK).expect("the limit keeps slots in 32 bits");
        let last = first + u32::try_from(CHUNK).expect("a chunk is small") - 1;
        let chunk = (first..=last).map(|index| {
            let next = if index == last { NONE } else { index + 1 };
            Slot { generation: 1, next, value: None }
        });
        self.chunks.push(chunk.collect());
        self.vacant = first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    #[test]
    fn a_reused_slot_has_another_generation() {
        let mut table = Table::new(1);
        let first = table.insert(|_| 'a').unwrap();
        assert!(table.insert(|_| 'b').is_none(), "the limit holds");
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert(|_| 'c').unwrap();
        assert_eq!(first.slot, second.slot);
        assert_eq!(table.get_mut(first), None);
        assert_eq!(table.remove(first), None);
        assert_eq!(table.get_mut(second), Some(&mut 'c'));
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), any::<u16>()), 0..500)) {
            let mut table = Table::new(100);
            let mut model: HashMap<Token, u16> = HashMap::new();
            let mut old: Vec<Token> = Vec::new();
            for (insert, number) in steps {
                if insert {
                    match table.insert(|_| number) {
                        Some(key) => { prop_assert!(model.insert(key, number).is_none()); old.push(key); }
                        None => prop_assert_eq!(model.len(), 100),
                    }
                } else if !old.is_empty() {
                    let key = old[number as usize % old.len()];
                    prop_assert_eq!(table.remove(key), model.remove(&key));
                }
                prop_assert_eq!(table.len(), model.len());
                for key in &old {
                    prop_assert_eq!(table.get_mut(*key).map(|v| *v), model.get(key).copied());
                }
            }
            let mut keys = table.keys();
            keys.sort_by_key(|k| k.slot);
            prop_assert_eq!(keys.len(), model.len());
        }
    }
}
