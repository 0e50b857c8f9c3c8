//! The world: what happens to the supervisor and to its children, and when.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use tidegate_process::Role;
use tidegate_process::supervisor::{
    ChildId, Crew, Event, Limits, Measure, Operation, Order, StopKind, Supervisor, Thawed,
};
use tidegate_sys::signal::Signal;
use tidegate_timer::Instant;

use super::children::{Doing, Process};
use super::{Schedule, millis, secs, slot_of};
use crate::random::Random;
use crate::{Outcome, Seen};

/// More events than any schedule needs: a livelock fails instead of hanging.
const MAX_EVENTS: usize = 40_000;

pub(super) struct World {
    pub(super) supervisor: Supervisor,
    /// One that was frozen and thawed, and has to do the same.
    twin: Option<Supervisor>,
    pub(super) limits: Limits,
    pub(super) random: Random,
    pub(super) now: Instant,
    /// What will happen; the number keeps events of one time in their order.
    coming: BTreeMap<(Instant, u64), Coming>,
    sequence: u64,
    pub(super) next_pid: u32,
    /// How unreliable everything is, in percent.
    pub(super) trouble: u64,
    pub(super) processes: BTreeMap<ChildId, Process>,
    pub(super) spawning: BTreeSet<ChildId>,
    /// Of each child: early deaths in a row, and when its last process ended, to check the back-off.
    pub(super) early_deaths: BTreeMap<ChildId, u32>,
    pub(super) ended_at: BTreeMap<ChildId, Instant>,
    pub(super) generations: BTreeMap<u32, Standing>,
    pub(super) current: u32,
    /// The workers of the current generation are retired.
    pub(super) is_retired: bool,
    /// The child that is to replace another one.
    pub(super) successor: Option<ChildId>,
    /// Whose end was ordered with a reason.
    pub(super) may_end: BTreeSet<ChildId>,
    /// A probe was READY and ended in order since the last take-over.
    pub(super) has_passed: bool,
    /// Answers that are owed: of the operation that is under way or waits, and of the one after it.
    pub(super) owed: BTreeMap<&'static str, (bool, bool)>,
    pub(super) owed_replaces: BTreeSet<ChildId>,
    /// This is the image after a take-over, before its first commit.
    pub(super) is_new_image: bool,
    /// When the stop began, and how.
    pub(super) stopping: Option<(Instant, StopKind)>,
    was_held_up: bool,
    /// How long the master was held up in all, and since the stop.
    pub(super) held_up: Duration,
    pub(super) held_up_in_stop: Duration,
    pub(super) announced: bool,
    pub(super) workers_gone: bool,
    pub(super) finished: bool,
    pub(super) seen: Seen,
    /// What each generation is to consist of.
    pub(super) crews: BTreeMap<u32, Crew>,
    /// How much is planned.
    pub(super) planned: usize,
    /// What is left out of it, by its place there.
    left_out: BTreeSet<usize>,
    /// Lines of the trace, when one is written.
    trace: Option<Vec<String>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    Preparing,
    Trial(Crew),
    Current,
    Retired,
    Failed,
    Forgotten,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Coming {
    Spawned(ChildId),
    SpawnFailed(ChildId),
    Of(ChildId, u32, Doing),
    Signal(Signal),
    Prepared(u32),
    PrepareFailed(u32),
    Replace,
    Pause,
    Resume,
    HeldUp,
}

impl World {
    pub(super) fn new(schedule: &Schedule, traced: bool) -> Self {
        let mut random = Random::new(schedule.seed);
        let limits = Limits {
            drain_timeout: random.one_of(&[None, None, Some(secs(4))]),
            max_generations: random.one_of(&[1, 2, 3, 8]),
            hang_timeout: random.one_of(&[None, Some(secs(3)), Some(secs(30))]),
            ready_timeout: random.one_of(&[secs(3), secs(30)]),
            ..Limits::default()
        };
        let crew = Self::crew(&mut random);
        let log_server = random.chance(90).then_some(Role::LogServer);
        let processes = u8::from(random.chance(50));
        let processes = (0..processes).map(|index| Role::Process(u32::from(index)));
        let supervisor = Supervisor::new(log_server.into_iter().chain(processes), crew, limits);
        let mut world = Self {
            supervisor,
            twin: None,
            limits,
            now: Instant::from_nanos(5),
            coming: BTreeMap::new(),
            sequence: 0,
            next_pid: 1000,
            trouble: random.one_of(&[0, 5, 30, 80]),
            random,
            processes: BTreeMap::new(),
            spawning: BTreeSet::new(),
            early_deaths: BTreeMap::new(),
            ended_at: BTreeMap::new(),
            generations: BTreeMap::from([(1, Standing::Current)]),
            current: 1,
            is_retired: false,
            successor: None,
            may_end: BTreeSet::new(),
            has_passed: false,
            owed: BTreeMap::new(),
            owed_replaces: BTreeSet::new(),
            is_new_image: false,
            stopping: None,
            was_held_up: false,
            held_up: Duration::ZERO,
            held_up_in_stop: Duration::ZERO,
            announced: false,
            workers_gone: false,
            finished: false,
            seen: Seen::default(),
            crews: BTreeMap::from([(1, crew)]),
            planned: 0,
            left_out: schedule.left_out.clone(),
            trace: traced.then(Vec::new),
        };
        world.trouble = world.trouble.min(schedule.most_trouble);
        world.plan();
        world
    }

