//! Start, READY, death and restart.

use super::*;

#[test]
fn the_start_is_in_order() {
    let mut bench = Bench::new();
    assert_eq!(bench.supervisor.poll_timeout(), None);
    assert_eq!(bench.on(Event::Start), [Order::Spawn { child: LOG }]);
    assert_eq!(bench.on(Event::Spawned { child: LOG, pid: 1 }), []);
    assert_eq!(bench.on(Event::Ready { child: LOG }), [Order::Spawn { child: A }, Order::Spawn { child: B }]);
    bench.on(Event::Spawned { child: A, pid: 2 });
    assert_eq!(bench.on(Event::Ready { child: A }), []);
    bench.on(Event::Spawned { child: B, pid: 3 });
    assert_eq!(bench.on(Event::Ready { child: B }), [Order::AnnounceReady]);
    assert_eq!(bench.supervisor.poll_timeout(), None, "nothing to wait for when all is well");
}

#[test]
fn a_late_log_server_is_not_waited_for_without_end() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.on(Event::Spawned { child: LOG, pid: 1 });
    assert_eq!(bench.wait(secs(10)), [Order::Spawn { child: A }, Order::Spawn { child: B }]);
    bench.up(A);
    assert_eq!(bench.up(B), [Order::AnnounceReady]);
    assert_eq!(bench.wait(secs(20)), [Order::Kill { child: LOG }]);
    assert_eq!(bench.died(LOG, KILLED), [Order::Spawn { child: LOG }]);
}

#[test]
fn a_worker_that_served_is_started_again_at_once() {
    let mut bench = Bench::of(1, false, quiet()).run();
    bench.pass(secs(1));
    let orders = bench.all(Event::Exited { child: A, status: KILLED });
    let reports = [
        Order::Report(Report::Exited { child: A, pid: 1, status: KILLED, expected: false }),
        Order::Report(Report::Restart {
            child: A,
            delay: Duration::ZERO,
            early_deaths: 0,
            last_exit: Some(KILLED),
        }),
        Order::Spawn { child: A },
    ];
    assert_eq!(orders, reports);
    let child = bench.supervisor.child(A).unwrap();
    assert_eq!((child.restarts, child.last_exit, child.pid), (1, Some(KILLED), None));
    assert_eq!(bench.up(A), [], "ready is announced once");
}

#[test]
fn a_crash_loop_is_slowed_down_until_a_child_serves_again() {
    let mut bench = Bench::of(1, false, quiet()).run();
    assert_eq!(bench.died(A, KILLED), [Order::Spawn { child: A }], "the first time is free");
    for delay in [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000] {
        bench.on(Event::Spawned { child: A, pid: 7 });
        assert_eq!(bench.died(A, ExitStatus::Code(101)), []);
        assert_eq!(bench.wait(millis(delay)), [Order::Spawn { child: A }]);
    }
    // READY, but not for long enough.
    bench.up(A);
    bench.pass(millis(499));
    assert_eq!(bench.died(A, KILLED), []);
    assert_eq!(bench.wait(secs(10)), [Order::Spawn { child: A }]);
    bench.up(A);
    bench.pass(millis(500));
    assert_eq!(bench.died(A, KILLED), [Order::Spawn { child: A }]);
}

#[test]
fn a_failed_spawn_counts_as_an_early_death() {
    let mut bench = Bench::of(1, false, quiet()).run();
    bench.pass(secs(1));
    assert_eq!(bench.died(A, KILLED), [Order::Spawn { child: A }]);
    assert_eq!(bench.on(Event::SpawnFailed { child: A }), [Order::Spawn { child: A }]);
    assert_eq!(bench.on(Event::SpawnFailed { child: A }), []);
    assert_eq!(bench.wait(millis(100)), [Order::Spawn { child: A }]);
}

#[test]
fn a_worker_that_is_not_ready_in_time_is_replaced() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    bench.died(B, KILLED);
    bench.on(Event::Spawned { child: B, pid: 9 });
    assert_eq!(bench.wait(secs(30)), [Order::Kill { child: B }]);
    assert_eq!(bench.wait(secs(5)), [Order::Kill { child: B }], "until it has ended");
    assert_eq!(bench.died(B, KILLED), [Order::Spawn { child: B }]);
}

