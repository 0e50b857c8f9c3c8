//! `Metrics`: counters of all processes in one block of words.
//!
//! The block is an array of `AtomicU64` that the processes share: for each process a head of [`HEAD_WORDS`], then
//! [`LISTENER_WORDS`] for each listener. A word has one writer, the loop it belongs to, so that adding is a load and a store
//! and needs no locked instruction; readers are any process. The layout follows from the number of listeners alone.
//!
//! ```text
//!  process 0                                  process 1
//! +------+------------+------------+--- … ---+------+--- … ---+
//! | head | listener 0 | listener 1 |         | head |         |
//! +------+------------+------------+--- … ---+------+--- … ---+
//!     |    general 16 | closes by reason 64 | service's own 48 | histogram of latencies 24 | general, too, 8
//!     general 32 | histogram of turns 13
//! ```

mod callback;
mod latency;
mod listener;
mod turns;
mod words;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_reactor::Token;
use tidegate_timer::Instant;

pub(crate) use callback::Callback;
pub use callback::RunningCallback;
pub use latency::LatencyHistogram;
pub use listener::ListenerMetrics;
pub use turns::TurnHistogram;
pub use words::{ListenerWord, ProcessWord};

use self::callback::NAMES;

use crate::Reason;

/// Memory that holds the words: a heap block within one process, a shared mapping between several.
pub trait Words: Send + Sync + Debug {
    /// All words, in the layout of [`Metrics`].
    fn words(&self) -> &[AtomicU64];
}

impl Words for Box<[AtomicU64]> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

/// Words of a process before its listeners'.
pub const HEAD_WORDS: usize = 64;
/// Where the counts of the turns are in the head; their sum is behind them.
const TURNS_AT: usize = 32;
const TURNS_SUM_AT: usize = TURNS_AT + TurnHistogram::BUCKETS;
const _: () = assert!(TURNS_SUM_AT < HEAD_WORDS, "the head has room for the histogram");
/// Words of a listener.
pub const LISTENER_WORDS: usize = 160;
/// The fewest words that a listener had in any version.
pub const MIN_LISTENER_WORDS: usize = LATENCY_AT;
/// How many counters of its own a service may have.
pub const MAX_SERVICE_COUNTERS: usize = LATENCY_AT - SERVICE_AT;
const REASONS_AT: usize = 16;
const SERVICE_AT: usize = REASONS_AT + Reason::COUNT;
const LATENCY_AT: usize = 128;
/// General words for which there was no room before the others.
const MORE_AT: usize = 152;
const LATENCY_SUM_AT: usize = LATENCY_AT + LatencyHistogram::BUCKETS;
const _: () =
    assert!(LATENCY_SUM_AT < MORE_AT && MORE_AT < LISTENER_WORDS, "a listener has room for the histogram");

/// A view of the counters of several processes.
#[derive(Clone, Debug)]
pub struct Metrics {
    words: Arc<dyn Words>,
    listeners: usize,
    /// [`LISTENER_WORDS`], or what they were in the program that made the words.
    listener_words: usize,
    /// No more are looked at.
    max_places: usize,
}

impl Metrics {
    /// How many words `processes` processes with `listeners` listeners need.
    #[must_use]
    pub const fn words_needed(processes: usize, listeners: usize) -> usize {
        processes * stride(listeners)
    }

    /// A view of `words`, which were zero when they were new.
    #[must_use]
    pub fn new(words: Arc<dyn Words>, listeners: usize) -> Self {
        Self { words, listeners, listener_words: LISTENER_WORDS, max_places: usize::MAX }
    }

    /// The places in the first `words` words, behind which something else stands.
    #[must_use]
    pub fn in_first(self, words: usize) -> Self {
        Self { max_places: words / self.stride(), ..self }
    }

    /// The view of words that another version of this program has made, with so many for each listener. What it does not
    /// have is zero, and is not counted. No less than [`MIN_LISTENER_WORDS`] are taken.
    #[must_use]
    pub fn with_listener_words(self, listener_words: usize) -> Self {
        Self { listener_words: listener_words.max(MIN_LISTENER_WORDS), ..self }
    }

    /// Counters on the heap, for one process.
    #[must_use]
    pub fn on_heap(listeners: usize) -> Self {
        Self::on_heap_for(1, listeners)
    }

    /// Counters on the heap, for `processes` places.
    #[must_use]
    pub fn on_heap_for(processes: usize, listeners: usize) -> Self {
        let words = Self::words_needed(processes, listeners);
        let block: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        Self::new(Arc::new(block), listeners)
    }

    /// How many places for processes there are.
    #[must_use]
    pub fn processes(&self) -> usize {
        (self.words.words().len() / self.stride()).min(self.max_places)
    }

    /// How many words each listener has.
    #[must_use]
    pub const fn listener_words(&self) -> usize {
        self.listener_words
    }

    /// How many listeners a process has.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// The counters of the process in place `process`.
    ///
    /// # Panics
    ///
    /// When there is no such place.
    #[must_use]
    pub fn process(&self, process: usize) -> ProcessMetrics {
        assert!(process < self.processes(), "process {process} of {}", self.processes());
        ProcessMetrics {
            words: Arc::clone(&self.words),
            base: process * self.stride(),
            listeners: self.listeners,
            listener_words: self.listener_words,
        }
    }

    fn stride(&self) -> usize {
        HEAD_WORDS + self.listeners * self.listener_words
    }
}

/// Words of a process.
const fn stride(listeners: usize) -> usize {
    HEAD_WORDS + listeners * LISTENER_WORDS
}

/// The counters of one process.
#[derive(Clone, Debug)]
pub struct ProcessMetrics {
    words: Arc<dyn Words>,
    base: usize,
    listeners: usize,
    listener_words: usize,
}