    /// A line of the trace.
    pub(super) fn say(&mut self, line: impl FnOnce() -> String) {
        if let Some(trace) = &mut self.trace {
            let us = self.now.as_nanos() / 1000;
            trace.push(format!("{:>9}.{:03} ms  {}", us / 1000, us % 1000, line()));
        }
    }

    /// What came of it; `violation` is the panic of the check that failed.
    pub(super) fn outcome(&mut self, violation: Option<String>) -> Outcome {
        let trace = self.trace.take().unwrap_or_default();
        Outcome { violation, trace, seen: std::mem::take(&mut self.seen) }
    }

    pub(super) fn run(&mut self) {
        self.handle(Event::Start);
        self.carry_out();
        for _ in 0..MAX_EVENTS {
            if self.finished {
                assert_eq!(self.supervisor.poll_timeout(), None);
                return;
            }
            self.step();
            self.carry_out();
            self.check_turn();
            self.make_twin();
        }
        panic!("no end after {MAX_EVENTS} events: {:?}", self.supervisor);
    }

    pub(super) fn process(&mut self, child: ChildId) -> &mut Process {
        self.processes.get_mut(&child).unwrap_or_else(|| panic!("{child:?} has no process"))
    }

    /// What the world does with an order; whether it may be given is checked before.
    pub(super) fn obey(&mut self, order: Order) {
        match order {
            Order::Spawn { child } => {
                self.spawning.insert(child);
                let failed = self.random.below(400) < self.trouble;
                let longest_ms = self.random.one_of(&[1, 3, 300]);
                self.later(
                    longest_ms,
                    if failed { Coming::SpawnFailed(child) } else { Coming::Spawned(child) },
                );
            }
            Order::Stop { child } => self.told(child, Measure::Stop, 2_500),
            Order::Quit { child, .. } => self.told(child, Measure::Quit, 40_000),
            Order::Kill { child } => {
                let pid = self.process(child).pid;
                self.process(child).told = Some(Measure::Kill);
                self.later(5, Coming::Of(child, pid, Doing::Die));
            }
            Order::Ping { child } => self.pinged(child),
            Order::Cover { slot, by, .. } => assert!(self.process(by).covers.insert(slot)),
            Order::Uncover { slot, by } => assert!(self.process(by).covers.remove(&slot)),
            Order::PauseAccept { child } => self.process(child).is_paused = true,
            Order::ResumeAccept { child } => self.process(child).is_paused = false,
            Order::Prepare { generation } => {
                let refused = self.random.chance(self.trouble / 3 + if self.is_new_image { 15 } else { 3 });
                let longest_ms = self.random.one_of(&[1, 50, 3_000]);
                let coming =
                    if refused { Coming::PrepareFailed(generation) } else { Coming::Prepared(generation) };
                self.later(longest_ms, coming);
            }
            Order::TakeOver => self.take_over(),
            Order::Revert => self.revert(),
            _ => {}
        }
    }

    /// Whether something that a child has said in time has not been read, because the master was held up.
    pub(super) fn has_unread(&self, child: ChildId, due: Instant) -> bool {
        let pid = self.processes[&child].pid;
        let said = self.coming.iter().take_while(|((at, _), _)| *at < due && *at <= self.now);
        let is_word = |what: &Coming| match what {
            Coming::Of(id, of, Doing::Ready | Doing::Pong) => (*id, *of) == (child, pid),
            _ => false,
        };
        said.map(|(_, what)| what).any(is_word)
    }

