//! Seeded schedules: a world of unreliable children around a supervisor, with a virtual clock.
//!
//! Children fail to start, die before or after READY, are never READY, are slow to obey or do not obey; a stop comes at
//! any moment. What must hold is checked after each order, and at the end. A failure names its seed.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::*;

const SEEDS: u64 = 1000;
/// More events than any schedule needs: a livelock fails instead of hanging.
const MAX_EVENTS: usize = 20_000;

#[test]
fn every_schedule_ends_well() {
    let (mut announced, mut restarted, mut killed) = (0, 0, 0);
    for seed in 0..SEEDS {
        let outcome = std::panic::catch_unwind(|| World::new(seed).run());
        let world = outcome.unwrap_or_else(|_| panic!("the schedule of seed {seed} failed, see above"));
        announced += usize::from(world.announced);
        restarted += usize::from(world.spawns > world.supervisor.children.len());
        killed += usize::from(world.kills > 0);
    }
    // The schedules are worth something only if they reach these places.
    assert!(announced > 100 && restarted > 100 && killed > 100, "{announced} {restarted} {killed}");
}

struct World {
    supervisor: Supervisor,
    random: Random,
    now: Instant,
    /// What will happen; the number keeps events of one time in their order.
    coming: BinaryHeap<Reverse<Coming>>,
    sequence: u64,
    processes: Vec<Option<Process>>,
    /// Of each child: early deaths in a row, and when its last process ended, to check the back-off.
    early_deaths: Vec<u32>,
    ended_at: Vec<Option<Instant>>,
    next_pid: u32,
    spawns: usize,
    kills: usize,
    /// When the stop began, and how.
    stopping: Option<(Instant, StopKind)>,
    announced: bool,
    workers_gone: bool,
    finished: bool,
    /// How unreliable the children are, in percent.
    trouble: u64,
}

/// When, the number, what, which child, and which process of it.
type Coming = (Instant, u64, u8, usize, u32);

struct Process {
    pid: u32,
    ready_at: Option<Instant>,
    is_ending: bool,
}

/// Kinds of what is coming; the pid says which process is meant.
const READY: u8 = 0;
const DIE: u8 = 1;
const FAIL_CONFIGURATION: u8 = 2;
const STOP_FAST: u8 = 3;
const STOP_GRACEFUL: u8 = 4;
const SIGNALLED: u8 = 5;
const SPAWN_DONE: u8 = 6;
const SPAWN_FAILED: u8 = 7;
const OTHER_SIGNAL: u8 = 8;

