//! A pool of fixed blocks of bytes, and the block.
//!
//! ```text
//! Block:   0         start            end        capacity
//!          | consumed |#### filled ####|   room   |
//!          spare = consumed + room: a push that needs it moves the filled bytes to the front first
//! ```
//!
//! Invariant: `blocks_in_use` is the number of blocks taken and not yet given back; it never exceeds `max_blocks`,
//! and at most `max_idle_blocks` others wait for their next use.
//!
//! The pool is of one thread and does no locking. It does not track a block that is dropped instead of given back:
//! such a block counts as in use for good, so the owner of a block must [`give`](Pool::give) it.

use alloc::vec::Vec;
use core::fmt;

/// A bounded supply of [`Block`]s of one size.
///
/// ```
/// use tidegate_buf::Pool;
///
/// let mut pool = Pool::new(4096, 1, 1);
/// let mut block = pool.take().expect("nothing is in use yet");
/// assert_eq!(block.push(b"the unconsumed tail"), 19);
/// assert!(pool.take().is_none(), "the one block is in use");
/// pool.give(block);
/// assert_eq!((pool.blocks_in_use(), pool.idle_blocks()), (0, 1));
/// ```
#[derive(Debug)]
pub struct Pool {
    block_bytes: usize,
    max_blocks: usize,
    max_idle_blocks: usize,
    in_use: usize,
    /// Empty blocks, the one used last on top, since its memory is most likely still in the cache.
    idle: Vec<Block>,
}

impl Pool {
    /// Makes a pool of blocks of `block_bytes` bytes, of which at most `max_blocks` are in use at a time and at
    /// most `max_idle_blocks` are kept when they are not. Allocates nothing yet.
    ///
    /// # Panics
    ///
    /// When `block_bytes` is 0.
    #[must_use]
    pub fn new(block_bytes: usize, max_blocks: usize, max_idle_blocks: usize) -> Self {
        assert!(block_bytes > 0, "a block holds at least one byte");
        Self { block_bytes, max_blocks, max_idle_blocks, in_use: 0, idle: Vec::new() }
    }

    /// Takes an empty block, or `None` when `max_blocks` are in use.
    pub fn take(&mut self) -> Option<Block> {
        if self.in_use == self.max_blocks {
            return None;
        }
        self.in_use += 1;
        Some(self.idle.pop().unwrap_or_else(|| Block::with_capacity(self.block_bytes)))
    }

    /// Takes a block back, whatever it holds. It is kept for its next use, or freed when enough are kept already.
    ///
    /// # Panics
    ///
    /// When no block is in use: this one came from another pool.
    pub fn give(&mut self, mut block: Block) {
        self.in_use = self.in_use.checked_sub(1).expect("a block goes back to the pool it was taken from");
        debug_assert!(
            block.capacity() >= self.block_bytes,
            "a block goes back to the pool it was taken from"
        );
        if self.idle.len() < self.max_idle_blocks {
            block.clear();
            self.idle.push(block);
        }
    }

    /// Changes how many blocks are kept when they are not in use, and frees those over it.
    ///
    /// ```
    /// let mut pool = tidegate_buf::Pool::new(4096, 8, 8);
    /// let block = pool.take().expect("nothing is in use yet");
    /// pool.give(block);
    /// pool.set_max_idle_blocks(0);
    /// assert_eq!(pool.idle_blocks(), 0);
    /// ```
    pub fn set_max_idle_blocks(&mut self, max_idle_blocks: usize) {
        self.max_idle_blocks = max_idle_blocks;
        self.idle.truncate(max_idle_blocks);
        self.idle.shrink_to(max_idle_blocks);
    }

    /// How many blocks are taken and not yet given back.
    #[must_use]
    pub fn blocks_in_use(&self) -> usize {
        self.in_use
    }

    /// How many blocks are kept for their next use.
    #[must_use]
    pub fn idle_blocks(&self) -> usize {
        self.idle.len()
    }

    /// How many blocks [`take`](Self::take) will still hand out before it answers `None`.
    #[must_use]
    pub fn available_blocks(&self) -> usize {
        self.max_blocks - self.in_use
    }

    /// The size of a block, in bytes.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        self.block_bytes
    }
}

/// A first-in, first-out buffer of fixed capacity whose bytes are always one slice.
///
/// It comes from a [`Pool`] and goes back there. A new block is allocated but not written, so a page of it costs
/// memory only when bytes reach it.
pub struct Block {
    /// Consumed and filled bytes. It is never extended beyond its capacity, so it never moves.
    bytes: Vec<u8>,
    /// How many of `bytes` are consumed; 0 whenever nothing is filled.
    start: usize,
}

impl Block {
    fn with_capacity(bytes: usize) -> Self {
        Self { bytes: Vec::with_capacity(bytes), start: 0 }
    }