    pub(super) fn poll_order(&mut self) -> Option<Order> {
        let order = self.supervisor.poll_order();
        if let Some(twin) = &mut self.twin {
            assert_eq!(twin.poll_order(), order, "a twin goes another way");
        }
        order
    }

    /// A stop at any moment, and what is asked for before it.
    fn plan(&mut self) {
        let longest_ms = self.random.one_of(&[20, 2_000, 20_000, 60_000, 90_000]);
        let stop = self.random.one_of(&[Signal::TERM, Signal::INT, Signal::QUIT, Signal::QUIT]);
        let stops_at = self.random.below(longest_ms);
        let mut planned = Vec::new();
        for _ in 0..self.random.below(4) {
            let after = stops_at.saturating_sub(self.random.below(300));
            let signal = self.random.one_of(&[Signal::HUP, Signal::USR2]);
            planned.push((millis(after), Coming::Signal(signal)));
        }
        if self.random.chance(30) {
            planned.push((self.within(longest_ms * 2), Coming::Signal(Signal::TERM)));
        }
        for _ in 0..self.random.below(50) {
            let what = match self.random.below(32) {
                0..=7 => Coming::Signal(Signal::HUP),
                8..=15 => Coming::Signal(Signal::USR2),
                16 => Coming::Signal(Signal::WINCH),
                17 => Coming::Signal(Signal::USR1),
                18..=21 => Coming::Replace,
                22..=25 => Coming::Pause,
                26..=29 => Coming::Resume,
                _ => Coming::HeldUp,
            };
            planned.push((self.within(longest_ms), what));
        }
        if self.random.chance(10) {
            let at = self.random.below(longest_ms);
            for _ in 0..100 {
                let after = at + self.random.below(5);
                planned.push((millis(after), Coming::Signal(Signal::HUP)));
            }
        }
        self.planned = planned.len();
        for (place, (after, what)) in planned.into_iter().enumerate() {
            if !self.left_out.contains(&place) {
                self.at(self.now + after, what);
            }
        }
        // Without it there is no end.
        self.at(self.now + millis(stops_at), Coming::Signal(stop));
    }

    fn within(&mut self, longest_ms: u64) -> Duration {
        Duration::from_micros(self.random.below(longest_ms * 1000))
    }

    fn step(&mut self) {
        let coming = self.coming.first_key_value().map(|((at, _), _)| *at);
        let timeout = self.supervisor.poll_timeout();
        let Some(next) = coming.into_iter().chain(timeout).min() else {
            panic!("nothing will happen any more: {:?}", self.supervisor);
        };
        // What has arrived is read before a timeout, but for what came while the master was held up behind its reading.
        let is_read_first = coming.is_some_and(|at| at <= self.now) && !std::mem::take(&mut self.was_held_up);
        self.now = self.now.max(next);
        self.check_time();
        if coming != Some(next) && !is_read_first {
            return self.handle(Event::Timeout);
        }
        let Some((_, what)) = self.coming.pop_first() else { return };
        if let Some(event) = self.happen(what) {
            self.handle(event);
        }
    }

    fn handle(&mut self, event: Event) {
        self.say(|| format!("event: {event:?}"));
        self.note_request(event);
        self.supervisor.handle(event, self.now);
        if let Some(twin) = &mut self.twin {
            twin.handle(event, self.now);
            assert_eq!(twin.poll_timeout(), self.supervisor.poll_timeout());
        }
    }

    /// What is coming has come; `None` when it is nothing to the supervisor.
    fn happen(&mut self, what: Coming) -> Option<Event> {
        match what {
            Coming::Signal(signal) => Some(Event::Signal(signal)),
            Coming::Spawned(child) => Some(self.spawned(child)),
            Coming::SpawnFailed(child) => {
                self.spawning.remove(&child);
                *self.early_deaths.entry(child).or_default() += 1;
                self.ended_at.insert(child, self.now);
                Some(Event::SpawnFailed { child })
            }
            Coming::Of(child, pid, doing) => self.act(child, pid, doing),
            Coming::Prepared(generation) => {
                let crew = Self::crew(&mut self.random);
                self.crews.insert(generation, crew);
                let standing = self.generations.get_mut(&generation)?;
                if *standing == Standing::Preparing {
                    *standing = Standing::Trial(crew);
                }
                Some(Event::Prepared { generation, crew })
            }
            Coming::PrepareFailed(generation) => {
                self.seen.at("prepare refused");
                Some(Event::PrepareFailed { generation })
            }
            Coming::Replace => Some(Event::Replace { child: self.any_child() }),
            Coming::Pause => Some(Event::Pause { child: self.any_child() }),
            Coming::Resume => Some(Event::Resume { child: self.any_child() }),
            Coming::HeldUp => {
                let time = self.random.one_of(&[millis(90), millis(700), secs(40)]);
                self.now += time;
                self.was_held_up = self.random.chance(50);
                self.held_up += time;
                if self.stopping.is_some() {
                    self.held_up_in_stop += time;
                }
                None
            }
        }
    }