impl World {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let workers = u32::try_from(random.below(5)).unwrap();
        let log_server = if random.below(10) > 0 { Some(Role::LogServer) } else { None };
        let roles: Vec<_> = log_server.into_iter().chain((0..workers).map(Role::Worker)).collect();
        let count = roles.len();
        let mut world = Self {
            supervisor: Supervisor::new(roles, Limits::default()),
            now: Instant::from_nanos(5),
            coming: BinaryHeap::new(),
            sequence: 0,
            processes: (0..count).map(|_| None).collect(),
            early_deaths: vec![0; count],
            ended_at: vec![None; count],
            next_pid: 1000,
            spawns: 0,
            kills: 0,
            stopping: None,
            announced: false,
            workers_gone: false,
            finished: false,
            trouble: [0, 5, 30, 80][usize::try_from(random.below(4)).unwrap()],
            random,
        };
        // Some stops come in the middle of the start, some in a long life; each schedule has one.
        let longest_ms = [20, 2000, 60_000][usize::try_from(world.random.below(3)).unwrap()];
        let kind = if world.random.below(2) == 0 { STOP_FAST } else { STOP_GRACEFUL };
        world.later(longest_ms, kind, 0, 0);
        if world.random.below(3) == 0 {
            world.later(longest_ms * 2, STOP_FAST, 0, 0);
        }
        world.later(longest_ms, OTHER_SIGNAL, 0, 0);
        world
    }

    fn run(mut self) -> Self {
        self.supervisor.handle(Event::Start, self.now);
        self.carry_out();
        for _ in 0..MAX_EVENTS {
            if self.finished {
                assert_eq!(self.supervisor.poll_timeout(), None);
                return self;
            }
            self.step();
            self.carry_out();
        }
        panic!("no end after {MAX_EVENTS} events: {:?}", self.supervisor);
    }

    fn step(&mut self) {
        let coming = self.coming.peek().map(|Reverse(coming)| coming.0);
        let timeout = self.supervisor.poll_timeout();
        let Some(next) = coming.into_iter().chain(timeout).min() else {
            panic!("nothing will happen any more: {:?}", self.supervisor);
        };
        self.now = self.now.max(next);
        self.check_time();
        if coming != Some(next) {
            return self.supervisor.handle(Event::Timeout, self.now);
        }
        let Some(Reverse((_, _, kind, child, pid))) = self.coming.pop() else { return };
        if let Some(event) = self.happen(kind, child, pid) {
            self.supervisor.handle(event, self.now);
        }
    }

    /// What is coming has come; `None` when its process has ended meanwhile.
    fn happen(&mut self, kind: u8, index: usize, pid: u32) -> Option<Event> {
        let child = ChildId(index);
        match kind {
            STOP_FAST | STOP_GRACEFUL => return Some(self.stop(kind)),
            OTHER_SIGNAL => {
                let others = [Signal::HUP, Signal::USR1, Signal::USR2, Signal::WINCH];
                return Some(Event::Signal(others[usize::try_from(self.random.below(4)).unwrap()]));
            }
            SPAWN_DONE => return Some(self.spawned(child)),
            SPAWN_FAILED => {
                self.early_deaths[index] += 1;
                self.ended_at[index] = Some(self.now);
                return Some(Event::SpawnFailed { child });
            }
            _ => {}
        }
        let process = self.processes[index].as_mut().filter(|process| process.pid == pid)?;
        match kind {
            READY => {
                process.ready_at = Some(self.now);
                Some(Event::Ready { child })
            }
            SIGNALLED => Some(Event::Signalled { child }),
            _ => {
                let configuration = kind == FAIL_CONFIGURATION && process.ready_at.is_none();
                let status = match (configuration, process.is_ending) {
                    (true, _) => ExitStatus::Code(2),
                    (false, true) => ExitStatus::Code(0),
                    (false, false) => ExitStatus::Signal(9),
                };
                let served = process.ready_at.map(|at| self.now.saturating_duration_since(at));
                let is_early = served.is_none_or(|served| served < millis(500));
                self.early_deaths[index] = if is_early { self.early_deaths[index] + 1 } else { 0 };
                self.ended_at[index] = Some(self.now);
                self.processes[index] = None;
                Some(Event::Exited { child, status })
            }
        }
    }

    fn stop(&mut self, kind: u8) -> Event {
        Event::Signal(match (kind, self.random.below(2)) {
            (STOP_GRACEFUL, _) => Signal::QUIT,
            (_, 0) => Signal::INT,
            _ => Signal::TERM,
        })
    }

    fn spawned(&mut self, child: ChildId) -> Event {
        self.next_pid += 1;
        let pid = self.next_pid;
        self.processes[child.0] = Some(Process { pid, ready_at: None, is_ending: false });
        if self.random.below(100) < self.trouble {
            let kind = if self.random.below(8) == 0 { FAIL_CONFIGURATION } else { DIE };
            let longest_ms = [10, 600, 30_000][usize::try_from(self.random.below(3)).unwrap()];
            self.later(longest_ms, kind, child.0, pid);
        }
        // Some are never READY, and some later than they may.
        if self.random.below(100) >= self.trouble / 4 {
            let longest_ms = if self.random.below(100) < self.trouble / 2 { 40_000 } else { 50 };
            self.later(longest_ms, READY, child.0, pid);
        }
        if self.random.below(20) == 0 {
            self.later(5_000, SIGNALLED, child.0, pid);
        }
        Event::Spawned { child, pid }
    }

    fn carry_out(&mut self) {
        while let Some(order) = self.supervisor.poll_order() {
            assert!(!self.finished, "{order:?} after the end");
            match order {
                Order::Spawn { child } => self.spawn(child),
                Order::Stop { child } => self.obey(child, 2_500),
                Order::Quit { child, .. } => self.obey(child, 40_000),
                Order::Kill { child } => self.kill(child),
                Order::Reopen { child } => assert!(self.processes[child.0].is_some()),
                Order::AnnounceReady => {
                    assert!(!self.announced && self.stopping.is_none(), "announced once, and not in a stop");
                    let serves =
                        |process: &Option<Process>| process.as_ref().is_some_and(|it| it.ready_at.is_some());
                    assert!(self.workers().all(|(_, process)| serves(process)), "not all workers serve");
                    self.announced = true;
                }
                Order::AnnounceStop => assert!(self.stopping.is_none(), "announced once"),
                Order::Report(Report::Stopping(kind)) => self.stopping = Some((self.now, kind)),
                Order::Report(Report::StartFailed { .. }) => assert!(!self.announced),
                Order::Report(_) => {}
                Order::WorkersGone => {
                    assert!(self.workers().all(|(_, process)| process.is_none()), "the log server is last");
                    self.workers_gone = true;
                }
                Order::Finish { .. } => {
                    assert!(self.processes.iter().all(Option::is_none), "a child is left");
                    assert!(self.workers_gone);
                    self.finished = true;
                }
            }
        }
    }

    fn spawn(&mut self, child: ChildId) {
        assert!(self.stopping.is_none(), "spawned in a stop");
        assert!(self.processes[child.0].is_none(), "two processes of one child");
        if let Some(ended_at) = self.ended_at[child.0] {
            let waited = self.now.saturating_duration_since(ended_at);
            let delay = Limits::default().restart_delay(self.early_deaths[child.0]);
            assert_eq!(waited, delay, "back-off after {} early deaths", self.early_deaths[child.0]);
        }
        self.spawns += 1;
        let failed = self.random.below(400) < self.trouble;
        self.later(3, if failed { SPAWN_FAILED } else { SPAWN_DONE }, child.0, 0);
    }

    /// A child told to end does so after a while, or, in trouble, never.
    fn obey(&mut self, child: ChildId, longest_ms: u64) {
        let role = self.supervisor.child(child).unwrap().role;
        let was_asked = self.stopping.is_none();
        assert!(role.is_worker() || self.workers_gone || was_asked, "log server too early");
        let Some(process) = &mut self.processes[child.0] else { panic!("{child:?} has no process") };
        process.is_ending = true;
        let pid = process.pid;
        if self.random.below(150) >= self.trouble {
            self.later(longest_ms, DIE, child.0, pid);
        }
    }

    fn kill(&mut self, child: ChildId) {
        self.kills += 1;
        let Some(process) = &self.processes[child.0] else { panic!("{child:?} has no process") };
        let pid = process.pid;
        self.later(5, DIE, child.0, pid);
    }

    /// A stop is bounded, whatever the children do.
    fn check_time(&self) {
        if let Some((since, kind)) = self.stopping {
            let limit = match kind {
                // Stop and kill of workers, then quit, stop and kill of the log server; a child may just be starting.
                StopKind::Fast => secs(2 + 1 + 3 + 2 + 1),
                StopKind::Graceful => secs(31 + 2 + 1 + 3 + 2 + 1),
            };
            let passed = self.now.saturating_duration_since(since);
            assert!(passed <= limit, "{kind} stop for {passed:?}: {:?}", self.supervisor);
        }
    }

    fn workers(&self) -> impl Iterator<Item = (&Slot, &Option<Process>)> {
        let all = self.supervisor.children.iter().zip(&self.processes);
        all.filter(|(child, _)| child.role.is_worker())
    }

    fn later(&mut self, longest_ms: u64, kind: u8, child: usize, pid: u32) {
        let at = self.now + Duration::from_micros(self.random.below(longest_ms * 1000));
        self.sequence += 1;
        self.coming.push(Reverse((at, self.sequence, kind, child, pid)));
    }
}

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// xorshift64*: small, seeded, and the same everywhere.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) % bound.max(1)
    }
}
