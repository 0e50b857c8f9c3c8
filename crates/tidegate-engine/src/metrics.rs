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

mod latency;
mod turns;

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tidegate_reactor::Token;

pub use latency::LatencyHistogram;
pub use turns::TurnHistogram;

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

/// Words of a process that belong to no listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ProcessWord {
    /// Process id; 0: the place is free.
    Pid = 0,
    /// 0 master, 1 log server, 2 worker, 3 acceptor, 4 process of the program's own.
    Role = 1,
    /// The number of a worker.
    Index = 2,
    /// The configuration's generation.
    Generation = 3,
    /// 0 starting, 1 ready, 2 retiring, 3 ended.
    State = 4,
    /// Start, in seconds since 1970.
    StartedUnix = 5,
    /// Turns of the event loop.
    LoopTurns = 6,
    /// Work for connections that were gone, dropped by generation.
    StaleHandles = 7,
    /// Times that accepting failed for want of descriptors or memory.
    AcceptExhausted = 8,
    /// Panics caught in callbacks.
    Panics = 9,
    /// Log records dropped by this process's log client.
    LogDropped = 10,
    /// How often the process in this place was started again.
    Restarts = 11,
    /// When the present turn of the loop began, in nanoseconds of the monotonic clock; 0 while it waits.
    TurnSince = 12,
    /// The callback that runs: the listener's number and one in the upper half, the callback's in the lower; 0 for none.
    Callback = 13,
    /// The connection that it runs for: generation in the upper half, slot in the lower.
    CallbackConn = 14,
    /// Turns that took longer than `engine.stall_after`, entered by whoever watches the loop.
    Stalls = 15,
    /// Bytes of the stack of the thread that runs the loop.
    ThreadStack = 16,
    /// The number of that thread in /proc/PID/task; 0 before it is known.
    Tid = 17,
    /// Bytes that the connections of the loop hold in memory: see [`Budget`](crate::Budget).
    BufferBytes = 18,
    /// Times that accepting was stopped because these came near a limit.
    AcceptsHeld = 19,
    /// 0, or 1 for a worker that replaces another which still drains.
    Seat = 20,
    /// Twice how often the master has moved what ended processes had counted elsewhere; odd while it does.
    Moves = 21,
    /// Messages and descriptors that were handed over and are no connections.
    HandoverErrors = 24,
}

/// The callbacks of a service, as [`ProcessMetrics::running_callback`] names them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Callback {
    Open = 0,
    Message = 1,
    Note = 2,
    Timer = 3,
    Drained = 4,
    Deadline = 5,
    Eof = 6,
    Retire = 7,
    Close = 8,
    ConnectFailed = 9,
    Datagram = 10,
    Sent = 11,
}

impl Callback {
    /// The name of the trait's method.
    pub(crate) const fn name(self) -> &'static str {
        NAMES[self as usize]
    }
}

const NAMES: [&str; 12] = [
    "on_open",
    "decode or on_message",
    "on_note",
    "on_timer",
    "on_drained",
    "on_deadline",
    "on_eof",
    "on_retire",
    "on_close",
    "on_connect_failed",
    "on_datagram",
    "on_sent",
];

/// What a loop is in, as another thread or process sees it: only roughly the same moment for all of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RunningCallback {
    /// The number of the listener, in the order in which they were given to the builder.
    pub listener: usize,
    /// The method of its service.
    pub callback: &'static str,
    /// The slot and the generation of the connection.
    pub conn: (u32, u32),
}

/// General words of a listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub enum ListenerWord {
    /// Connections accepted.
    Accepted = 0,
    /// Connections open now.
    Open = 1,
    /// Bytes received.
    BytesIn = 2,
    /// Bytes that the kernel took for sending.
    BytesOut = 3,
    /// Complete messages handled.
    Messages = 4,
    /// Peers refused for want of descriptors.
    Overloaded = 5,
    /// Connections lost while they waited to be accepted.
    AcceptLost = 6,
    /// Connections whose peer ended first: its FIN or its reset was seen before the server had ended its side.
    ClosedByPeer = 7,
    /// Connections that the server ended first.
    ClosedByServer = 8,
    /// Outgoing connections that were asked for.
    Connects = 9,
    /// Those of them that could not be had.
    ConnectFailures = 10,
    /// Handshakes of TLS that were done. Those that were not are closes for a reason of theirs.
    Handshakes = 11,
    /// Datagrams handled.
    DatagramsIn = 12,
    /// Datagrams that the kernel took for sending.
    DatagramsOut = 13,
    /// Datagrams that were to be sent and were not: there was no room, or the kernel refused them.
    DatagramsDropped = 14,
    /// Datagrams that were longer than what is received of one, and thrown away.
    DatagramsTruncated = 15,
    /// Handshakes of TLS that went on from an earlier connection.
    HandshakesResumed = MORE_AT,
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
        let ns = nanos(took);
        let head = &self.words.words()[self.base..self.base + HEAD_WORDS];
        add(&head[TURNS_AT + TurnHistogram::bucket(ns)], 1);
        add(&head[TURNS_SUM_AT], ns);
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
        self.set(ProcessWord::CallbackConn, u64::from(conn.generation) << 32 | u64::from(conn.slot));
        self.set(ProcessWord::Callback, (u64::from(site) + 1) << 32 | u64::from(callback as u32));
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

