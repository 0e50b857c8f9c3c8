//! `Table`: values in numbered slots, each with the generation of its present user.
//!
//! Grown by chunks up to a limit, so that no value is ever copied to make room, and shrunk by chunks again. A key is found
//! only while its generation is the slot's: what was kept of a former user finds nothing.
//!
//! ```text
//! chunk 0          chunk 1          chunk 2            chunk 3
//! [ a b c d … ]    [ e - f - … ]    [ - - - - … ]      (freed: only its generation is left)
//!   all taken        gets the next    empty, in reserve
//! ```
//!
//! A value goes to the lowest chunk with room, so that the higher ones empty when there are fewer values. An empty chunk is
//! freed only while other chunks have room for a whole chunk of values: so many have to come before one is allocated
//! again, and opening and closing in turn allocates nothing.
//!
//! Invariant: a slot never has the same generation twice (before 2³² users): a chunk that is freed leaves the highest
//! generation of its slots, and all of them begin with that when it comes back.

use tidegate_reactor::Token;

/// Values by slot and generation.
#[derive(Debug)]
pub(crate) struct Table<T> {
    chunks: Vec<Chunk<T>>,
    /// One bit for each chunk: set while it is there and has a vacant slot.
    roomy: Vec<u64>,
    len: usize,
    /// Slots of the chunks that are there, vacant ones included.
    slots: usize,
    /// Chunks that are there and have no value.
    empty: usize,
    limit: usize,
}

#[derive(Debug)]
struct Chunk<T> {
    /// None at all while the chunk is freed.
    slots: Box<[Slot<T>]>,
    /// The first vacant slot of the chunk; the others hang behind it.
    vacant: u32,
    len: u32,
    /// The generation that its slots begin with when it is allocated.
    generation: u32,
}

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    /// The next vacant slot of the chunk, while this one is vacant.
    next: u32,
    value: Option<T>,
}

const CHUNK: usize = 64;
const CHUNK_SLOTS: u32 = 64;
const NONE: u32 = u32::MAX;
/// Chunks for each word of the bits.
const WORD: usize = u64::BITS as usize;

impl<T> Table<T> {
    /// What a value costs here, in bytes.
    #[cfg(test)]
    pub(crate) const SLOT_BYTES: usize = size_of::<Slot<T>>();

    /// An empty table for at most `limit` values. Slots are numbered below `limit`, rounded up to whole chunks.
    pub(crate) fn new(limit: usize) -> Self {
        let limit = limit.min(NONE as usize - CHUNK);
        Self { chunks: Vec::new(), roomy: Vec::new(), len: 0, slots: 0, empty: 0, limit }
    }

    /// Puts the value that `make` makes for its key into a vacant slot; `None` when the table is full.
    pub(crate) fn insert(&mut self, make: impl FnOnce(Token) -> T) -> Option<Token> {
        if self.len >= self.limit {
            return None;
        }
        let at = self.roomy_chunk().unwrap_or_else(|| self.grow());
        let chunk = &mut self.chunks[at];
        let within = chunk.vacant;
        let slot = &mut chunk.slots[within as usize];
        let key = Token { slot: first_slot(at) + within, generation: slot.generation };
        slot.value = Some(make(key));
        chunk.vacant = slot.next;
        self.empty -= usize::from(chunk.len == 0);
        chunk.len += 1;
        if chunk.vacant == NONE {
            self.roomy[at / WORD] &= !(1 << (at % WORD));
        }
        self.len += 1;
        Some(key)
    }

    pub(crate) fn get(&self, key: Token) -> Option<&T> {
        let index = key.slot as usize;
        let slot = self.chunks.get(index / CHUNK)?.slots.get(index % CHUNK)?;
        slot.value.as_ref().filter(|_| slot.generation == key.generation)
    }

    #[inline]
    pub(crate) fn get_mut(&mut self, key: Token) -> Option<&mut T> {
        let index = key.slot as usize;
        let slot = self.chunks.get_mut(index / CHUNK)?.slots.get_mut(index % CHUNK)?;
        if slot.generation != key.generation {
            return None;
        }
        slot.value.as_mut()
    }

