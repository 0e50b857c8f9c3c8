//! Reload and replace: all of it or nothing.

use super::*;

const RELOAD: Operation = Operation::Reload;

#[test]
fn a_new_generation_serves_before_the_old_one_is_told_to_quit() {
    let mut bench = Bench::running();
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), [Order::Prepare { generation: 2 }]);
    assert_eq!(bench.supervisor.operation(), Some(RELOAD));
    let orders = bench.on(Event::Prepared { generation: 2, crew: TWO });
    assert_eq!(orders, [Order::Spawn { child: C }, Order::Spawn { child: D }]);
    assert_eq!(bench.up(C), []);
    assert_eq!((bench.slot(C).generation, bench.slot(C).role), (2, Role::Worker(0)));
    assert_eq!(bench.supervisor.generation(), 1);
    assert_eq!(bench.up(D), [Order::Commit { generation: 2 }, done(RELOAD, 2), drain(A), drain(B)]);
    assert_eq!((bench.supervisor.generation(), bench.supervisor.operation()), (2, None));
    assert!(bench.slot(A).is_retired && !bench.slot(C).is_retired);
    assert_eq!(bench.supervisor.poll_timeout(), None, "they may take as long as their clients do");
    assert_eq!(bench.died(A, DONE), []);
    assert_eq!(
        bench.died(B, KILLED),
        [Order::Forget { generation: 1 }],
        "retired workers are not started again"
    );
    assert_eq!(bench.died(C, KILLED)[1], Order::Spawn { child: C });
}

#[test]
fn a_drain_with_a_limit_gets_harder() {
    let mut bench = Bench::of(1, false, Limits { drain_timeout: Some(secs(9)), ..quiet() }).run();
    assert_eq!(bench.reloaded(2, Crew { workers: 1, acceptor: false })[2], quit(A, secs(9)));
    assert_eq!(bench.wait(secs(10)), [Order::Stop { child: A }]);
    assert_eq!(bench.wait(secs(2)), [Order::Kill { child: A }]);
    assert_eq!(bench.died(A, KILLED), [Order::Forget { generation: 1 }]);
}

#[test]
fn a_refused_configuration_changes_nothing() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    let orders = bench.on(Event::PrepareFailed { generation: 2 });
    assert_eq!(orders, [failed(RELOAD, Why::Prepare), Order::Forget { generation: 2 }]);
    assert_eq!(
        bench.on(Event::Signal(Signal::HUP)),
        [Order::Prepare { generation: 3 }],
        "numbers are not used again"
    );
}

#[test]
fn a_child_that_dies_on_trial_fails_the_reload() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    bench.up(C);
    bench.spawned(D);
    let why = Why::Child { child: D, status: Some(KILLED) };
    // What was READY has accepted, and its clients are not cut off.
    assert_eq!(bench.died(D, KILLED), [failed(RELOAD, why), drain(C)]);
    assert_eq!(bench.died(C, DONE), [Order::Forget { generation: 2 }]);
    assert!(bench.supervisor.child(C).is_some(), "a child that is gone is known until the next turn");
    bench.pass(secs(1));
    assert_eq!(bench.supervisor.children().count(), 3);
    assert!(!bench.slot(A).is_retired && bench.slot(A).state == State::Ready);
}

#[test]
fn a_child_that_cannot_be_spawned_fails_the_reload() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    let orders = bench.on(Event::SpawnFailed { child: C });
    assert_eq!(orders, [failed(RELOAD, Why::Child { child: C, status: None })]);
    assert_eq!(bench.spawned(D), [Order::Stop { child: D }]);
    assert_eq!(bench.wait(secs(2)), [Order::Kill { child: D }]);
    assert_eq!(bench.died(D, KILLED), [Order::Forget { generation: 2 }]);
}

#[test]
fn a_child_that_is_never_ready_fails_the_reload() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    bench.up(C);
    bench.spawned(D);
    let why = Why::Child { child: D, status: None };
    assert_eq!(bench.wait(secs(30)), [failed(RELOAD, why), drain(C), Order::Stop { child: D }]);
}

#[test]
fn a_storm_of_requests_leaves_one_reload_to_do() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    for turn in 0..100 {
        let orders = bench.all(Event::Signal(Signal::HUP));
        assert_eq!(orders.len(), usize::from(turn == 0), "told once that it waits: {orders:?}");
    }
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    bench.up(C);
    let orders = bench.up(D);
    assert_eq!(
        orders[..3],
        [Order::Commit { generation: 2 }, done(RELOAD, 2), Order::Prepare { generation: 3 }]
    );
    let orders = bench.on(Event::PrepareFailed { generation: 3 });
    assert_eq!(orders, [failed(RELOAD, Why::Prepare), Order::Forget { generation: 3 }]);
}

