//! What the supervisor orders, event by event.

mod cover;
mod freeze;
mod life;
mod reload;
mod stop;
mod upgrade;
mod watch;

use std::time::Duration;

use tidegate_sys::process::ExitStatus;

use super::*;

/// A log server and two workers, as `LOG`, `A` and `B`; others by what they were started as.
struct Bench {
    supervisor: Supervisor,
    now: Instant,
    pid: u32,
}

const LOG: ChildId = ChildId(0);
const A: ChildId = ChildId(1);
const B: ChildId = ChildId(2);
/// The first that were added later: those of the second generation, a probe, a successor.
const C: ChildId = ChildId(3);
const D: ChildId = ChildId(4);
const E: ChildId = ChildId(5);
const F: ChildId = ChildId(6);

impl Bench {
    fn new() -> Self {
        Self::of(2, false, quiet())
    }

    fn of(workers: u32, acceptor: bool, limits: Limits) -> Self {
        let supervisor = Supervisor::new([Role::LogServer], Crew { workers, acceptor }, limits);
        Self { supervisor, now: Instant::from_nanos(1_000_000), pid: 100 }
    }

    fn running() -> Self {
        Self::new().run()
    }

    /// All that there are, READY; their pids are their numbers.
    fn run(mut self) -> Self {
        self.on(Event::Start);
        for child in self.supervisor.ids() {
            self.on(Event::Spawned { child, pid: child.0 });
            self.on(Event::Ready { child });
        }
        assert!(self.supervisor.is_running());
        self
    }

    /// Hands an event in; gives the orders back, without reports.
    fn on(&mut self, event: Event) -> Vec<Order> {
        self.all(event).into_iter().filter(|order| !matches!(order, Order::Report(_))).collect()
    }

    fn all(&mut self, event: Event) -> Vec<Order> {
        self.supervisor.handle(event, self.now);
        self.orders()
    }

    fn orders(&mut self) -> Vec<Order> {
        std::iter::from_fn(|| self.supervisor.poll_order()).collect()
    }

    /// Goes to the next timeout, which must be `after` from now.
    fn wait(&mut self, after: Duration) -> Vec<Order> {
        let at = self.supervisor.poll_timeout();
        assert_eq!(at, Some(self.now + after));
        self.now += after;
        self.look()
    }

    /// Turns until nothing more is due now.
    fn look(&mut self) -> Vec<Order> {
        let mut orders = self.on(Event::Timeout);
        while self.supervisor.poll_timeout().is_some_and(|at| at <= self.now) {
            orders.extend(self.on(Event::Timeout));
        }
        orders
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        assert!(self.look().is_empty());
    }

    fn up(&mut self, child: ChildId) -> Vec<Order> {
        self.spawned(child);
        self.on(Event::Ready { child })
    }

    fn spawned(&mut self, child: ChildId) -> Vec<Order> {
        self.pid += 1;
        self.on(Event::Spawned { child, pid: self.pid })
    }

    fn died(&mut self, child: ChildId, status: ExitStatus) -> Vec<Order> {
        self.on(Event::Exited { child, status })
    }

    fn slot(&self, child: ChildId) -> &Slot {
        self.supervisor.child(child).unwrap()
    }

    /// A reload up to its commit; gives the orders of that.
    fn reloaded(&mut self, generation: u32, crew: Crew) -> Vec<Order> {
        assert_eq!(self.on(Event::Signal(Signal::HUP)), [Order::Prepare { generation }]);
        let mut orders = self.on(Event::Prepared { generation, crew });
        while let [Order::Spawn { .. }, ..] = orders[..] {
            let spawned = std::mem::take(&mut orders);
            for order in spawned {
                let Order::Spawn { child } = order else { panic!("{order:?} in a reload") };
                orders.extend(self.up(child));
            }
        }
        orders
    }
}

/// The limits without pings.
fn quiet() -> Limits {
    Limits { ping_interval: Duration::MAX, ..Limits::default() }
}

const TWO: Crew = Crew { workers: 2, acceptor: false };
const KILLED: ExitStatus = ExitStatus::Signal(9);
const DONE: ExitStatus = ExitStatus::Code(0);

fn quit(child: ChildId, timeout: Duration) -> Order {
    Order::Quit { child, timeout: Some(timeout) }
}

/// To finish what is in flight, however long that takes.
fn drain(child: ChildId) -> Order {
    Order::Quit { child, timeout: None }
}

fn done(operation: Operation, generation: u32) -> Order {
    Order::Done { operation, outcome: Outcome::Done { generation } }
}

fn failed(operation: Operation, why: Why) -> Order {
    Order::Done { operation, outcome: Outcome::Failed(why) }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
