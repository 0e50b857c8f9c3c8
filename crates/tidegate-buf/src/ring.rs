//! A bounded ring of bytes.
//!
//! ```text
//!                 0       head            head + len      capacity
//! one piece:      |  free  |######## len ########|  free  |
//!
//!                 0   head + len - capacity    head       capacity
//! two pieces:     |##### second #####|   free   |# first #|
//! ```
//!
//! Invariant: `head < capacity` (or both are 0) and `len <= capacity`; the bytes that are held begin at `head` and
//! go on at 0 when they reach the end.
//!
//! The ring never grows and never overwrites what it holds: what does not fit is refused whole.

use alloc::boxed::Box;
use alloc::vec;
use core::fmt;

/// A bounded first-in, first-out queue of bytes in one allocation.
///
/// ```
/// use tidegate_buf::Ring;
///
/// let mut ring = Ring::with_capacity(8);
/// assert!(ring.push(b"hello"));
/// assert!(!ring.push(b"world"), "all or nothing: only 3 bytes are free");
/// assert_eq!(ring.as_slices(), (&b"hello"[..], &b""[..]));
/// ring.consume(4);
/// assert!(ring.push(b"world"));
/// assert_eq!(ring.as_slices(), (&b"owor"[..], &b"ld"[..]));
/// ```
pub struct Ring {
    /// The whole storage; its length is the capacity.
    bytes: Box<[u8]>,
    /// Where the oldest byte is; 0 whenever the ring is empty, so that the next push is one piece.
    head: usize,
    /// How many bytes are held.
    len: usize,
}

impl Ring {
    /// Makes an empty ring that holds at most `bytes` bytes.
    #[must_use]
    pub fn with_capacity(bytes: usize) -> Self {
        // A zeroed allocation of this kind comes from `calloc`: a large ring touches no page before it is used.
        Self { bytes: vec![0; bytes].into_boxed_slice(), head: 0, len: 0 }
    }

    /// Appends all of `bytes` and answers true, or answers false and appends nothing when they do not fit.
    #[must_use = "the bytes are not stored when the answer is false"]
    pub fn push(&mut self, bytes: &[u8]) -> bool {
        if bytes.len() > self.free() {
            return false;
        }
        let tail = self.wrap(self.head + self.len);
        let (first, second) = bytes.split_at(bytes.len().min(self.capacity() - tail));
        self.bytes[tail..tail + first.len()].copy_from_slice(first);
        self.bytes[..second.len()].copy_from_slice(second);
        self.len += bytes.len();
        true
    }

    /// Drops the `n` oldest bytes.
    ///
    /// # Panics
    ///
    /// When `n` is greater than [`len`](Self::len).
    pub fn consume(&mut self, n: usize) {
        assert!(n <= self.len, "consumed {n} bytes of a ring that holds {}", self.len);
        self.len -= n;
        self.head = if self.len == 0 { 0 } else { self.wrap(self.head + n) };
    }

    /// The bytes held, oldest first: the first piece, then the second, which is empty unless they wrap around.
    #[must_use]
    pub fn as_slices(&self) -> (&[u8], &[u8]) {
        let first = self.len.min(self.capacity() - self.head);
        (&self.bytes[self.head..self.head + first], &self.bytes[..self.len - first])
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

    /// How many bytes can still be pushed.
    #[must_use]
    pub fn free(&self) -> usize {
        self.capacity() - self.len
    }

    /// The limit given to [`with_capacity`](Self::with_capacity), in bytes.
    #[must_use]
    pub fn capacity(&self) -> usize {
        self.bytes.len()
    }

    /// Folds a position below twice the capacity back into the storage. A comparison is cheaper than a division
    /// and needs no special case for a capacity of 0.
    fn wrap(&self, position: usize) -> usize {
        if position >= self.capacity() { position - self.capacity() } else { position }
    }
}

impl fmt::Debug for Ring {
    /// Shows the cursors only: the bytes may be a secret of the peer.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Ring")
            .field("capacity", &self.capacity())
            .field("head", &self.head)
            .field("len", &self.len)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::Ring;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    #[derive(Debug, Clone)]
    enum Step {
        Push(Vec<u8>),
        /// Consume this many 255ths of what is held.
        Consume(u8),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            prop::collection::vec(any::<u8>(), 0..24).prop_map(Step::Push),
            any::<u8>().prop_map(Step::Consume),
        ];
        prop::collection::vec(step, 0..200)
    }

    fn contents(ring: &Ring) -> Vec<u8> {
        let (first, second) = ring.as_slices();
        [first, second].concat()
    }

    proptest! {
        #[test]
        fn behaves_as_a_bounded_deque(capacity in 0_usize..40, steps in steps()) {
            let mut ring = Ring::with_capacity(capacity);
            let mut model = VecDeque::new();
            for step in steps {
                match step {
                    Step::Push(bytes) => {
                        let fits = model.len() + bytes.len() <= capacity;
                        prop_assert_eq!(ring.push(&bytes), fits);
                        if fits {
                            model.extend(bytes);
                        }
                    }
                    Step::Consume(share) => {
                        let n = model.len() * usize::from(share) / 255;
                        ring.consume(n);
                        model.drain(..n);
                    }
                }
                prop_assert_eq!(contents(&ring), Vec::from(model.clone()));
                prop_assert_eq!(ring.as_slices().0.is_empty(), model.is_empty(), "the first piece is used first");
                prop_assert_eq!(ring.len(), model.len());
                prop_assert_eq!(ring.is_empty(), model.is_empty());
                prop_assert_eq!(ring.free(), capacity - model.len());
                prop_assert_eq!(ring.capacity(), capacity);
            }
        }
    }

    #[test]
    fn fills_to_the_last_byte_across_the_end() {
        let mut ring = Ring::with_capacity(4);
        assert!(ring.push(b"abc"));
        ring.consume(2);
        assert!(ring.push(b"def"));
        assert_eq!(ring.free(), 0);
        assert_eq!(ring.as_slices(), (&b"cd"[..], &b"ef"[..]));
        assert!(!ring.push(b"g"));
        assert!(ring.push(b""), "nothing always fits");
    }

    #[test]
    fn is_one_piece_again_after_it_was_empty() {
        let mut ring = Ring::with_capacity(4);
        assert!(ring.push(b"abc"));
        ring.consume(3);
        assert!(ring.push(b"defg"));
        assert_eq!(ring.as_slices(), (&b"defg"[..], &b""[..]));
    }

    #[test]
    #[should_panic(expected = "consumed 3 bytes of a ring that holds 2")]
    fn refuses_to_consume_more_than_it_holds() {
        let mut ring = Ring::with_capacity(4);
        assert!(ring.push(b"ab"));
        ring.consume(3);
    }
}