    fn take_over(&mut self) {
        self.has_passed = false;
        self.is_new_image = true;
        match self.random.below(6) {
            0 => {
                self.seen.at("take-over failed");
                self.is_new_image = false;
                self.handle(Event::TakeOverFailed);
            }
            1 => {
                self.seen.at("reverted by the driver");
                self.is_new_image = false;
                self.exec(Thawed::Old);
            }
            _ => self.exec(Thawed::New),
        }
    }

    fn revert(&mut self) {
        self.is_new_image = false;
        if self.random.chance(50) {
            self.seen.at("revert failed");
            self.handle(Event::TakeOverFailed);
        } else {
            self.seen.at("reverted by the new image");
            self.exec(Thawed::Old);
        }
    }

    fn exec(&mut self, as_: Thawed) {
        self.twin = None;
        self.now += millis(self.random.below(60));
        self.supervisor = Self::thawed(&self.supervisor, self.limits, as_, self.now);
    }

    fn thawed(supervisor: &Supervisor, limits: Limits, as_: Thawed, now: Instant) -> Supervisor {
        let frozen = serde_json::to_string(&supervisor.freeze()).expect("numbers and names are JSON");
        let frozen = serde_json::from_str(&frozen).expect("what was written can be read");
        Supervisor::thaw(frozen, limits, as_, now)
    }

    /// Freezes and thaws at any moment at which no start is unanswered, and goes on with both.
    fn make_twin(&mut self) {
        if self.twin.is_some() && self.random.chance(1) {
            self.seen.at("twin agreed");
            assert_eq!(self.twin.take().map(|twin| twin.freeze()), Some(self.supervisor.freeze()));
        } else if self.twin.is_none() && self.is_at_rest() && self.random.chance(1) {
            let mut twin = Self::thawed(&self.supervisor, self.limits, Thawed::New, self.now);
            assert_eq!(twin.poll_order(), None, "a supervisor at rest has nothing to say");
            self.twin = Some(twin);
        }
    }

    pub(super) fn is_at_rest(&self) -> bool {
        self.spawning.is_empty() && self.supervisor.poll_timeout().is_none_or(|at| at > self.now)
    }

    fn any_child(&mut self) -> ChildId {
        let is_meant = self.random.chance(80);
        let all = self.supervisor.children();
        let all = all.filter(|(_, slot)| !is_meant || (slot_of(slot.role).is_some() && !slot.is_retired));
        let all: Vec<ChildId> = all.map(|(id, _)| id).collect();
        match all[..] {
            [] => ChildId(0),
            _ => self.random.one_of(&all),
        }
    }

    fn crew(random: &mut Random) -> Crew {
        Crew { workers: random.one_of(&[0, 1, 2, 3, 4]), acceptor: random.chance(40) }
    }

    pub(super) fn later(&mut self, longest_ms: u64, what: Coming) {
        let after = self.within(longest_ms);
        self.at(self.now + after, what);
    }

    fn at(&mut self, at: Instant, what: Coming) {
        self.sequence += 1;
        self.coming.insert((at, self.sequence), what);
    }

    /// An answer is owed from now on.
    fn note_request(&mut self, event: Event) {
        let operation = match event {
            Event::Signal(Signal::HUP) => Operation::Reload,
            Event::Signal(Signal::USR2) => Operation::Upgrade,
            Event::Replace { child } => {
                self.owed_replaces.insert(child);
                return;
            }
            _ => return,
        };
        let is_under_way = self.supervisor.operation() == Some(operation);
        let owed = self.owed.entry(super::checks::name(operation)).or_default();
        *if is_under_way { &mut owed.1 } else { &mut owed.0 } = true;
    }
}