#[test]
fn a_wrong_configuration_ends_the_start_with_its_code() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.up(LOG);
    bench.on(Event::Spawned { child: A, pid: 5 });
    bench.on(Event::Spawned { child: B, pid: 6 });
    let orders = bench.died(A, ExitStatus::Code(2));
    assert_eq!(orders, [Order::AnnounceStop, Order::Stop { child: B }]);
    let orders = bench.died(B, DONE);
    assert_eq!(orders, [Order::WorkersGone, quit(LOG, secs(2))]);
    assert_eq!(bench.died(LOG, DONE), [Order::Finish { code: 2 }]);
}

#[test]
fn a_child_that_says_that_it_cannot_serve_ends_the_start_too() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.up(LOG);
    bench.on(Event::Spawned { child: A, pid: 5 });
    bench.on(Event::Spawned { child: B, pid: 6 });
    bench.died(A, ExitStatus::Code(1));
    bench.died(B, DONE);
    assert_eq!(bench.died(LOG, DONE), [Order::Finish { code: 1 }]);
}

#[test]
fn that_code_later_is_a_death_like_any_other() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    bench.died(A, KILLED);
    bench.on(Event::Spawned { child: A, pid: 5 });
    assert_eq!(bench.died(A, ExitStatus::Code(2)), [Order::Spawn { child: A }]);
}

#[test]
fn a_start_that_cannot_spawn_fails() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    let orders = bench.on(Event::SpawnFailed { child: LOG });
    assert_eq!(orders, [Order::AnnounceStop, Order::WorkersGone, Order::Finish { code: 1 }]);
}

#[test]
fn a_log_server_signalled_alone_is_stopped_and_started_again() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    bench.on(Event::Signalled { child: LOG });
    assert_eq!(bench.wait(millis(100)), [Order::Stop { child: LOG }]);
    assert_eq!(bench.died(LOG, DONE), [Order::Spawn { child: LOG }]);
}

#[test]
fn a_worker_signalled_alone_has_a_neighbour_accept_while_it_ends() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    bench.on(Event::Signalled { child: A });
    let orders = bench.wait(millis(100));
    assert_eq!(orders[0], Order::Quit { child: A, timeout: Some(quiet().shutdown_timeout) });
    assert_eq!(orders[1], Order::Cover { absent: A, slot: 0, by: B });
    assert_eq!(bench.died(A, DONE), [Order::Spawn { child: A }]);
}

#[test]
fn logs_are_reopened_by_everyone_that_runs() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    bench.died(B, KILLED);
    assert_eq!(
        bench.on(Event::Signal(Signal::USR1)),
        [Order::Reopen { child: LOG }, Order::Reopen { child: A }]
    );
}

#[test]
fn a_signal_without_a_meaning_is_told() {
    let mut bench = Bench::running();
    assert_eq!(bench.all(Event::Signal(Signal::ALARM)), [Order::Report(Report::Unsupported(Signal::ALARM))]);
}

#[test]
fn events_that_do_not_fit_change_nothing() {
    let mut bench = Bench::running();
    for child in [A, ChildId(3), ChildId(u32::MAX)] {
        assert_eq!(bench.all(Event::Spawned { child, pid: 77 }), []);
        assert_eq!(bench.all(Event::SpawnFailed { child }), []);
        assert_eq!(bench.all(Event::Ready { child }), []);
    }
    assert_eq!(bench.all(Event::Exited { child: ChildId(3), status: DONE }), []);
    assert_eq!(bench.all(Event::Signalled { child: ChildId(3) }), []);
    assert_eq!(bench.all(Event::Start), []);
    assert_eq!(bench.supervisor.child(A).unwrap().pid, Some(1));
}

#[test]
fn without_children_there_is_nothing_to_wait_for() {
    let mut supervisor = Supervisor::new([], Crew::default(), Limits::default());
    supervisor.handle(Event::Start, Instant::from_nanos(0));
    assert_eq!(supervisor.poll_order(), Some(Order::AnnounceReady));
    assert_eq!(supervisor.poll_order(), None);
}