/// The counters of one listener in one process.
#[derive(Clone, Debug)]
pub struct ListenerMetrics {
    words: Arc<dyn Words>,
    base: usize,
    /// How many words there are.
    len: usize,
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

/// A word has one writer, so no update is lost without a locked instruction.
#[inline]
fn add(word: &AtomicU64, n: u64) {
    word.store(word.load(Ordering::Relaxed).wrapping_add(n), Ordering::Relaxed);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_running_callback_is_named_while_it_runs() {
        let process = Metrics::on_heap(3).process(0);
        assert_eq!(process.running_callback(), None);
        process.enter(2, Callback::Eof, Token { slot: 7, generation: u32::MAX });
        let running = RunningCallback { listener: 2, callback: "on_eof", conn: (7, u32::MAX) };
        assert_eq!(process.running_callback(), Some(running));
        process.leave();
        assert_eq!(process.running_callback(), None);
    }

    #[test]
    fn turns_are_counted_and_forgotten_with_the_process() {
        let metrics = Metrics::on_heap_for(2, 1);
        let (process, other) = (metrics.process(0), metrics.process(1));
        for took in [Duration::ZERO, Duration::from_micros(10), Duration::from_micros(11), Duration::MAX] {
            process.record_turn(took);
        }
        let turns = process.turns();
        assert_eq!((turns.counts[0], turns.counts[1], turns.counts[11]), (2, 1, 1));
        assert_eq!(turns.counts.iter().sum::<u64>(), 4);
        process.record_turn(Duration::from_nanos(1));
        // The sum wraps, as every counter does; a reader takes it for a restart.
        assert_eq!(process.turns().sum_ns, 21_000u64.wrapping_add(u64::MAX).wrapping_add(1));
        assert_eq!(other.turns().counts, [0; 12]);
        assert_eq!(other.listener(0).get(ListenerWord::Accepted), 0);
        process.begin();
        assert_eq!(process.turns(), other.turns());
    }

    #[test]
    fn what_is_absorbed_is_counted_once_and_open_connections_stay() {
        let metrics = Metrics::on_heap_for(2, 1);
        let (carried, ended) = (metrics.process(0).listener(0), metrics.process(1).listener(0));
        carried.add(ListenerWord::Accepted, 5);
        ended.add(ListenerWord::Accepted, 7);
        ended.add_service(3, 2);
        ended.set(ListenerWord::Open, 1);
        carried.absorb(&ended);
        carried.absorb(&ended);
        assert_eq!((carried.get(ListenerWord::Accepted), carried.service(3)), (12, 2));
        assert_eq!((ended.get(ListenerWord::Accepted), ended.get(ListenerWord::Open)), (0, 1));
    }

    #[test]
    fn what_another_version_counted_is_read_where_it_is() {
        let words = 2 * (HEAD_WORDS + 2 * MIN_LISTENER_WORDS);
        let block: Box<[AtomicU64]> = (0..words).map(|_| AtomicU64::new(0)).collect();
        let block: Arc<dyn Words> = Arc::new(block);
        let old = Metrics::new(Arc::clone(&block), 2).with_listener_words(0);
        assert_eq!(old.processes(), 2);
        old.process(1).set(ProcessWord::Pid, 9);
        let at = HEAD_WORDS + 2 * MIN_LISTENER_WORDS;
        assert_eq!(block.words()[at].load(Ordering::Relaxed), 9);
        let last = old.process(1).listener(1);
        last.add(ListenerWord::Accepted, 3);
        last.record_latency(Duration::from_secs(1), 1);
        assert_eq!(last.latency(), LatencyHistogram::EMPTY);
        let carried = Metrics::on_heap(1).process(0).listener(0);
        carried.record_latency(Duration::from_micros(5), 4);
        carried.absorb(&last);
        assert_eq!((carried.get(ListenerWord::Accepted), carried.latency().total()), (3, 4));
    }

    #[test]
    fn latencies_are_counted_by_their_weight_and_absorbed() {
        let metrics = Metrics::on_heap_for(2, 2);
        let (carried, ended) = (metrics.process(0).listener(1), metrics.process(1).listener(1));
        ended.record_latency(Duration::from_micros(4), 1);
        ended.record_latency(Duration::from_micros(9), 64);
        ended.record_latency(Duration::MAX, 1);
        carried.absorb(&ended);
        let took = carried.latency();
        assert_eq!((took.counts[0], took.counts[2], took.counts[22], took.total()), (1, 64, 1, 66));
        assert_eq!(ended.latency(), LatencyHistogram::EMPTY);
        let other = metrics.process(1).listener(0);
        assert_eq!((other.latency(), other.service(MAX_SERVICE_COUNTERS - 1)), (LatencyHistogram::EMPTY, 0));
    }

    #[test]
    fn places_do_not_overlap() {
        let block: Box<[AtomicU64]> = (0..Metrics::words_needed(2, 2)).map(|_| AtomicU64::new(0)).collect();
        let metrics = Metrics::new(Arc::new(block), 2);
        assert_eq!(metrics.processes(), 2);
        for process in 0..2 {
            metrics.process(process).set(ProcessWord::Pid, 10 + process as u64);
            for listener in 0..2 {
                let counters = metrics.process(process).listener(listener);
                counters.add(ListenerWord::Accepted, (process * 2 + listener) as u64);
                counters.add_closed(Reason::custom(63));
                counters.add_service(MAX_SERVICE_COUNTERS - 1, 7);
            }
        }
        for process in 0..2 {
            assert_eq!(metrics.process(process).get(ProcessWord::Pid), 10 + process as u64);
            for listener in 0..2 {
                let counters = metrics.process(process).listener(listener);
                assert_eq!(counters.get(ListenerWord::Accepted), (process * 2 + listener) as u64);
                assert_eq!(counters.closed(Reason::custom(63)), 1);
                assert_eq!(counters.service(MAX_SERVICE_COUNTERS - 1), 7);
            }
        }
    }
}
