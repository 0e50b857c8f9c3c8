//! `Slots`: what a reactor knows of each connection, found by the slot of its token.
//!
//! Grown by chunks, so that a full table is never copied, and a chunk that is empty is freed, but for one: so a connection
//! that comes and goes at the edge of a chunk allocates nothing. Its owner takes the lowest slots first, so the higher
//! chunks empty when there are fewer connections.
//!
//! Invariant: a stale token finds nothing; and at most one chunk that is in memory is empty.

use crate::Token;

/// What stands in a slot knows the generation it belongs to.
pub(crate) trait Occupant {
    fn generation(&self) -> u32;
}

#[derive(Debug)]
pub(crate) struct Slots<T> {
    chunks: Vec<Chunk<T>>,
    /// The empty chunk that is in memory.
    reserve: Option<usize>,
}

#[derive(Debug)]
struct Chunk<T> {
    /// None at all while the chunk is freed.
    places: Box<[Option<T>]>,
    len: usize,
}

const CHUNK: usize = 256;

impl<T> Default for Slots<T> {
    fn default() -> Self {
        Self { chunks: Vec::new(), reserve: None }
    }
}

impl<T: Occupant> Slots<T> {
    /// What a connection costs here, in bytes.
    pub(crate) const SLOT_BYTES: usize = size_of::<Option<T>>();

    /// What stands in the slot of a token, unless that is stale.
    #[inline]
    pub(crate) fn find(&mut self, token: Token) -> Option<&mut T> {
        self.place(token)?.as_mut().filter(|occupant| occupant.generation() == token.generation)
    }

    /// As [`find`](Self::find), when nothing is to be changed.
    #[inline]
    pub(crate) fn look(&self, token: Token) -> Option<&T> {
        let slot = token.slot as usize;
        let occupant = self.chunks.get(slot / CHUNK)?.places.get(slot % CHUNK)?.as_ref()?;
        (occupant.generation() == token.generation).then_some(occupant)
    }

    /// Puts a connection into its slot.
    ///
    /// # Panics
    ///
    /// When the slot is taken: two connections would share a name.
    pub(crate) fn insert(&mut self, slot: u32, occupant: T) {
        let at = slot as usize / CHUNK;
        while self.chunks.len() <= at {
            self.chunks.push(Chunk { places: Box::default(), len: 0 });
        }
        if self.reserve == Some(at) {
            self.reserve = None;
        }
        let chunk = &mut self.chunks[at];
        if chunk.places.is_empty() {
            chunk.places = (0..CHUNK).map(|_| None).collect();
        }
        let place = &mut chunk.places[slot as usize % CHUNK];
        assert!(place.is_none(), "slot {slot} is taken by another connection");
        *place = Some(occupant);
        chunk.len += 1;
    }

    /// Takes a connection out of its slot.
    pub(crate) fn remove(&mut self, token: Token) -> Option<T> {
        self.find(token)?;
        let occupant = self.place(token)?.take();
        let at = token.slot as usize / CHUNK;
        self.chunks[at].len -= 1;
        if self.chunks[at].len == 0 {
            self.emptied(at);
        }
        occupant
    }

    /// Of two empty chunks the higher one is freed.
    fn emptied(&mut self, at: usize) {
        let kept = self.reserve.map_or(at, |reserve| reserve.min(at));
        if let Some(reserve) = self.reserve {
            self.chunks[reserve.max(at)].places = Box::default();
        }
        self.reserve = Some(kept);
    }

    #[inline]
    fn place(&mut self, token: Token) -> Option<&mut Option<T>> {
        let slot = token.slot as usize;
        self.chunks.get_mut(slot / CHUNK)?.places.get_mut(slot % CHUNK)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use proptest::prelude::*;

    use super::*;

    impl Occupant for u32 {
        fn generation(&self) -> u32 {
            *self
        }
    }

    #[test]
    fn a_stale_token_finds_nothing() {
        let mut slots = Slots::default();
        let old = Token { slot: 300, generation: 1 };
        let new = Token { slot: 300, generation: 2 };
        slots.insert(old.slot, 1);
        assert_eq!(slots.remove(old), Some(1));
        slots.insert(new.slot, 2);
        assert_eq!(slots.find(old), None);
        assert_eq!(slots.look(old), None);
        assert_eq!(slots.remove(old), None);
        assert_eq!(slots.find(new), Some(&mut 2));
        assert_eq!(slots.look(new), Some(&2));
    }

    fn in_memory(slots: &Slots<u32>) -> Vec<usize> {
        let there = slots.chunks.iter().enumerate().filter(|(_, chunk)| !chunk.places.is_empty());
        there.map(|(at, _)| at).collect()
    }

    fn token(slot: u32) -> Token {
        Token { slot, generation: 1 }
    }

    #[test]
    fn chunks_that_are_empty_are_freed_but_for_the_lowest() {
        let mut slots = Slots::default();
        (0..1024).for_each(|slot| slots.insert(slot, 1));
        assert_eq!(in_memory(&slots), [0, 1, 2, 3]);
        (512..1024).for_each(|slot| assert_eq!(slots.remove(token(slot)), Some(1)));
        assert_eq!(in_memory(&slots), [0, 1, 2]);
        (0..256).for_each(|slot| assert_eq!(slots.remove(token(slot)), Some(1)));
        assert_eq!(in_memory(&slots), [0, 1]);
        assert_eq!(slots.find(token(0)), None);
        assert_eq!(slots.look(token(900)), None);
        assert_eq!(slots.find(token(300)), Some(&mut 1));
    }

    #[test]
    fn coming_and_going_at_the_edge_of_a_chunk_frees_nothing() {
        let mut slots = Slots::default();
        slots.insert(0, 1);
        for _ in 0..3 {
            slots.insert(256, 1);
            assert_eq!(in_memory(&slots), [0, 1]);
            slots.remove(token(256)).unwrap();
            assert_eq!(in_memory(&slots), [0, 1]);
        }
    }

    proptest! {
        #[test]
        fn behaves_as_a_map(steps in proptest::collection::vec((any::<bool>(), 0..5u32, 1..300u32), 0..60)) {
            let mut slots = Slots::default();
            let mut model = BTreeMap::new();
            let mut generation = 0;
            for (insert, chunk, n) in steps {
                for slot in (chunk * 256..).take(n as usize) {
                    if insert && !model.contains_key(&slot) {
                        generation += 1;
                        slots.insert(slot, generation);
                        model.insert(slot, generation);
                    } else if !insert && let Some(generation) = model.remove(&slot) {
                        let token = Token { slot, generation };
                        prop_assert_eq!(slots.remove(token), Some(generation));
                        prop_assert_eq!(slots.remove(token), None);
                    }
                }
                for (&slot, &generation) in &model {
                    prop_assert_eq!(slots.look(Token { slot, generation }), Some(&generation));
                    prop_assert_eq!(slots.find(Token { slot, generation: generation + 1 }), None);
                }
                let taken: BTreeSet<u32> = model.keys().map(|slot| slot / 256).collect();
                prop_assert!(in_memory(&slots).len() <= taken.len() + 1);
            }
        }
    }
}
