//! What the supervisor orders, event by event.

use super::*;

/// A log server and two workers, as `log`, `a` and `b`.
struct Bench {
    supervisor: Supervisor,
    now: Instant,
    pid: u32,
}

const LOG: ChildId = ChildId(0);
const A: ChildId = ChildId(1);
const B: ChildId = ChildId(2);

impl Bench {
    fn new() -> Self {
        let roles = [Role::LogServer, Role::Worker(0), Role::Worker(1)];
        let supervisor = Supervisor::new(roles, Limits::default());
        Self { supervisor, now: Instant::from_nanos(1_000_000), pid: 100 }
    }

    fn running() -> Self {
        let mut bench = Self::new();
        bench.on(Event::Start);
        bench.up(LOG);
        bench.on(Event::Spawned { child: A, pid: 1 });
        bench.on(Event::Spawned { child: B, pid: 2 });
        bench.on(Event::Ready { child: A });
        bench.on(Event::Ready { child: B });
        assert!(bench.supervisor.is_running());
        bench
    }

    /// Hands an event in; gives the orders back, without reports.
    fn on(&mut self, event: Event) -> Vec<Order> {
        self.all(event).into_iter().filter(|order| !matches!(order, Order::Report(_))).collect()
    }

    fn all(&mut self, event: Event) -> Vec<Order> {
        self.supervisor.handle(event, self.now);
        std::iter::from_fn(|| self.supervisor.poll_order()).collect()
    }

    /// Goes to the next timeout, which must be `after` from now.
    fn wait(&mut self, after: Duration) -> Vec<Order> {
        let at = self.supervisor.poll_timeout();
        assert_eq!(at, Some(self.now + after));
        self.now += after;
        self.on(Event::Timeout)
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        assert!(self.on(Event::Timeout).is_empty());
    }

    fn up(&mut self, child: ChildId) -> Vec<Order> {
        self.pid += 1;
        self.on(Event::Spawned { child, pid: self.pid });
        self.on(Event::Ready { child })
    }

    fn died(&mut self, child: ChildId, status: ExitStatus) -> Vec<Order> {
        self.on(Event::Exited { child, status })
    }
}

const KILLED: ExitStatus = ExitStatus::Signal(9);
const DONE: ExitStatus = ExitStatus::Code(0);

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

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
    let mut bench = Bench::running();
    bench.pass(secs(1));
    let orders = bench.all(Event::Exited { child: A, status: KILLED });
    let reports = [
        Order::Report(Report::Exited { child: A, pid: 1, status: KILLED, expected: false }),
        Order::Report(Report::Restart { child: A, delay: Duration::ZERO, early_deaths: 0 }),
        Order::Spawn { child: A },
    ];
    assert_eq!(orders, reports);
    let child = bench.supervisor.child(A).unwrap();
    assert_eq!((child.restarts, child.last_exit, child.pid), (1, Some(KILLED), None));
    assert_eq!(bench.up(A), [], "ready is announced once");
}

#[test]
fn a_crash_loop_is_slowed_down_until_a_child_serves_again() {
    let mut bench = Bench::running();
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
    let mut bench = Bench::running();
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
    assert_eq!(orders, [Order::WorkersGone, Order::Quit { child: LOG, timeout: secs(2) }]);
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
fn a_fast_stop_ends_workers_then_the_log_server() {
    for signal in [Signal::TERM, Signal::INT] {
        let mut bench = Bench::running();
        let orders = bench.on(Event::Signal(signal));
        assert_eq!(orders, [Order::AnnounceStop, Order::Stop { child: A }, Order::Stop { child: B }]);
        assert_eq!(bench.died(A, DONE), []);
        assert_eq!(bench.wait(secs(2)), [Order::Kill { child: B }]);
        let orders = bench.died(B, KILLED);
        assert_eq!(orders, [Order::WorkersGone, Order::Quit { child: LOG, timeout: secs(2) }]);
        assert_eq!(bench.wait(secs(3)), [Order::Stop { child: LOG }]);
        assert_eq!(bench.wait(secs(2)), [Order::Kill { child: LOG }]);
        assert_eq!(bench.died(LOG, KILLED), [Order::Finish { code: 0 }]);
        assert_eq!(bench.supervisor.poll_timeout(), None);
    }
}

#[test]
fn a_graceful_stop_gives_time_and_then_gets_harder() {
    let mut bench = Bench::running();
    let timeout = secs(30);
    let orders = bench.on(Event::Signal(Signal::QUIT));
    let expected =
        [Order::AnnounceStop, Order::Quit { child: A, timeout }, Order::Quit { child: B, timeout }];
    assert_eq!(orders, expected);
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
fn a_log_server_signalled_alone_is_stopped_and_started_again() {
    let mut bench = Bench::running();
    bench.pass(secs(1));
    bench.on(Event::Signalled { child: LOG });
    assert_eq!(bench.wait(millis(100)), [Order::Stop { child: LOG }]);
    assert_eq!(bench.died(LOG, DONE), [Order::Spawn { child: LOG }]);
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
fn what_is_not_supported_is_said() {
    let mut bench = Bench::running();
    for signal in [Signal::HUP, Signal::USR2, Signal::WINCH] {
        assert_eq!(bench.all(Event::Signal(signal)), [Order::Report(Report::Unsupported(signal))]);
    }
}

#[test]
fn events_that_do_not_fit_change_nothing() {
    let mut bench = Bench::running();
    for child in [A, ChildId(3), ChildId(usize::MAX)] {
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
    let mut supervisor = Supervisor::new([], Limits::default());
    supervisor.handle(Event::Start, Instant::from_nanos(0));
    assert_eq!(supervisor.poll_order(), Some(Order::AnnounceReady));
    assert_eq!(supervisor.poll_order(), None);
}
