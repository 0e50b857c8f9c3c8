//! Who accepts for whom.

use super::*;

fn cover(absent: ChildId, slot: u32, by: ChildId) -> Order {
    Order::Cover { absent, slot, by }
}

fn three() -> Bench {
    let mut bench = Bench::of(3, false, quiet()).run();
    bench.pass(secs(1));
    bench
}

#[test]
fn a_dead_worker_is_covered_until_it_serves_again() {
    let mut bench = three();
    assert_eq!(bench.died(A, KILLED), [cover(A, 0, B), Order::Spawn { child: A }]);
    assert_eq!(bench.up(A), [Order::Uncover { slot: 0, by: B }]);
}

#[test]
fn the_next_one_that_serves_covers() {
    let mut bench = three();
    assert_eq!(bench.died(C, KILLED)[0], cover(C, 2, A), "around");
    assert_eq!(bench.died(A, KILLED)[..2], [cover(A, 0, B), cover(C, 2, B)], "also what a dead one covered");
    assert_eq!(bench.died(B, KILLED), [Order::Spawn { child: B }], "nobody is left");
    assert_eq!(bench.up(C), [cover(A, 0, C), cover(B, 1, C)]);
    assert_eq!(bench.up(A), [Order::Uncover { slot: 0, by: C }], "what is covered stays where it is");
    assert_eq!(bench.up(B), [Order::Uncover { slot: 1, by: C }]);
}

#[test]
fn a_paused_worker_is_covered_before_it_is_told() {
    let mut bench = three();
    let orders = bench.on(Event::Pause { child: A });
    assert_eq!(orders, [cover(A, 0, B), Order::PauseAccept { child: A }]);
    assert_eq!(bench.on(Event::Pause { child: A }), []);
    let orders = bench.on(Event::Pause { child: B });
    assert_eq!(orders[..2], [cover(A, 0, C), Order::Uncover { slot: 0, by: B }]);
    assert_eq!(orders[2..], [cover(B, 1, C), Order::PauseAccept { child: B }]);
    let orders = bench.on(Event::Pause { child: C });
    assert_eq!(orders[..2], [Order::Uncover { slot: 0, by: C }, Order::Uncover { slot: 1, by: C }]);
    assert_eq!(orders[2..], [Order::PauseAccept { child: C }], "all of them shall not accept");
    let orders = bench.on(Event::Resume { child: B });
    assert_eq!(orders, [Order::ResumeAccept { child: B }, cover(A, 0, B), cover(C, 2, B)]);
    assert_eq!(bench.on(Event::Resume { child: B }), []);
}

#[test]
fn a_paused_worker_stays_paused_over_its_death_and_its_replacement() {
    let mut bench = three();
    bench.on(Event::Pause { child: A });
    assert_eq!(bench.died(A, KILLED), [Order::Spawn { child: A }]);
    assert_eq!(bench.up(A), [Order::PauseAccept { child: A }]);
    assert_eq!(bench.on(Event::Replace { child: A }), [Order::Spawn { child: D }]);
    assert_eq!(bench.up(D), [Order::PauseAccept { child: D }, done(Operation::Replace(A), 1), drain(A)]);
    assert_eq!(
        bench.on(Event::Resume { child: D }),
        [Order::ResumeAccept { child: D }, Order::Uncover { slot: 0, by: B }]
    );
}

#[test]
fn the_first_start_waits_for_everybody_but_one_that_died() {
    let mut bench = Bench::of(3, false, quiet());
    bench.on(Event::Start);
    bench.up(LOG);
    assert_eq!(bench.up(B), [], "nobody is late yet");
    bench.spawned(A);
    assert_eq!(bench.died(A, KILLED), [cover(A, 0, B), Order::Spawn { child: A }]);
    bench.up(C);
    assert_eq!(bench.up(A), [Order::AnnounceReady, Order::Uncover { slot: 0, by: B }]);
}

#[test]
fn a_worker_that_covers_and_is_replaced_hands_that_on() {
    let mut bench = three();
    bench.died(A, KILLED);
    bench.on(Event::Replace { child: B });
    let orders = bench.up(D);
    assert_eq!(orders, [done(Operation::Replace(B), 1), cover(A, 0, D), drain(B)]);
    assert_eq!(bench.up(A), [Order::Uncover { slot: 0, by: D }]);
}

#[test]
fn nobody_covers_on_trial_nor_when_retired() {
    let mut bench = Bench::running();
    bench.died(A, KILLED);
    bench.on(Event::Signal(Signal::HUP));
    bench.on(Event::Prepared { generation: 2, crew: TWO });
    assert_eq!(bench.up(C), []);
    let orders = bench.up(D);
    let spawning = bench.slot(A).clone();
    assert_eq!(orders[2..], [drain(B)], "{spawning:?}");
    assert_eq!(bench.spawned(A), [quit(A, secs(2))]);
    assert_eq!(bench.died(A, KILLED), []);
    assert_eq!(bench.died(C, KILLED), [cover(C, 0, D), Order::Spawn { child: C }]);
    bench.on(Event::Signal(Signal::WINCH));
    assert_eq!(bench.spawned(C), [quit(C, secs(2))]);
}

#[test]
fn nobody_covers_in_a_stop() {
    let mut bench = three();
    bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(bench.died(A, DONE), []);
    assert_eq!(bench.on(Event::Pause { child: B }), []);
}