#[test]
fn a_reload_beyond_the_limit_waits_for_the_oldest_to_end() {
    let mut bench = Bench::of(1, false, Limits { max_generations: 2, ..quiet() }).run();
    bench.reloaded(2, Crew { workers: 1, acceptor: false });
    assert_eq!(bench.all(Event::Signal(Signal::HUP)), [Order::Report(Report::Waits(RELOAD))]);
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), []);
    let orders = bench.died(A, DONE);
    assert_eq!(orders, [Order::Forget { generation: 1 }, Order::Prepare { generation: 3 }]);
}

#[test]
fn a_request_during_the_start_is_done_after_it() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.up(LOG);
    bench.up(A);
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), []);
    assert_eq!(bench.up(B), [Order::AnnounceReady, Order::Prepare { generation: 2 }]);
}

#[test]
fn a_worker_that_waits_for_its_restart_is_gone_at_the_commit() {
    let mut bench = Bench::running();
    bench.died(A, KILLED);
    bench.on(Event::SpawnFailed { child: A });
    assert!(matches!(bench.slot(A).state, State::Waiting { .. }), "{:?}", bench.slot(A));
    let orders = bench.reloaded(2, TWO);
    assert_eq!(orders, [Order::Commit { generation: 2 }, done(RELOAD, 2), drain(B)]);
    assert_eq!(bench.supervisor.poll_timeout(), None);
}

#[test]
fn an_acceptor_ends_before_its_workers_are_told() {
    let crew = Crew { workers: 2, acceptor: true };
    let mut bench = Bench::of(2, true, quiet()).run();
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), [Order::Prepare { generation: 2 }]);
    assert_eq!(
        bench.on(Event::Prepared { generation: 2, crew }),
        [4, 5].map(|id| Order::Spawn { child: ChildId(id) })
    );
    assert_eq!(bench.up(D), []);
    assert_eq!(
        bench.up(E),
        [Order::Spawn { child: F }],
        "it accepts when all serve to whom it may hand over"
    );
    let acceptor = C;
    let orders = bench.up(F);
    assert_eq!(orders, [Order::Commit { generation: 2 }, done(RELOAD, 2), quit(acceptor, secs(2))]);
    assert_eq!(bench.wait(secs(3)), [Order::Stop { child: acceptor }]);
    assert_eq!(bench.wait(secs(2)), [Order::Kill { child: acceptor }]);
    // Who answers now reads what it has left.
    assert_eq!(bench.died(acceptor, KILLED), [A, B].map(|child| Order::Ping { child }));
    assert_eq!(bench.on(Event::Pong { child: B }), []);
    assert_eq!(bench.on(Event::Pong { child: A }), [drain(A), drain(B)]);
    bench.died(A, DONE);
    assert_eq!(bench.died(B, DONE), [Order::Forget { generation: 1 }]);
}

/// Two workers whose acceptor is told to end.
fn with_an_acceptor_that_ends() -> Bench {
    let crew = Crew { workers: 2, acceptor: true };
    let mut bench = Bench::of(2, true, quiet()).run();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew });
    bench.up(D);
    bench.up(E);
    assert!(bench.up(F).contains(&quit(C, secs(2))));
    bench
}

#[test]
fn what_an_acceptor_left_for_a_worker_that_does_not_answer_is_read_by_its_neighbour() {
    let mut bench = with_an_acceptor_that_ends();
    bench.died(C, DONE);
    assert_eq!(bench.on(Event::Pong { child: A }), []);
    let cover = Order::Cover { absent: B, slot: 1, by: A };
    assert_eq!(bench.wait(Limits::default().ping_timeout), [cover, drain(A), drain(B)]);
}

#[test]
fn what_an_acceptor_left_for_a_worker_that_has_died_is_read_by_its_neighbour() {
    let mut bench = with_an_acceptor_that_ends();
    let cover = Order::Cover { absent: B, slot: 1, by: A };
    assert_eq!(bench.died(B, KILLED), [cover]);
    assert_eq!(bench.died(C, DONE), [Order::Ping { child: A }]);
    assert_eq!(bench.on(Event::Pong { child: A }), [drain(A)]);
}

#[test]
fn an_answer_from_before_the_acceptor_ended_is_not_enough() {
    let crew = Crew { workers: 1, acceptor: true };
    let mut bench = Bench::of(1, true, Limits::default()).run();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew });
    let pings = bench.wait(Limits::default().ping_interval);
    assert!(pings.contains(&Order::Ping { child: A }));
    bench.up(C);
    assert!(bench.up(D).contains(&quit(B, secs(2))));
    assert_eq!(bench.died(B, DONE), []);
    assert_eq!(bench.on(Event::Pong { child: A }), [Order::Ping { child: A }]);
    assert_eq!(bench.on(Event::Pong { child: A }), [drain(A)]);
}

