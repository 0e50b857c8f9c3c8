//! `Generations`: by slot, the generation of the connection that is open there, for any thread to read without a lock.
//!
//! Written by the loop alone. In chunks that are allocated when a connection first has a slot of theirs and stay from then
//! on, so that a reader never finds one gone. Four bytes a slot, and little for those that were never used.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use tidegate_reactor::Token;

/// Which connections are open.
#[derive(Debug)]
pub(crate) struct Generations {
    chunks: Box<[OnceLock<Box<[AtomicU32]>>]>,
}

const CHUNK: usize = 1024;

impl Generations {
    /// For slots below `slots`, rounded up to whole chunks, which is more than a table rounds up to. None is open.
    pub(crate) fn new(slots: usize) -> Self {
        Self { chunks: (0..slots.div_ceil(CHUNK)).map(|_| OnceLock::new()).collect() }
    }

    pub(crate) fn is_open(&self, id: Token) -> bool {
        let slot = id.slot as usize;
        let place =
            self.chunks.get(slot / CHUNK).and_then(OnceLock::get).and_then(|chunk| chunk.get(slot % CHUNK));
        place.is_some_and(|generation| generation.load(Ordering::Acquire) == id.generation)
    }

    /// A connection takes a slot (its generation) or leaves it (0).
    pub(crate) fn set(&self, slot: u32, generation: u32) {
        let slot = slot as usize;
        if let Some(chunk) = self.chunks.get(slot / CHUNK) {
            let chunk = chunk.get_or_init(|| (0..CHUNK).map(|_| AtomicU32::new(0)).collect());
            chunk[slot % CHUNK].store(generation, Ordering::Release);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_present_generation_is_open() {
        let generations = Generations::new(2 * CHUNK);
        let token = |slot, generation| Token { slot, generation };
        assert!(!generations.is_open(token(1500, 3)), "nobody was there yet");
        generations.set(1500, 3);
        assert!(generations.is_open(token(1500, 3)));
        assert!(!generations.is_open(token(1500, 2)));
        assert!(!generations.is_open(token(1499, 3)));
        generations.set(1500, 0);
        assert!(!generations.is_open(token(1500, 3)));
        assert!(!generations.is_open(token(1 << 30, 3)), "there is no such slot");
    }

    #[test]
    fn a_chunk_is_allocated_for_its_first_connection() {
        let generations = Generations::new(10 * CHUNK);
        generations.set(5, 1);
        generations.set(9 * 1024, 1);
        assert_eq!(generations.chunks.iter().filter(|chunk| chunk.get().is_some()).count(), 2);
    }
}
