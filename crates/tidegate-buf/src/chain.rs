//! Output that waits for the peer: a chain of pooled blocks.
//!
//! ```text
//! consume <- [ ##### ] [ ######### ] [ ######### ] [ ####     ] <- push
//!              slice 0    slice 1       slice 2      slice 3      (one iovec each)
//! ```
//!
//! Invariant: no block of the chain is empty, and `len` is the sum of what they hold. An empty chain owns no memory
//! at all, since most connections of a server are idle.
//!
//! The chain does not know its [`Pool`]: the same one must be passed to every call, and [`Chain::clear`] must be
//! called before a chain with bytes in it is dropped, or the pool counts its blocks as in use for good.

use crate::{Block, Pool};
use alloc::collections::VecDeque;
use core::error::Error;
use core::fmt;

/// A first-in, first-out queue of bytes in blocks of a pool, for `writev(2)`.
///
/// ```
/// use tidegate_buf::{Chain, Pool};
///
/// let mut pool = Pool::new(4, 8, 8);
/// let mut chain = Chain::new();
/// chain.push(&mut pool, b"refused by the kernel")?;
/// let sent: usize = chain.slices().take(2).map(<[u8]>::len).sum();
/// chain.consume(&mut pool, sent);
/// assert_eq!(chain.slices().next(), Some(&b"by t"[..]));
/// chain.clear(&mut pool);
/// assert_eq!(pool.blocks_in_use(), 0);
/// # Ok::<(), tidegate_buf::PoolExhausted>(())
/// ```
#[derive(Debug, Default)]
pub struct Chain {
    /// The blocks, oldest first; only the first may be consumed in part, only the last has room worth filling.
    blocks: VecDeque<Block>,
    /// The sum of what the blocks hold, in bytes.
    len: usize,
}

impl Chain {
    /// Makes an empty chain without allocating.
    #[must_use]
    pub const fn new() -> Self {
        Self { blocks: VecDeque::new(), len: 0 }
    }

    /// Appends all of `bytes`, or nothing.
    ///
    /// # Errors
    ///
    /// [`PoolExhausted`] when the pool has fewer blocks left than the bytes need. Neither the chain nor the pool
    /// has changed then.
    #[expect(clippy::missing_panics_doc, reason = "the blocks are counted before the first is taken")]
    pub fn push(&mut self, pool: &mut Pool, bytes: &[u8]) -> Result<(), PoolExhausted> {
        let room = self.blocks.back().map_or(0, Block::spare);
        let overflow = bytes.len().saturating_sub(room);
        if overflow.div_ceil(pool.block_bytes()) > pool.available_blocks() {
            return Err(PoolExhausted);
        }
        let mut rest = bytes;
        if let Some(last) = self.blocks.back_mut() {
            let taken = last.push(rest);
            rest = &rest[taken..];
        }
        while !rest.is_empty() {
            let mut block = pool.take().expect("the blocks were counted above");
            let taken = block.push(rest);
            rest = &rest[taken..];
            self.blocks.push_back(block);
        }
        self.len += bytes.len();
        Ok(())
    }

    /// Drops the `n` oldest bytes and gives emptied blocks back to `pool`.
    ///
    /// # Panics
    ///
    /// When `n` is greater than [`len`](Self::len).
    pub fn consume(&mut self, pool: &mut Pool, n: usize) {
        assert!(n <= self.len, "consumed {n} bytes of a chain that holds {}", self.len);
        self.len -= n;
        let mut left = n;
        while left > 0 {
            let mut block = self.blocks.pop_front().expect("the blocks hold `len` bytes");
            let dropped = left.min(block.filled().len());
            block.consume(dropped);
            left -= dropped;
            if block.is_empty() {
                pool.give(block);
            } else {
                self.blocks.push_front(block);
            }
        }
        self.release_if_empty();
    }

    /// Drops all bytes and gives all blocks back to `pool`.
    pub fn clear(&mut self, pool: &mut Pool) {
        for block in self.blocks.drain(..) {
            pool.give(block);
        }
        self.len = 0;
        self.release_if_empty();
    }

    /// The bytes held, oldest first, in slices of which none is empty.
    pub fn slices(&self) -> impl Iterator<Item = &[u8]> {
        self.blocks.iter().map(Block::filled)
    }

    /// How many bytes are held.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether no byte is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Frees the list of blocks itself. Output is refused by the kernel seldom enough that the next one may
    /// allocate it anew, and a connection whose peer reads must not pay for the one time that it did not.
    fn release_if_empty(&mut self) {
        if self.blocks.is_empty() {
            self.blocks = VecDeque::new();
        }
    }
}

/// The pool has fewer free blocks than the bytes need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolExhausted;

impl fmt::Display for PoolExhausted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the pool has fewer free blocks than the output needs")
    }
}

impl Error for PoolExhausted {}