#[test]
fn workers_may_become_fewer_and_none() {
    let mut bench = Bench::running();
    let orders = bench.reloaded(2, Crew { workers: 1, acceptor: false });
    assert_eq!(orders, [Order::Commit { generation: 2 }, done(RELOAD, 2), drain(A), drain(B)]);
    let orders = bench.reloaded(3, Crew::default());
    assert_eq!(orders, [Order::Commit { generation: 3 }, done(RELOAD, 3), drain(C)]);
}

#[test]
fn workers_can_be_retired_without_any_in_their_place() {
    let mut bench = Bench::running();
    assert_eq!(bench.on(Event::Signal(Signal::WINCH)), [drain(A), drain(B)]);
    bench.died(A, DONE);
    assert_eq!(bench.died(B, DONE), [], "its plan is still the current one");
    assert!(bench.supervisor.is_running());
    assert_eq!(
        bench.reloaded(2, TWO),
        [Order::Commit { generation: 2 }, done(RELOAD, 2), Order::Forget { generation: 1 }]
    );
}

#[test]
fn the_last_word_counts_between_retiring_and_reloading() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Signal(Signal::WINCH));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    bench.up(C);
    let orders = bench.up(D);
    assert_eq!(orders[..2], [Order::Commit { generation: 2 }, done(RELOAD, 2)]);
    assert_eq!(
        orders[2..],
        [drain(A), drain(B), drain(C), drain(D)],
        "retired after the reload that came first"
    );
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Signal(Signal::WINCH));
    bench.on(Event::Signal(Signal::HUP));
    let orders = bench.on(Event::PrepareFailed { generation: 3 });
    assert_eq!(
        orders,
        [failed(RELOAD, Why::Prepare), Order::Forget { generation: 3 }, Order::Prepare { generation: 4 }]
    );
}

#[test]
fn a_worker_is_replaced_when_its_successor_serves() {
    let mut bench = Bench::running();
    let replace = Operation::Replace(A);
    assert_eq!(bench.on(Event::Replace { child: A }), [Order::Spawn { child: C }]);
    assert_eq!(bench.on(Event::Replace { child: A }), [], "shares the answer");
    assert_eq!(bench.on(Event::Replace { child: B }), [failed(Operation::Replace(B), Why::Busy)]);
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), [], "waits");
    assert_eq!(bench.up(C), [done(replace, 1), Order::Prepare { generation: 2 }, drain(A)]);
    assert_eq!(bench.slot(C).role, Role::Worker(0));
    assert_eq!(bench.died(A, DONE), []);
}

#[test]
fn a_worker_whose_successor_fails_serves_on() {
    let mut bench = Bench::running();
    bench.on(Event::Replace { child: A });
    bench.spawned(C);
    let why = Why::Child { child: C, status: Some(ExitStatus::Code(1)) };
    assert_eq!(bench.died(C, ExitStatus::Code(1)), [failed(Operation::Replace(A), why)]);
    bench.on(Event::Replace { child: A });
    bench.spawned(D);
    let why = Why::Child { child: D, status: None };
    assert_eq!(bench.wait(secs(30)), [Order::Stop { child: D }, failed(Operation::Replace(A), why)]);
    assert_eq!(bench.died(D, DONE), []);
    assert!(bench.slot(A).state == State::Ready && !bench.slot(A).is_retired);
}

#[test]
fn only_a_worker_that_is_meant_to_serve_can_be_replaced() {
    let mut bench = Bench::running();
    for child in [LOG, ChildId(77)] {
        let why = Why::Child { child, status: None };
        assert_eq!(bench.on(Event::Replace { child }), [failed(Operation::Replace(child), why)]);
    }
    bench.on(Event::Signal(Signal::TERM));
    assert_eq!(bench.on(Event::Replace { child: A }), [failed(Operation::Replace(A), Why::Stopping)]);
}

#[test]
fn a_stop_overtakes_what_is_under_way_and_what_waits() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    bench.up(C);
    bench.spawned(D);
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Signal(Signal::USR2));
    let expected = [
        Order::AnnounceStop,
        failed(RELOAD, Why::Stopping),
        failed(RELOAD, Why::Stopping),
        failed(Operation::Upgrade, Why::Stopping),
    ];
    let orders = bench.on(Event::Signal(Signal::TERM));
    assert_eq!(orders[..4], expected);
    assert_eq!(orders[4..], [A, B, C, D].map(|child| Order::Stop { child }));
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), [failed(RELOAD, Why::Stopping)], "each is answered");
    for child in [A, B, C] {
        bench.died(child, DONE);
    }
    assert_eq!(
        bench.died(D, DONE),
        [Order::Forget { generation: 2 }, Order::WorkersGone, quit(LOG, secs(2))]
    );
}
