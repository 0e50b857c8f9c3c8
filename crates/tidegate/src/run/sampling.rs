//! `Sampling`: enters once a second on the [`Board`] what the server has done.
//!
//! It reads shared counters and nothing else, so it is the same work whatever the processes are at. Invariant: its caller is
//! the only one that writes samples: the master, or the main thread of a server of one process.

use std::collections::HashMap;
use std::time::Duration;

use tidegate_engine::{ListenerWord, ProcessWord};

use super::watch::monotonic_ns;
use crate::board::Board;
use crate::history::{Rates, Sample};
use crate::status::{ProcessCounters, ROLE_WORKER, StatusSource, unix_time};

/// Whoever enters samples.
#[derive(Debug)]
pub(crate) struct Sampling {
    board: Board,
    /// What each process had counted, by its number.
    before: HashMap<u64, Counted>,
    /// When that was, in nanoseconds of the monotonic clock.
    at: u64,
}

/// What a process has counted.
#[derive(Clone, Copy, Debug, Default)]
struct Counted {
    requests: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// All turns of all its loops together, in nanoseconds.
    busy_ns: u64,
    loops: u64,
}

impl Sampling {
    /// How often it is done.
    pub(crate) const INTERVAL: Duration = Duration::from_secs(1);

    pub(crate) fn new(board: &Board) -> Self {
        Self { board: board.clone(), before: HashMap::new(), at: 0 }
    }

    /// How long it is until the next sample is due.
    pub(crate) fn due_in(&self) -> Duration {
        let next = self.at.saturating_add(nanos(Self::INTERVAL));
        Duration::from_nanos(next.saturating_sub(monotonic_ns()))
    }

    /// Enters a sample if it is time.
    pub(crate) fn look(&mut self, status: &StatusSource) {
        if self.due_in() <= SLACK {
            self.sample(status, monotonic_ns());
        }
    }

    fn sample(&mut self, status: &StatusSource, now: u64) {
        let elapsed = now.saturating_sub(self.at).max(1);
        let mut seen = HashMap::with_capacity(self.before.len());
        let mut rates = Vec::with_capacity(self.before.len());
        let (mut busy_ns, mut loops) = (0, 0);
        for process in status.started() {
            let pid = process.get(ProcessWord::Pid);
            let counted = Counted::of(&process);
            seen.insert(pid, counted);
            let Some(before) = self.before.get(&pid) else { continue };
            let is_worker = process.get(ProcessWord::Role) == ROLE_WORKER;
            let busy = counted.busy_ns.saturating_sub(before.busy_ns);
            if is_worker {
                busy_ns += busy;
                loops += counted.loops;
            }
            rates.push(Rates {
                pid,
                requests: per_second(counted.requests, before.requests, elapsed),
                bytes_in: per_second(counted.bytes_in, before.bytes_in, elapsed),
                bytes_out: per_second(counted.bytes_out, before.bytes_out, elapsed),
                busy_permille: permille(busy, elapsed, counted.loops),
            });
        }
        self.board.history().set_rates(&rates);
        let busy_permille = permille(busy_ns, elapsed, loops);
        self.board.history().push(&Sample { monotonic_ns: now, busy_permille, ..totals(status) });
        (self.before, self.at) = (seen, now);
    }
}

impl Counted {
    fn of(process: &ProcessCounters) -> Self {
        let mut counted = Self {
            requests: process.total(ListenerWord::Messages) + process.total(ListenerWord::DatagramsIn),
            bytes_in: process.total(ListenerWord::BytesIn),
            bytes_out: process.total(ListenerWord::BytesOut),
            ..Self::default()
        };
        for turns in process.loop_turns() {
            counted.busy_ns = counted.busy_ns.wrapping_add(turns.sum_ns);
            counted.loops += 1;
        }
        counted
    }
}

/// What all listeners of all generations have counted, but for the admin pages: they are what people look with.
fn totals(status: &StatusSource) -> Sample {
    let mut sample = Sample { unix_time: unix_time(), ..Sample::default() };
    for view in &status.generations {
        for place in (0..view.metrics.processes()).map(|place| view.metrics.process(place)) {
            sample.stalls += place.get(ProcessWord::Stalls);
            let listeners = view.listeners.iter().enumerate().filter(|(_, meta)| meta.service != ADMIN);
            for counts in listeners.map(|(index, _)| place.listener(index)) {
                sample.connections += counts.get(ListenerWord::Open);
                sample.accepted += counts.get(ListenerWord::Accepted);
                sample.requests += counts.get(ListenerWord::Messages) + counts.get(ListenerWord::DatagramsIn);
                sample.bytes_in += counts.get(ListenerWord::BytesIn);
                sample.bytes_out += counts.get(ListenerWord::BytesOut);
                sample.latency = sample.latency.plus(&counts.latency());
            }
        }
    }
    sample
}