#[cfg(test)]
mod tests {
    use super::{Chain, PoolExhausted};
    use crate::Pool;
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        /// Consume this many 255ths of what is held.
        Consume(u8),
        Clear,
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            8 => prop::collection::vec(any::<u8>(), 0..40).prop_map(Step::Push),
            6 => any::<u8>().prop_map(Step::Consume),
            1 => Just(Step::Clear),
        ];
        prop::collection::vec(step, 0..120)
    }

    proptest! {
        /// The other chain shares the pool, so that the limit is met with the chain in any state.
        #[test]
        fn behaves_as_a_queue_of_bytes(block_bytes in 1_usize..20, taken_by_others in 0_usize..6, steps in steps()) {
            const MAX_BLOCKS: usize = 8;
            let mut pool = Pool::new(block_bytes, MAX_BLOCKS, 3);
            let mut other = Chain::new();
            other.push(&mut pool, &vec![0; taken_by_others * block_bytes]).unwrap();
            let mut chain = Chain::new();
            let mut model: Vec<u8> = Vec::new();
            for step in steps {
                match step {
                    Step::Push(bytes) => {
                        let room = (pool.available_blocks() + chain.blocks.len()) * block_bytes;
                        let in_use = pool.blocks_in_use();
                        if chain.push(&mut pool, &bytes).is_ok() {
                            prop_assert!(model.len() + bytes.len() <= room);
                            model.extend(bytes);
                        } else {
                            // All room can be used but what is consumed of the first block, when others follow it.
                            prop_assert!(model.len() + bytes.len() + block_bytes > room);
                            prop_assert_eq!(pool.blocks_in_use(), in_use);
                        }
                    }
                    Step::Consume(share) => {
                        let n = model.len() * usize::from(share) / 255;
                        chain.consume(&mut pool, n);
                        model.drain(..n);
                    }
                    Step::Clear => {
                        chain.clear(&mut pool);
                        model.clear();
                    }
                }
                prop_assert_eq!(chain.slices().collect::<Vec<_>>().concat(), &model[..]);
                prop_assert!(chain.slices().all(|slice| !slice.is_empty()));
                prop_assert_eq!((chain.len(), chain.is_empty()), (model.len(), model.is_empty()));
                prop_assert_eq!(pool.blocks_in_use(), taken_by_others + chain.blocks.len());
                prop_assert_eq!(chain.is_empty(), chain.blocks.capacity() == 0);
            }
            chain.clear(&mut pool);
            other.clear(&mut pool);
            prop_assert_eq!(pool.blocks_in_use(), 0);
            prop_assert!(pool.idle_blocks() <= 3);
        }
    }

    #[test]
    fn is_small_since_every_connection_has_one() {
        assert!(size_of::<Chain>() <= 40, "{} bytes", size_of::<Chain>());
    }

    #[test]
    fn refuses_all_or_nothing() {
        let mut pool = Pool::new(4, 2, 0);
        let mut chain = Chain::new();
        assert_eq!(chain.push(&mut pool, b"123456789"), Err(PoolExhausted));
        assert_eq!((chain.len(), pool.blocks_in_use()), (0, 0));
        assert_eq!(chain.push(&mut pool, b"123456"), Ok(()));
        assert_eq!(chain.push(&mut pool, b"789"), Err(PoolExhausted));
        assert_eq!(chain.slices().collect::<Vec<_>>(), [&b"1234"[..], b"56"]);
        assert_eq!(chain.push(&mut pool, b"78"), Ok(()), "the last block is filled to its end");
        assert_eq!(chain.slices().collect::<Vec<_>>(), [&b"1234"[..], b"5678"]);
        chain.clear(&mut pool);
    }

    #[test]
    fn gives_blocks_back_as_they_are_emptied() {
        let mut pool = Pool::new(4, 3, 3);
        let mut chain = Chain::new();
        chain.push(&mut pool, b"aaaabbbbcc").unwrap();
        chain.consume(&mut pool, 3);
        assert_eq!(pool.blocks_in_use(), 3);
        chain.consume(&mut pool, 1);
        assert_eq!(pool.blocks_in_use(), 2);
        chain.consume(&mut pool, 5);
        assert_eq!(chain.slices().collect::<Vec<_>>(), [&b"c"[..]]);
        chain.consume(&mut pool, 1);
        assert_eq!((pool.blocks_in_use(), pool.idle_blocks()), (0, 3));
    }

    #[test]
    fn an_empty_push_takes_no_block() {
        let mut pool = Pool::new(4, 0, 0);
        assert_eq!(Chain::new().push(&mut pool, b""), Ok(()));
    }

    #[test]
    #[should_panic(expected = "consumed 3 bytes of a chain that holds 2")]
    fn refuses_to_consume_more_than_it_holds() {
        let mut pool = Pool::new(4, 1, 0);
        let mut chain = Chain::new();
        chain.push(&mut pool, b"ab").unwrap();
        chain.consume(&mut pool, 3);
    }
}