    /// Appends as many of `bytes` as fit, and answers how many that were.
    #[must_use = "the bytes beyond the answer are not stored"]
    pub fn push(&mut self, bytes: &[u8]) -> usize {
        let taken = bytes.len().min(self.spare());
        if taken > self.capacity() - self.bytes.len() {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(&bytes[..taken]);
        taken
    }

    /// Drops the `n` oldest bytes.
    ///
    /// # Panics
    ///
    /// When `n` is greater than the length of [`filled`](Self::filled).
    pub fn consume(&mut self, n: usize) {
        let filled = self.filled().len();
        assert!(n <= filled, "consumed {n} bytes of a block that holds {filled}");
        if n == filled {
            self.clear();
        } else {
            self.start += n;
        }
    }

    /// The bytes held, oldest first.
    #[must_use]
    pub fn filled(&self) -> &[u8] {
        &self.bytes[self.start..]
    }

    /// How many bytes a [`push`](Self::push) takes at most.
    #[must_use]
    pub fn spare(&self) -> usize {
        self.capacity() - self.filled().len()
    }

    /// Whether no byte is held.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.start = 0;
    }

    fn capacity(&self) -> usize {
        self.bytes.capacity()
    }
}

impl fmt::Debug for Block {
    /// Shows the cursors only: the bytes may be a secret of the peer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Block").field("filled", &self.filled().len()).field("spare", &self.spare()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, Pool};
    use proptest::prelude::*;

    #[test]
    fn stops_at_its_limit_and_goes_on_after_a_block_came_back() {
        let mut pool = Pool::new(16, 2, 2);
        let first = pool.take().unwrap();
        let second = pool.take().unwrap();
        assert!(pool.take().is_none());
        assert_eq!((pool.blocks_in_use(), pool.available_blocks(), pool.idle_blocks()), (2, 0, 0));
        pool.give(first);
        assert_eq!((pool.blocks_in_use(), pool.available_blocks(), pool.idle_blocks()), (1, 1, 1));
        assert!(pool.take().is_some());
        assert_eq!(pool.idle_blocks(), 0, "the idle block was used again");
        drop(second);
    }

    #[test]
    fn frees_idle_blocks_over_the_limit() {
        let mut pool = Pool::new(16, 5, 2);
        let blocks: Vec<Block> = std::iter::from_fn(|| pool.take()).collect();
        assert_eq!(blocks.len(), 5);
        for block in blocks {
            pool.give(block);
        }
        assert_eq!((pool.blocks_in_use(), pool.idle_blocks()), (0, 2));
    }

    #[test]
    fn a_block_used_again_is_empty_and_has_all_its_room() {
        let mut pool = Pool::new(16, 1, 1);
        let mut block = pool.take().unwrap();
        assert_eq!(block.push(&[7; 20]), 16);
        block.consume(3);
        pool.give(block);
        let block = pool.take().unwrap();
        assert!(block.is_empty());
        assert_eq!((block.filled(), block.spare()), (&[][..], 16));
    }

    #[test]
    fn a_pool_of_no_blocks_has_none() {
        assert!(Pool::new(16, 0, 0).take().is_none());
    }

    #[test]
    #[should_panic(expected = "the pool it was taken from")]
    fn a_foreign_block_is_refused() {
        let stranger = Pool::new(16, 1, 1).take().unwrap();
        Pool::new(16, 1, 1).give(stranger);
    }

    #[test]
    #[should_panic(expected = "consumed 3 bytes of a block that holds 2")]
    fn refuses_to_consume_more_than_it_holds() {
        let mut block = Block::with_capacity(4);
        assert_eq!(block.push(b"ab"), 2);
        block.consume(3);
    }

    proptest! {
        /// A push takes what fits, a consume drops a share of what is held, and the storage never moves.
        #[test]
        fn a_block_behaves_as_a_bounded_queue(
            steps in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..40), any::<u8>()), 0..100),
        ) {
            const CAPACITY: usize = 32;
            let mut block = Block::with_capacity(CAPACITY);
            let storage = block.bytes.as_ptr();
            let mut model: Vec<u8> = Vec::new();
            for (bytes, share) in steps {
                let fits = bytes.len().min(CAPACITY - model.len());
                prop_assert_eq!(block.push(&bytes), fits);
                model.extend_from_slice(&bytes[..fits]);
                prop_assert_eq!(block.filled(), &model[..]);

                let n = model.len() * usize::from(share) / 255;
                block.consume(n);
                model.drain(..n);
                prop_assert_eq!(block.filled(), &model[..]);
                prop_assert_eq!(block.spare(), CAPACITY - model.len());
                prop_assert_eq!(block.is_empty(), model.is_empty());
                prop_assert_eq!(block.bytes.as_ptr(), storage);
            }
        }
    }
}
