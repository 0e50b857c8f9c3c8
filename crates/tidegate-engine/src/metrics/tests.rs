//! The layout of the words, and what several processes count in them.

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
