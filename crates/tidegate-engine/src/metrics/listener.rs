//! `ListenerMetrics`: what one process counts for one listener.
//!
//! Invariant: nothing is read or counted behind `len`, which are the words that the version has that made them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use super::{
    LATENCY_AT, LATENCY_SUM_AT, LatencyHistogram, ListenerWord, MAX_SERVICE_COUNTERS, REASONS_AT, SERVICE_AT,
    Words, add, nanos,
};
use crate::Reason;

/// The counters of one listener in one process.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    pub(super) words: Arc<dyn Words>,
    pub(super) base: usize,
    /// How many words there are.
    pub(super) len: usize,
}

impl ListenerMetrics {
    /// A general word.
    #[must_use]
    pub fn get(&self, word: ListenerWord) -> u64 {
        self.word(word as usize).load(Ordering::Relaxed)
    }

    /// Takes over what another place has counted, which counts from zero again. Connections that are open stay where they
    /// are. Nobody else may count in either of them.
    pub fn absorb(&self, other: &Self) {
        for index in (0..self.len.min(other.len)).filter(|index| *index != ListenerWord::Open as usize) {
            add(self.word(index), other.word(index).swap(0, Ordering::Relaxed));
        }
    }

    /// How many connections ended for `reason`.
    #[must_use]
    pub fn closed(&self, reason: Reason) -> u64 {
        self.word(REASONS_AT + usize::from(reason.number())).load(Ordering::Relaxed)
    }

    /// A counter of the service.
    #[must_use]
    pub fn service(&self, counter: usize) -> u64 {
        self.word(SERVICE_AT + counter.min(MAX_SERVICE_COUNTERS - 1)).load(Ordering::Relaxed)
    }

    /// How long answers took.
    #[must_use]
    pub fn latency(&self) -> LatencyHistogram {
        if self.len <= LATENCY_SUM_AT {
            return LatencyHistogram::EMPTY;
        }
        let word = |at: usize| self.word(at).load(Ordering::Relaxed);
        LatencyHistogram {
            counts: std::array::from_fn(|bucket| word(LATENCY_AT + bucket)),
            sum_ns: word(LATENCY_SUM_AT),
        }
    }

    /// Enters that the answers to a batch took so long, which stands for `weight` of them. Only the one writer may.
    pub fn record_latency(&self, took: Duration, weight: u32) {
        if self.len <= LATENCY_SUM_AT {
            return;
        }
        let ns = nanos(took);
        add(self.word(LATENCY_AT + LatencyHistogram::bucket(ns)), weight.into());
        add(self.word(LATENCY_SUM_AT), ns.wrapping_mul(weight.into()));
    }

    #[inline]
    pub(crate) fn add(&self, word: ListenerWord, n: u64) {
        add(self.word(word as usize), n);
    }

    pub(crate) fn set(&self, word: ListenerWord, value: u64) {
        self.word(word as usize).store(value, Ordering::Relaxed);
    }

    pub(crate) fn add_closed(&self, reason: Reason) {
        add(self.word(REASONS_AT + usize::from(reason.number())), 1);
    }

    #[inline]
    pub(crate) fn add_service(&self, counter: usize, n: u64) {
        debug_assert!(counter < MAX_SERVICE_COUNTERS, "counter {counter} of {MAX_SERVICE_COUNTERS}");
        add(self.word(SERVICE_AT + counter.min(MAX_SERVICE_COUNTERS - 1)), n);
    }

    #[inline]
    fn word(&self, index: usize) -> &AtomicU64 {
        &self.words.words()[self.base + index]
    }
}
