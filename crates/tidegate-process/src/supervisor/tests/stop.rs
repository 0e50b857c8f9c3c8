//! The stop of all.

use super::*;

#[test]
fn a_fast_stop_ends_workers_then_the_log_server() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bench = Bench::running();
        let orders = bench.on(Event::Signal(signal));
        assert_eq!(orders, [Order::AnnounceStop, Order::Stop { child: A }, Order::Stop { child: B }]);
        assert_eq!(bench.died(A, DONE), []);
        assert_eq!(bench.wait(secs(2)), [Order::Kill { child: B }]);
        let orders = bench.died(B, KILLED);
        assert_eq!(orders, [Order::WorkersGone, quit(LOG, secs(2))]);
        assert_eq!(bench.wait(secs(3)), [Order::Stop { child: LOG }]);
        assert_eq!(bench.wait(secs(2)), [Order::Kill { child: LOG }]);
        assert_eq!(bench.died(LOG, KILLED), [Order::Finish { code: 0 }]);
        assert_eq!(bench.supervisor.poll_timeout(), None);
    }
}

#[test]
fn a_graceful_stop_gives_time_and_then_gets_harder() {
    let mut bench = Bench::running();
    let orders = bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(orders, [Order::AnnounceStop, quit(A, secs(30)), quit(B, secs(30))]);
    assert_eq!(bench.on(Event::Signal(Signal::QUIT)), [], "once is enough");
    assert_eq!(bench.died(B, DONE), []);
    assert_eq!(bench.wait(secs(31)), [Order::Stop { child: A }]);
    assert_eq!(bench.wait(secs(2)), [Order::Kill { child: A }]);
    assert_eq!(bench.died(A, KILLED)[0], Order::WorkersGone);
    assert_eq!(bench.died(LOG, DONE), [Order::Finish { code: 0 }]);
}

#[test]
fn a_second_signal_makes_a_graceful_stop_fast() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(bench.on(Event::Signal(Signal::TERM)), [Order::Stop { child: A }, Order::Stop { child: B }]);
    assert_eq!(bench.on(Event::Signal(Signal::QUIT)), [], "there is no way back");
}

#[test]
fn a_signal_to_a_whole_group_is_no_crash() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    // The log server was signalled as well, and asks; before its time is up the master's own signal arrives.
    assert_eq!(bench.on(Event::Signalled { child: LOG }), []);
    bench.pass(millis(50));
    bench.on(Event::Signal(Signal::TERM));
    bench.died(A, DONE);
    assert_eq!(bench.died(B, DONE)[0], Order::WorkersGone);
    assert_eq!(bench.supervisor.poll_timeout(), Some(bench.now + secs(3)), "nothing else is waited for");
}

#[test]
fn a_stop_before_the_start_just_ends() {
    let mut bench = Bench::new();
    let orders = bench.on(Event::Signal(Signal::TERM));
    assert_eq!(orders, [Order::AnnounceStop, Order::WorkersGone, Order::Finish { code: 0 }]);
    assert_eq!(bench.on(Event::Start), []);
}

#[test]
fn a_child_whose_start_is_under_way_is_stopped_when_it_runs() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.up(LOG);
    assert_eq!(bench.on(Event::Signal(Signal::TERM)), [Order::AnnounceStop]);
    assert_eq!(bench.on(Event::SpawnFailed { child: B }), []);
    assert_eq!(bench.on(Event::Spawned { child: A, pid: 9 }), [Order::Stop { child: A }]);
    assert_eq!(bench.on(Event::Ready { child: A }), [], "too late");
    assert_eq!(bench.died(A, DONE)[0], Order::WorkersGone);
}

#[test]
fn what_was_retired_has_no_more_time_than_the_others() {
    let mut bench = Bench::of(1, false, quiet()).run();
    bench.reloaded(2, Crew { workers: 1, acceptor: false });
    bench.pass(secs(100));
    let orders = bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(orders, [Order::AnnounceStop, quit(A, secs(30)), quit(B, secs(30))]);
    bench.died(B, DONE);
    assert_eq!(bench.wait(secs(31)), [Order::Stop { child: A }]);
    assert_eq!(bench.died(A, DONE)[..2], [Order::Forget { generation: 1 }, Order::WorkersGone]);
}

#[test]
fn an_acceptor_ends_before_its_workers_are_told_in_a_graceful_stop() {
    let mut bench = Bench::of(1, true, quiet()).run();
    assert_eq!(bench.on(Event::Signal(Signal::QUIT)), [Order::AnnounceStop, quit(B, secs(2))]);
    bench.now += secs(1);
    assert_eq!(bench.died(B, DONE), [quit(A, secs(29))], "what is left of the time");

    let mut bench = Bench::of(1, true, quiet()).run();
    bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(bench.on(Event::Signal(Signal::TERM)), [Order::Stop { child: A }, Order::Stop { child: B }]);
}