impl ProcessMetrics {
    /// A word of the process.
    #[must_use]
    pub fn get(&self, word: ProcessWord) -> u64 {
        self.words.words()[self.base + word as usize].load(Ordering::Relaxed)
    }

    /// Sets a word of the process. Only its one writer may.
    pub fn set(&self, word: ProcessWord, value: u64) {
        self.words.words()[self.base + word as usize].store(value, Ordering::Relaxed);
    }

    /// Adds to a word of the process. Only its one writer may.
    pub fn add(&self, word: ProcessWord, n: u64) {
        add(&self.words.words()[self.base + word as usize], n);
    }

    /// Counts a turn of the loop that took so long: two loads and two stores. Only its one writer may.
    #[inline]
    pub fn record_turn(&self, took: Duration) {
        record_turn(self.head(), took);
    }

    /// Enters that a turn of the loop begins at `now`, and counts the one before it: how long that took is known when the wait
    /// behind it began. Only its one writer may.
    #[inline]
    pub(crate) fn begin_turn(&self, now: Instant, took: impl FnOnce() -> Duration) {
        let head = self.head();
        head[ProcessWord::TurnSince as usize].store(now.as_nanos(), Ordering::Relaxed);
        let turns = &head[ProcessWord::LoopTurns as usize];
        if turns.load(Ordering::Relaxed) > 0 {
            record_turn(head, took());
        }
        add(turns, 1);
    }

    /// The words of the process, found once for several of them.
    #[inline]
    fn head(&self) -> &[AtomicU64; HEAD_WORDS] {
        let words = self.words.words()[self.base..].first_chunk();
        words.expect("a place has words of its own before its listeners'")
    }

    /// How long the turns of the loop took.
    #[must_use]
    pub fn turns(&self) -> TurnHistogram {
        let word = |at: usize| self.words.words()[self.base + at].load(Ordering::Relaxed);
        TurnHistogram {
            counts: std::array::from_fn(|bucket| word(TURNS_AT + bucket)),
            sum_ns: word(TURNS_SUM_AT),
        }
    }

    /// Makes the place ready for the next process: its own words and its gauges are zero, and what counts over restarts
    /// goes on from where the process before it ended.
    ///
    /// The process id stays until the next process enters its own, so that no reader finds the place vacant in between.
    pub fn begin(&self) {
        for word in &self.words.words()[self.base + ProcessWord::Pid as usize + 1..self.base + HEAD_WORDS] {
            word.store(0, Ordering::Relaxed);
        }
        for listener in 0..self.listeners {
            self.listener(listener).set(ListenerWord::Open, 0);
        }
    }

    /// The callback that the loop is in, if any: what keeps it, when its turn takes long.
    #[must_use]
    pub fn running_callback(&self) -> Option<RunningCallback> {
        let (callback, conn) = (self.get(ProcessWord::Callback), self.get(ProcessWord::CallbackConn));
        let listener = upper(callback).checked_sub(1)?;
        let name = usize::try_from(lower(callback)).ok().and_then(|callback| NAMES.get(callback))?;
        Some(RunningCallback {
            listener: usize::try_from(listener).ok()?,
            callback: name,
            conn: (lower(conn), upper(conn)),
        })
    }

    /// Enters that a callback begins. Two stores, and two more at the end: they make a stuck handler known by name.
    #[inline]
    pub(crate) fn enter(&self, site: u16, callback: Callback, conn: Token) {
        let (head, order) = (self.head(), Ordering::Relaxed);
        let conn = u64::from(conn.generation) << 32 | u64::from(conn.slot);
        head[ProcessWord::CallbackConn as usize].store(conn, order);
        let callback = (u64::from(site) + 1) << 32 | u64::from(callback as u32);
        head[ProcessWord::Callback as usize].store(callback, order);
    }

    /// Enters that it has ended.
    #[inline]
    pub(crate) fn leave(&self) {
        self.set(ProcessWord::Callback, 0);
    }

    /// Enters for a process that has ended what it could not enter itself: its state, and that it holds no connection.
    pub fn end(&self, state: u64) {
        self.set(ProcessWord::State, state);
        for listener in 0..self.listeners {
            self.listener(listener).set(ListenerWord::Open, 0);
        }
    }

    /// How many listeners there is room for.
    #[must_use]
    pub fn listeners(&self) -> usize {
        self.listeners
    }

    /// The counters of a listener.
    ///
    /// # Panics
    ///
    /// When there is no such listener.
    #[must_use]
    pub fn listener(&self, listener: usize) -> ListenerMetrics {
        assert!(listener < self.listeners, "listener {listener} of {}", self.listeners);
        ListenerMetrics {
            words: Arc::clone(&self.words),
            base: self.base + HEAD_WORDS + listener * self.listener_words,
            len: self.listener_words,
        }
    }
}

#[expect(clippy::cast_possible_truncation, reason = "the upper half is taken by `upper`")]
const fn lower(word: u64) -> u32 {
    word as u32
}

const fn upper(word: u64) -> u32 {
    (word >> 32) as u32
}

/// In nanoseconds; u64 reaches for centuries.
#[inline]
fn nanos(time: Duration) -> u64 {
    time.as_secs().saturating_mul(1_000_000_000).saturating_add(time.subsec_nanos().into())
}

/// Counts a turn in the head of its process.
#[inline]
fn record_turn(head: &[AtomicU64; HEAD_WORDS], took: Duration) {
    let ns = nanos(took);
    add(&head[TURNS_AT + TurnHistogram::bucket(ns)], 1);
    add(&head[TURNS_SUM_AT], ns);
}

/// A word has one writer, so no update is lost without a locked instruction.
#[inline]
fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests;