/// What has come between two counts in so many nanoseconds, for a second. A process that began anew has less than before.
fn per_second(now: u64, before: u64, elapsed_ns: u64) -> u64 {
    let came = u128::from(now.saturating_sub(before)) * u128::from(NANOS);
    u64::try_from(came / u128::from(elapsed_ns)).unwrap_or(u64::MAX)
}

/// A turn that is under way is not counted, and then as a whole: so it is never more than all of the time.
fn permille(busy_ns: u64, elapsed_ns: u64, loops: u64) -> u64 {
    let all = u128::from(elapsed_ns) * u128::from(loops.max(1));
    u64::try_from(u128::from(busy_ns) * 1000 / all).unwrap_or(1000).min(1000)
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

const NANOS: u64 = 1_000_000_000;
/// Whoever looks every second may come a little early.
const SLACK: Duration = Duration::from_millis(100);
/// The service of the admin pages, in the configuration.
pub(crate) const ADMIN: &str = "admin";

#[cfg(test)]
#[cfg(feature = "full")]
mod tests {
    use std::sync::Arc;

    use tidegate_engine::{Metrics, ProcessMetrics};

    use super::*;
    use crate::layout::Layout;
    use crate::status::{ListenerMeta, View};
    use crate::tables::Tables;

    const LAYOUT: Layout = Layout { loops: 2, has_acceptor: false, is_permanent: false };

    /// A worker of two loops with a listener for people and one for the admin pages.
    fn source() -> StatusSource {
        let meta = |service: &str| ListenerMeta {
            name: service.to_owned(),
            address: String::new(),
            service: service.to_owned(),
            counters: &[],
        };
        let metrics = Metrics::on_heap_for(LAYOUT.places(1), 2);
        for (place, pid) in LAYOUT.of_worker(0, 0).zip([77, 77]) {
            metrics.process(place).set(ProcessWord::Pid, pid);
            metrics.process(place).set(ProcessWord::Role, ROLE_WORKER);
        }
        let listeners: Arc<[ListenerMeta]> = Arc::new([meta("web"), meta(ADMIN)]);
        let none = Metrics::on_heap_for(2, 0);
        let permanent = View {
            generation: 0,
            metrics: none,
            listeners: Arc::new([]),
            layout: Layout::PERMANENT,
            tables: Tables::default(),
        };
        let view = View { generation: 1, metrics, listeners, layout: LAYOUT, tables: Tables::default() };
        StatusSource { permanent, generations: vec![view], board: Board::on_heap() }
    }

    fn place(source: &StatusSource, number: usize) -> ProcessMetrics {
        source.generations[0].metrics.process(LAYOUT.of_worker(0, 0).start + number)
    }

    #[test]
    fn a_sample_has_what_all_loops_did_but_for_the_admin_pages() {
        let source = source();
        let board = source.board.clone().unwrap();
        let mut sampling = Sampling::new(&board);
        sampling.sample(&source, 5 * NANOS);
        assert_eq!(board.history().rates(77), None, "nothing is known of the time before");
        for number in [0, 1] {
            let place = place(&source, number);
            place.record_turn(Duration::from_millis(300));
            place.listener(0).record_latency(Duration::from_micros(7), 64);
            place.listener(1).record_latency(Duration::from_micros(7), 64);
            place.set(ProcessWord::Stalls, 3);
        }
        sampling.sample(&source, 7 * NANOS);
        let samples = board.history().samples();
        assert_eq!(samples.len(), 2);
        assert_eq!((samples[1].monotonic_ns, samples[1].stalls), (7 * NANOS, 6));
        assert_eq!(samples[1].latency.total(), 128);
        assert_eq!(samples[1].busy_permille, 150, "0.6 s of two loops in 2 s");
        assert_eq!(board.history().rates(77).unwrap().busy_permille, 150);
        // Another process in its place has nothing to be compared with.
        (0..2).for_each(|number| place(&source, number).set(ProcessWord::Pid, 78));
        sampling.sample(&source, 8 * NANOS);
        assert_eq!((board.history().rates(77), board.history().rates(78)), (None, None));
    }

    #[test]
    fn rates_are_for_a_second_and_never_more_than_all() {
        assert_eq!(per_second(150, 100, 2 * NANOS), 25);
        assert_eq!(per_second(100, 150, NANOS), 0);
        assert_eq!(per_second(u64::MAX, 0, 1), u64::MAX);
        assert_eq!(
            (permille(NANOS, NANOS, 2), permille(9 * NANOS, NANOS, 1), permille(0, 1, 0)),
            (500, 1000, 0)
        );
    }

    #[test]
    fn a_sample_is_due_a_second_after_the_last() {
        let source = source();
        let mut sampling = Sampling::new(source.board.as_ref().unwrap());
        assert!(sampling.due_in().is_zero());
        sampling.look(&source);
        let due = sampling.due_in();
        assert!(due <= Sampling::INTERVAL && !due.is_zero(), "{due:?}");
        sampling.look(&source);
        assert_eq!(source.board.unwrap().history().samples().len(), 1);
    }
}
