//! `AtOnce`: how many files are compressed between two requests, so that a loop does not spend its time on that.
//!
//! Invariant: at most [`MAX_AT_ONCE`] in a second, whatever is asked for. The others wait for the thread that compresses.

use std::sync::atomic::{AtomicU64, Ordering};

/// How many there have been, and in which second. A number that is lost when two threads count at the same time is of no
/// importance.
#[derive(Debug, Default)]
pub(crate) struct AtOnce {
    /// The second, and the number in the lowest bits.
    state: AtomicU64,
}

/// With files of 16 KiB these take a loop 50 ms.
const MAX_AT_ONCE: u64 = 32;
const COUNT_BITS: u32 = 16;

impl AtOnce {
    /// Whether there is one left in this second; takes it.
    pub(crate) fn take(&self, second: u64) -> bool {
        let last = self.state.load(Ordering::Relaxed);
        let taken = if last >> COUNT_BITS == second { last & ((1 << COUNT_BITS) - 1) } else { 0 };
        if taken >= MAX_AT_ONCE {
            return false;
        }
        self.state.store(second << COUNT_BITS | (taken + 1), Ordering::Relaxed);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_so_many_in_each_second() {
        let at_once = AtOnce::default();
        for second in [1_800_000_000, 1_800_000_001, 1_700_000_000] {
            assert_eq!((0..100).filter(|_| at_once.take(second)).count(), 32, "{second}");
        }
    }
}