    /// Takes a value out; its key finds nothing from now on.
    pub(crate) fn remove(&mut self, key: Token) -> Option<T> {
        self.get_mut(key)?;
        let at = key.slot as usize / CHUNK;
        let within = key.slot % CHUNK_SLOTS;
        let chunk = &mut self.chunks[at];
        let slot = &mut chunk.slots[within as usize];
        slot.generation = slot.generation.checked_add(1).unwrap_or(1);
        slot.next = chunk.vacant;
        let value = slot.value.take();
        chunk.vacant = within;
        chunk.len -= 1;
        self.empty += usize::from(chunk.len == 0);
        self.roomy[at / WORD] |= 1 << (at % WORD);
        self.len -= 1;
        if self.empty > 0 && self.slots - self.len >= 2 * CHUNK {
            self.free_highest_empty();
        }
        value
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// How many slots are in memory, the vacant ones included.
    #[cfg(test)]
    pub(crate) fn slots(&self) -> usize {
        self.slots
    }

    /// The keys of all values, in the order of their slots.
    pub(crate) fn keys(&self) -> Vec<Token> {
        self.iter().map(|(key, _)| key).collect()
    }

    /// All values with their keys, in the order of their slots.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Token, &T)> {
        self.iter_from(0)
    }

    /// The values of a slot and those behind it, with their keys and in the order of their slots.
    pub(crate) fn iter_from(&self, from: u32) -> impl Iterator<Item = (Token, &T)> {
        let first = from as usize / CHUNK;
        self.chunks.iter().enumerate().skip(first).flat_map(move |(at, chunk)| {
            let within = if at == first { from as usize % CHUNK } else { 0 };
            (first_slot(at)..).zip(chunk.slots.iter()).skip(within).filter_map(|(index, slot)| {
                let key = Token { slot: index, generation: slot.generation };
                slot.value.as_ref().map(|value| (key, value))
            })
        })
    }

    /// The lowest chunk with a vacant slot.
    fn roomy_chunk(&self) -> Option<usize> {
        let at = self.roomy.iter().position(|word| *word != 0)?;
        Some(at * WORD + self.roomy[at].trailing_zeros() as usize)
    }

    /// Allocates the lowest chunk that is not there.
    fn grow(&mut self) -> usize {
        let freed = if self.slots < self.chunks.len() * CHUNK {
            self.chunks.iter().position(|chunk| chunk.slots.is_empty())
        } else {
            None
        };
        let at = freed.unwrap_or_else(|| {
            self.chunks.push(Chunk { slots: Box::default(), vacant: NONE, len: 0, generation: 1 });
            self.roomy.resize(self.chunks.len().div_ceil(WORD), 0);
            self.chunks.len() - 1
        });
        let chunk = &mut self.chunks[at];
        let generation = chunk.generation;
        let slots = (1..=CHUNK_SLOTS).map(|next| {
            let next = if next == CHUNK_SLOTS { NONE } else { next };
            Slot { generation, next, value: None }
        });
        chunk.slots = slots.collect();
        chunk.vacant = 0;
        self.roomy[at / WORD] |= 1 << (at % WORD);
        self.slots += CHUNK;
        self.empty += 1;
        at
    }

    fn free_highest_empty(&mut self) {
        let is_empty = |chunk: &Chunk<T>| chunk.len == 0 && !chunk.slots.is_empty();
        let Some(at) = self.chunks.iter().rposition(is_empty) else { return };
        let chunk = &mut self.chunks[at];
        chunk.generation = chunk.slots.iter().map(|slot| slot.generation).max().unwrap_or(1);
        chunk.slots = Box::default();
        chunk.vacant = NONE;
        self.roomy[at / WORD] &= !(1 << (at % WORD));
        self.slots -= CHUNK;
        self.empty -= 1;
    }
}

