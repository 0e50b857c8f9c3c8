//! `Budget`: how much memory the bodies that are being collected may take together.
//!
//! Invariant: every byte of a [`Collected`] body is accounted for, and given back when it is dropped.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The account of a service.
#[derive(Debug)]
pub(crate) struct Budget {
    taken: AtomicUsize,
    max_bytes: usize,
}

/// A body in memory.
#[derive(Debug)]
pub(crate) struct Collected {
    bytes: Vec<u8>,
    budget: Arc<Budget>,
}

impl Budget {
    pub(crate) const fn new(max_bytes: usize) -> Self {
        Self { taken: AtomicUsize::new(0), max_bytes }
    }
}

impl Collected {
    pub(crate) const fn new(budget: Arc<Budget>) -> Self {
        Self { bytes: Vec::new(), budget }
    }

    /// Appends; false when there is no memory left for it.
    pub(crate) fn extend(&mut self, part: &[u8]) -> bool {
        let before = self.budget.taken.fetch_add(part.len(), Ordering::Relaxed);
        if before.saturating_add(part.len()) > self.budget.max_bytes {
            self.budget.taken.fetch_sub(part.len(), Ordering::Relaxed);
            return false;
        }
        self.bytes.extend_from_slice(part);
        true
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Collected {
    fn drop(&mut self) {
        self.budget.taken.fetch_sub(self.bytes.len(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_dropped_is_given_back() {
        let budget = Arc::new(Budget::new(10));
        let (mut one, mut two) = (Collected::new(Arc::clone(&budget)), Collected::new(Arc::clone(&budget)));
        assert!(one.extend(b"123456") && two.extend(b"1234"));
        assert!(!two.extend(b"5") && !one.extend(b"7"));
        assert_eq!((one.bytes(), two.bytes()), (&b"123456"[..], &b"1234"[..]));
        drop(one);
        assert!(two.extend(b"567890"));
        drop(two);
        assert_eq!(budget.taken.load(Ordering::Relaxed), 0);
    }
}
