//! Pings, and children that do not answer.

use super::*;

fn watched() -> Bench {
    Bench::of(2, false, Limits::default()).run()
}

fn pong(bench: &mut Bench, child: ChildId) -> Vec<Order> {
    bench.on(Event::Pong { child })
}

#[test]
fn those_who_serve_are_asked_together() {
    let mut bench = watched();
    for _ in 0..3 {
        assert_eq!(bench.wait(millis(250)), [Order::Ping { child: A }, Order::Ping { child: B }]);
        assert_eq!(pong(&mut bench, A), []);
        assert_eq!(pong(&mut bench, B), []);
    }
    bench.on(Event::Signal(Signal::QUIT));
    assert_eq!(bench.supervisor.poll_timeout(), Some(bench.now + secs(31)), "nobody is asked in a stop");
}

#[test]
fn a_child_that_does_not_answer_is_covered_and_then_replaced() {
    let mut bench = watched();
    bench.wait(millis(250));
    pong(&mut bench, B);
    assert_eq!(bench.wait(millis(250)), [Order::Ping { child: B }], "one question at a time");
    pong(&mut bench, B);
    let orders = bench.wait(millis(250));
    assert_eq!(orders, [Order::Ping { child: B }, Order::Cover { absent: A, slot: 0, by: B }]);
    pong(&mut bench, B);
    assert!(bench.slot(A).is_stuck);
    let hung_at = bench.now + millis(29_500);
    let mut orders = Vec::new();
    while bench.now < hung_at {
        bench.now = bench.supervisor.poll_timeout().unwrap();
        orders = bench.all(Event::Timeout);
        orders.extend(bench.all(Event::Timeout));
        pong(&mut bench, B);
    }
    assert_eq!(bench.now, hung_at);
    assert!(orders.contains(&Order::Kill { child: A }), "{orders:?}");
    assert!(orders.contains(&Order::Report(Report::Hung { child: A, limit: secs(30) })), "{orders:?}");
    assert_eq!(bench.died(A, KILLED), [Order::Spawn { child: A }]);
    assert_eq!(bench.up(A), [Order::Uncover { slot: 0, by: B }]);
}

#[test]
fn a_late_answer_is_an_answer() {
    let mut bench = watched();
    bench.wait(millis(250));
    pong(&mut bench, B);
    bench.wait(millis(250));
    pong(&mut bench, B);
    bench.wait(millis(250));
    let orders = bench.all(Event::Pong { child: A });
    assert_eq!(orders, [Order::Report(Report::Answers { child: A }), Order::Uncover { slot: 0, by: B }]);
    assert!(!bench.slot(A).is_stuck);
}

#[test]
fn without_a_limit_a_child_may_hang() {
    let mut bench = Bench::of(1, false, Limits { hang_timeout: None, ..Limits::default() }).run();
    for _ in 0..1000 {
        bench.now = bench.supervisor.poll_timeout().unwrap();
        let orders = bench.on(Event::Timeout);
        assert!(orders.is_empty() || orders == [Order::Ping { child: A }], "{orders:?}");
    }
    assert!(bench.slot(A).is_stuck);
}

#[test]
fn a_master_that_was_held_up_does_not_blame_its_children() {
    let mut bench = watched();
    bench.wait(millis(250));
    bench.now += secs(100);
    assert_eq!(bench.look(), [], "their answers were not read yet, and they may have been held up too");
    assert_eq!(pong(&mut bench, A), []);
    assert_eq!(pong(&mut bench, B), []);
    assert!(!bench.slot(A).is_stuck);
}

#[test]
fn silence_is_judged_when_the_channels_were_read_once_more() {
    let mut bench = Bench::running();
    bench.on(Event::Signal(Signal::USR2));
    bench.spawned(C);
    bench.now += secs(30);
    assert_eq!(bench.on(Event::Timeout), []);
    assert_eq!(bench.supervisor.poll_timeout(), Some(bench.now), "at once");
    let mut other = Bench {
        supervisor: Supervisor::thaw(bench.supervisor.freeze(), quiet(), Thawed::New, bench.now),
        ..bench
    };
    assert_eq!(other.on(Event::Timeout), [], "another image has read nothing yet");
    assert_eq!(other.on(Event::Signal(Signal::USR1)).len(), 3, "an event of another is not a look");
    assert_eq!(other.on(Event::Timeout)[0], Order::Stop { child: C });
}

#[test]
fn ready_may_be_unread_too_when_the_master_was_held_up() {
    let mut bench = Bench::new();
    bench.on(Event::Start);
    bench.up(LOG);
    bench.spawned(A);
    bench.spawned(B);
    bench.now += secs(60);
    assert_eq!(bench.on(Event::Ready { child: A }), []);
    assert_eq!(bench.on(Event::Ready { child: B }), [Order::AnnounceReady]);
}

#[test]
fn an_acceptor_is_asked_too() {
    let mut bench = Bench::of(1, true, Limits::default()).run();
    assert_eq!(bench.wait(millis(250)), [Order::Ping { child: A }, Order::Ping { child: B }]);
    assert_eq!(bench.slot(B).role, Role::Acceptor);
}

#[test]
fn one_that_hangs_while_it_drains_is_killed_and_not_replaced() {
    let mut bench = watched();
    bench.reloaded(2, TWO);
    assert!(bench.slot(A).is_retired && bench.slot(A).pid.is_some());
    let hung_at = bench.now + secs(31);
    let mut orders = Vec::new();
    while bench.now < hung_at {
        bench.now = bench.supervisor.poll_timeout().unwrap();
        orders.extend(bench.all(Event::Timeout));
        orders.extend(bench.all(Event::Timeout));
        for child in bench.supervisor.ids() {
            if child != A {
                pong(&mut bench, child);
            }
        }
    }
    assert!(orders.contains(&Order::Report(Report::Hung { child: A, limit: secs(30) })), "{orders:?}");
    let killed: Vec<_> = orders.iter().filter(|order| matches!(order, Order::Kill { .. })).collect();
    assert_eq!(killed, [&Order::Kill { child: A }]);
    assert_eq!(bench.died(A, KILLED), []);
}