/// The number of the first slot of a chunk.
fn first_slot(chunk: usize) -> u32 {
    u32::try_from(chunk * CHUNK).expect("the limit keeps slots in 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::{HashMap, HashSet};

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

    fn fill(table: &mut Table<usize>, n: usize) -> Vec<Token> {
        (0..n).map(|value| table.insert(|_| value).unwrap()).collect()
    }

    #[test]
    fn it_is_small_again_when_its_values_have_gone() {
        let mut table = Table::new(10_000);
        let old = fill(&mut table, 5_000);
        assert_eq!(table.slots(), 5_056);
        for key in &old {
            table.remove(*key).unwrap();
        }
        assert_eq!(table.slots(), CHUNK, "one chunk stays for whoever comes next");
        let new = fill(&mut table, 5_000);
        assert!(new.iter().all(|key| key.slot < 5_056 && key.generation > 1));
        for old in old {
            assert_eq!(table.get_mut(old), None);
        }
    }

    #[test]
    fn a_freed_chunk_comes_back_above_the_highest_of_its_generations() {
        let mut table = Table::new(1_000);
        let mut keys = fill(&mut table, 3 * CHUNK);
        let last = *keys.last().unwrap();
        let mut busy = last;
        for _ in 0..100 {
            table.remove(busy).unwrap();
            busy = table.insert(|_| 0).unwrap();
            assert_eq!(busy.slot, last.slot);
        }
        *keys.last_mut().unwrap() = busy;
        for key in keys {
            table.remove(key).unwrap();
        }
        assert_eq!(table.slots(), CHUNK);
        let again = fill(&mut table, 3 * CHUNK);
        assert!(again[CHUNK..2 * CHUNK].iter().all(|key| key.generation == 2));
        assert!(again[2 * CHUNK..].iter().all(|key| key.generation > busy.generation));
    }

    #[test]
    fn coming_and_going_at_the_edge_of_a_chunk_frees_nothing() {
        let mut table = Table::new(1_000);
        let _stay = fill(&mut table, 2 * CHUNK);
        for _ in 0..10 {
            let key = table.insert(|_| 0).unwrap();
            assert_eq!(table.slots(), 3 * CHUNK);
            table.remove(key).unwrap();
            assert_eq!(table.slots(), 3 * CHUNK);
        }
    }

    #[test]
    fn values_go_to_the_lowest_chunk_with_room() {
        let mut table = Table::new(100 * CHUNK);
        let keys = fill(&mut table, 100 * CHUNK);
        for key in [keys[99 * CHUNK], keys[70 * CHUNK + 5], keys[3]] {
            table.remove(key).unwrap();
        }
        let slots = [0; 3].map(|value| table.insert(|_| value).unwrap().slot as usize);
        assert_eq!(slots, [3, 70 * CHUNK + 5, 99 * CHUNK]);
    }

    /// What is to happen so many times.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Insert(u16),
        /// Removes from the place on, forwards: so that chunks become empty.
        Remove(u16, u16),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (1..200u16).prop_map(Step::Insert),
            (any::<u16>(), 1..200u16).prop_map(|(from, n)| Step::Remove(from, n)),
        ];
        proptest::collection::vec(step, 0..60)
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in steps()) {
            const LIMIT: usize = 700;
            let mut table = Table::new(LIMIT);
            let mut model: HashMap<Token, usize> = HashMap::new();
            let mut ever: HashSet<Token> = HashSet::new();
            let mut gone: Vec<Token> = Vec::new();
            for (number, step) in steps.into_iter().enumerate() {
                match step {
                    Step::Insert(n) => for _ in 0..n {
                        match table.insert(|_| number) {
                            Some(key) => {
                                prop_assert!(ever.insert(key), "{:?} was given out before", key);
                                prop_assert!((key.slot as usize) < LIMIT.next_multiple_of(CHUNK));
                                model.insert(key, number);
                            }
                            None => prop_assert_eq!(model.len(), LIMIT),
                        }
                    },
                    Step::Remove(from, n) => {
                        let keys = table.keys();
                        for key in keys.iter().skip(usize::from(from) % keys.len().max(1)).take(n.into()) {
                            prop_assert_eq!(table.remove(*key), model.remove(key));
                            prop_assert_eq!(table.remove(*key), None);
                            gone.push(*key);
                        }
                    }
                }
                prop_assert_eq!(table.len(), model.len());
                prop_assert_eq!(table.is_full(), model.len() == LIMIT);
                // No more is in memory than there are values, what is vacant in their chunks, and two chunks.
                let taken: HashSet<usize> = model.keys().map(|key| key.slot as usize / CHUNK).collect();
                prop_assert!(table.slots() <= (taken.len() + 2) * CHUNK, "{} slots", table.slots());
                for (key, value) in &model {
                    prop_assert_eq!(table.get(*key), Some(value));
                    prop_assert_eq!(table.get_mut(*key), Some(&mut value.clone()));
                }
                let mut keys: Vec<Token> = model.keys().copied().collect();
                keys.sort_by_key(|key| key.slot);
                prop_assert_eq!(table.keys(), &keys[..]);
                let from = u32::try_from(number * 41 % 800).unwrap();
                let behind: Vec<Token> = table.iter_from(from).map(|(key, _)| key).collect();
                keys.retain(|key| key.slot >= from);
                prop_assert_eq!(behind, keys);
            }
            for key in gone {
                prop_assert_eq!(table.get(key), None);
                prop_assert_eq!(table.get_mut(key), None);
            }
        }
    }
}
