//! Upgrade: probe, take-over, and the way back.

use super::*;

const UPGRADE: Operation = Operation::Upgrade;

/// One that has passed its probe and is to be frozen.
fn leaving() -> Bench {
    let mut bench = Bench::running();
    assert_eq!(bench.on(Event::Signal(Signal::USR2)), [Order::Spawn { child: C }]);
    assert_eq!(bench.slot(C).role, Role::Probe);
    assert_eq!(bench.up(C), []);
    assert_eq!(bench.died(C, DONE), [Order::TakeOver]);
    bench
}

/// Goes on in another image; gives the orders of the beginning.
fn exec(bench: &mut Bench, as_: Thawed) -> Vec<Order> {
    let frozen = serde_json::to_string(&bench.supervisor.freeze()).unwrap();
    let frozen = serde_json::from_str(&frozen).unwrap();
    bench.supervisor = Supervisor::thaw(frozen, quiet(), as_, bench.now);
    bench.orders()
}

#[test]
fn the_new_image_goes_on_with_a_generation_of_its_own() {
    let mut bench = leaving();
    bench.now += millis(30);
    assert_eq!(exec(&mut bench, Thawed::New), [Order::Prepare { generation: 2 }]);
    assert_eq!(bench.supervisor.operation(), Some(UPGRADE));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    assert_eq!(bench.up(D), []);
    assert_eq!(bench.up(E), [Order::Commit { generation: 2 }, done(UPGRADE, 2), drain(A), drain(B)]);
    bench.died(A, DONE);
    assert_eq!(bench.died(B, DONE), [Order::Forget { generation: 1 }]);
}

#[test]
fn a_probe_that_fails_is_the_end_of_the_upgrade() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::USR2));
    let why = Why::Probe { status: None };
    assert_eq!(bench.on(Event::SpawnFailed { child: C }), [failed(UPGRADE, why)]);

    bench.on(Event::Signal(Signal::USR2));
    bench.spawned(D);
    let why = Why::Probe { status: Some(DONE) };
    assert_eq!(bench.died(D, DONE), [failed(UPGRADE, why)], "without READY its code says nothing");

    bench.on(Event::Signal(Signal::USR2));
    bench.up(E);
    let why = Why::Probe { status: Some(ExitStatus::Code(2)) };
    assert_eq!(bench.died(E, ExitStatus::Code(2)), [failed(UPGRADE, why)]);
}

#[test]
fn a_probe_has_one_time_for_all_that_it_does() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::USR2));
    bench.spawned(C);
    assert_eq!(
        bench.wait(secs(30)),
        [Order::Stop { child: C }, failed(UPGRADE, Why::Probe { status: None })]
    );
    bench.died(C, DONE);

    bench.on(Event::Signal(Signal::USR2));
    bench.spawned(D);
    bench.pass(secs(20));
    bench.on(Event::Ready { child: D });
    assert_eq!(bench.wait(secs(10)), [Order::Stop { child: D }], "it does not end");
    let why = Why::Probe { status: Some(DONE) };
    assert_eq!(bench.died(D, DONE), [failed(UPGRADE, why)]);
}

#[test]
fn a_binary_that_cannot_be_executed_changes_nothing() {
    let mut bench = leaving();
    bench.on(Event::Signal(Signal::HUP));
    let orders = bench.on(Event::TakeOverFailed);
    assert_eq!(orders, [failed(UPGRADE, Why::TakeOver), Order::Prepare { generation: 2 }]);
}

#[test]
fn an_image_is_left_only_when_no_start_is_unanswered() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::USR2));
    bench.up(C);
    assert_eq!(bench.died(A, KILLED)[1], Order::Spawn { child: A });
    assert_eq!(bench.died(C, DONE), []);
    assert_eq!(bench.spawned(A), [Order::TakeOver]);
}

#[test]
fn a_new_image_that_fails_goes_back() {
    let mut bench = leaving();
    exec(&mut bench, Thawed::New);
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    bench.up(D);
    bench.spawned(E);
    assert_eq!(bench.died(E, KILLED), [drain(D), Order::Revert]);
    let orders = exec(&mut bench, Thawed::Old);
    assert_eq!(orders, [failed(UPGRADE, Why::Reverted)]);
    assert_eq!(bench.died(A, KILLED)[1], Order::Spawn { child: A }, "the old image keeps its workers");
    assert_eq!(bench.died(D, DONE), [Order::Forget { generation: 2 }]);
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), [Order::Prepare { generation: 3 }]);
}

#[test]
fn a_new_image_that_cannot_go_back_serves_on_with_the_old_generation() {
    let mut bench = leaving();
    exec(&mut bench, Thawed::New);
    assert_eq!(
        bench.on(Event::PrepareFailed { generation: 2 }),
        [Order::Forget { generation: 2 }, Order::Revert]
    );
    assert_eq!(bench.on(Event::TakeOverFailed), [failed(UPGRADE, Why::Prepare)]);
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), [Order::Prepare { generation: 3 }]);
}

#[test]
fn an_old_image_that_was_left_in_vain_says_so() {
    // The new one could not make use of the state, and handed back what it had been given.
    let mut bench = leaving();
    bench.supervisor.handle(Event::Signal(Signal::USR2), bench.now);
    bench.orders();
    let orders = exec(&mut bench, Thawed::Old);
    assert_eq!(
        orders,
        [failed(UPGRADE, Why::Reverted), Order::Spawn { child: D }],
        "and does what was asked for"
    );
}

#[test]
fn a_reload_comes_before_an_upgrade() {
    let mut bench = Bench::running();
    bench.on(Event::Replace { child: A });
    assert_eq!(bench.on(Event::Signal(Signal::USR2)), []);
    assert_eq!(bench.on(Event::Signal(Signal::HUP)), []);
    let orders = bench.up(C);
    assert!(orders.contains(&Order::Prepare { generation: 2 }), "{orders:?}");
    let orders = bench.on(Event::PrepareFailed { generation: 2 });
    assert!(matches!(orders[2], Order::Spawn { .. }), "{orders:?}");
}

#[test]
fn a_stop_in_the_new_image_is_a_stop() {
    let mut bench = leaving();
    exec(&mut bench, Thawed::New);
    let orders = bench.on(Event::Signal(Signal::TERM));
    assert_eq!(orders[..2], [Order::AnnounceStop, failed(UPGRADE, Why::Stopping)]);
    assert!(!orders.contains(&Order::Revert));
}

#[test]
fn a_stop_ends_the_probe() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::USR2));
    bench.spawned(C);
    let orders = bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(orders[..2], [Order::AnnounceStop, Order::Stop { child: C }]);
    assert_eq!(orders[2..], [failed(UPGRADE, Why::Stopping), quit(A, secs(30)), quit(B, secs(30))]);
}
