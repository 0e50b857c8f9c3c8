//! What must hold: of each order when it is given, of each turn, and of the time that it all takes.

use tidegate_engine::Instant;
use tidegate_process::Role;
use tidegate_process::supervisor::{
    ChildId, Measure, Operation, Order, Outcome, Report, Slot, State, StopKind, Why,
};

use super::children::Process;
use super::world::{Standing, World};
use super::{secs, slot_of};

impl World {
    pub(super) fn carry_out(&mut self) {
        while let Some(order) = self.poll_order() {
            assert!(!self.finished, "{order:?} after the end");
            self.say(|| format!("order: {order:?}"));
            self.check(order);
            self.obey(order);
        }
    }

    fn check(&mut self, order: Order) {
        match order {
            Order::Spawn { child } => self.check_spawn(child),
            Order::Stop { child } => self.check_end(child, Measure::Stop),
            Order::Quit { child, .. } => self.check_end(child, Measure::Quit),
            Order::Kill { child } => {
                self.seen.at("kill");
                self.check_end(child, Measure::Kill);
            }
            Order::Reopen { child } => assert!(self.processes.contains_key(&child)),
            Order::Ping { child } => {
                let drains = State::Ending { measure: Measure::Quit, deadline: Instant::MAX };
                let has_time = self.supervisor.child(child).is_some_and(|slot| slot.state == drains);
                let process = self.process(child);
                assert!(process.pinged_at.is_none() && process.ready_at.is_some());
                assert!(process.told.is_none() || (process.told == Some(Measure::Quit) && has_time));
                assert!(process.is_of_crew());
            }
            Order::Cover { absent, slot, by } => self.check_cover(absent, slot, by),
            Order::Uncover { .. } => self.seen.at("uncover"),
            Order::PauseAccept { .. } => self.seen.at("pause"),
            Order::ResumeAccept { .. } => self.seen.at("resume"),
            Order::Prepare { generation } => self.check_prepare(generation),
            Order::Commit { generation } => self.check_commit(generation),
            Order::Forget { generation } => self.check_forget(generation),
            Order::TakeOver | Order::Revert => {
                assert!(self.stopping.is_none() && self.spawning.is_empty());
                assert_eq!(self.supervisor.operation(), Some(Operation::Upgrade));
                assert_eq!(self.is_new_image, order == Order::Revert);
                assert!(self.has_passed || order == Order::Revert, "by a binary that did not pass");
                assert_eq!(self.poll_order(), None, "what is left would be lost");
            }
            Order::Done { operation, outcome } => self.check_done(operation, outcome),
            Order::AnnounceReady => {
                assert!(!self.announced && self.stopping.is_none(), "announced once, and not in a stop");
                let is_ready = |id: ChildId| self.processes.get(&id).is_some_and(|it| it.ready_at.is_some());
                let mut awaited = self
                    .supervisor
                    .children()
                    .filter(|(_, slot)| !matches!(slot.role, Role::LogServer | Role::Probe));
                assert!(awaited.all(|(id, _)| is_ready(id)), "not all serve");
                self.announced = true;
                self.seen.at("announced");
            }
            Order::AnnounceStop => self.check_announced_stop(),
            Order::Report(report) => self.note_report(report),
            Order::WorkersGone => {
                let is_last = |process: &Process| process.role == Role::LogServer;
                assert!(self.processes.values().all(is_last), "the log server is last");
                self.workers_gone = true;
            }
            Order::Finish { .. } => {
                assert!(self.processes.is_empty() && self.spawning.is_empty(), "a child is left");
                assert!(self.workers_gone);
                assert!(self.owed.values().all(|owed| *owed == (false, false)), "{:?}", self.owed);
                assert!(self.owed_replaces.is_empty(), "{:?}", self.owed_replaces);
                self.finished = true;
            }
        }
    }

    fn check_spawn(&mut self, child: ChildId) {
        assert!(self.stopping.is_none(), "spawned in a stop");
        assert!(!self.processes.contains_key(&child), "two processes of one child");
        assert!(!self.spawning.contains(&child), "spawned twice");
        let slot = self.supervisor.child(child).expect(KNOWN);
        assert!(!slot.is_retired && !self.may_end.contains(&child), "spawned and retired");
        match self.generations.get(&slot.generation) {
            None => assert!(slot.generation == 0, "of a generation that is not known"),
            Some(Standing::Current) => {
                assert!(!self.is_retired, "spawned and retired");
                let is_new = !self.ended_at.contains_key(&child);
                if is_new && matches!(self.supervisor.operation(), Some(Operation::Replace(_))) {
                    self.successor = Some(child);
                }
            }
            Some(standing) => {
                assert!(
                    matches!(standing, Standing::Trial(_)),
                    "spawned for a generation that is {standing:?}"
                );
                assert!(!self.ended_at.contains_key(&child), "started again on trial");
            }
        }
        if let Some(ended_at) = self.ended_at.get(&child) {
            let early_deaths = self.early_deaths[&child];
            let waited = self.now.saturating_duration_since(*ended_at);
            let delay = self.limits.restart_delay(early_deaths);
            assert!(waited >= delay, "back-off after {early_deaths} early deaths");
            assert!(waited == delay || !self.held_up.is_zero() || self.has_been_frozen(), "too late");
            if !delay.is_zero() {
                self.seen.at("restart after back-off");
            }
        }
    }

    /// An exec takes a while too.
    fn has_been_frozen(&self) -> bool {
        ["take-over failed", "reverted by the driver", "reverted by the new image", "upgrade done"]
            .iter()
            .any(|place| self.seen.counts.contains_key(place))
            || self.is_new_image
    }

    fn check_end(&mut self, child: ChildId, measure: Measure) {
        let is_stopping = self.stopping.is_some();
        let is_fast = self.stopping.is_some_and(|(_, kind)| kind == StopKind::Fast);
        let process = self.processes.get(&child).unwrap_or_else(|| panic!("{child:?} has no process"));
        let standing = self.generations.get(&process.generation);
        let on_trial = matches!(standing, Some(Standing::Trial(_) | Standing::Failed))
            || process.role == Role::Probe
            || self.successor == Some(child);
        let has_reason = is_stopping || on_trial || process.has_asked || self.may_end.contains(&child);
        assert!(has_reason, "{child:?} {process:?} did no wrong");
        assert!(process.told <= Some(measure), "softer than before");
        if process.role == Role::LogServer && !process.has_asked && !self.may_end.contains(&child) {
            assert!(self.workers_gone, "log server too early");
        }
        let is_last = |it: &Process| it.role == Role::Acceptor && it.generation == process.generation;
        // One that somebody has signalled ends its generation's trial, in which nobody is fed yet.
        let spoils_trial = process.has_asked && matches!(standing, Some(Standing::Trial(_)));
        let is_retired =
            standing != Some(&Standing::Current) && !spoils_trial || self.is_retired || is_stopping;
        let is_worker = matches!(process.role, Role::Worker(_));
        if measure == Measure::Quit && is_worker && is_retired && !is_fast {
            let is_fed = self.processes.values().any(is_last)
                || self.spawning.iter().any(|id| {
                    let slot = self.supervisor.child(*id).expect(KNOWN);
                    slot.role == Role::Acceptor && slot.generation == process.generation
                });
            assert!(!is_fed, "told to quit before its acceptor has ended");
        }
        if standing == Some(&Standing::Failed) && measure == Measure::Quit {
            self.seen.at("failed crew drains");
        }
        if process.role == Role::Acceptor && !is_stopping && measure == Measure::Quit {
            self.seen.at("acceptor retired");
        }
    }

    fn check_cover(&mut self, absent: ChildId, slot: u32, by: ChildId) {
        assert!(self.stopping.is_none() && absent != by);
        let absent = self.supervisor.child(absent).expect(KNOWN);
        assert_eq!(absent.role, Role::Worker(slot));
        if absent.is_retired {
            self.seen.at("left to a neighbour");
            let generation = absent.generation;
            let hands_over = self.crews.get(&generation).is_some_and(|crew| crew.acceptor);
            assert!(hands_over, "nothing is left by an acceptor");
            let process = self.process(by);
            assert_eq!(process.generation, generation);
            assert!(matches!(process.role, Role::Worker(_)) && process.told.is_none());
            return;
        }
        self.seen.at("cover");
        assert!(!self.is_retired);
        assert_eq!(absent.generation, self.current);
        if self.processes.values().any(|it| it.covers.contains(&slot) && it.generation == self.current) {
            self.seen.at("cover handed on");
        }
        let current = self.current;
        let process = self.process(by);
        assert_eq!(process.generation, current);
        assert!(matches!(process.role, Role::Worker(_)));
        assert!(process.ready_at.is_some() && process.told.is_none() && !process.is_paused);
    }

    fn check_prepare(&mut self, generation: u32) {
        assert!(self.stopping.is_none() && self.announced);
        let is_there = |standing: &&Standing| **standing != Standing::Forgotten;
        let live = self.generations.values().filter(is_there).count() + 1;
        let most = self.limits.max_generations.max(2);
        assert!(live as u64 <= u64::from(most), "{live} generations, {:?}", self.generations);
        assert_eq!(self.generations.last_key_value().map(|(number, _)| number + 1), Some(generation));
        self.generations.insert(generation, Standing::Preparing);
        assert!(self.supervisor.operation() != Some(Operation::Upgrade) || self.is_new_image);
    }

    fn check_commit(&mut self, generation: u32) {
        assert!(self.stopping.is_none());
        let Some(Standing::Trial(crew)) = self.generations.insert(generation, Standing::Current) else {
            panic!("committed without a trial: {:?}", self.generations);
        };
        let of = self.processes.values().filter(|process| process.generation == generation);
        let serving = of.filter(|process| process.ready_at.is_some() && process.told.is_none()).count();
        assert_eq!(serving as u64, u64::from(crew.workers) + u64::from(crew.acceptor));
        let before = std::mem::replace(&mut self.current, generation);
        self.generations.insert(before, Standing::Retired);
        self.is_retired = false;
        let retired = self.supervisor.children().filter(|(_, slot)| slot.generation == before);
        self.may_end.extend(retired.map(|(id, _)| id));
        for process in self.processes.values_mut() {
            process.covers.clear();
        }
    }

    fn check_forget(&mut self, generation: u32) {
        assert!(self.processes.values().all(|process| process.generation != generation), "it has a process");
        for id in &self.spawning {
            assert_ne!(self.supervisor.child(*id).map(|slot| slot.generation), Some(generation));
        }
        let standing = self.generations.insert(generation, Standing::Forgotten);
        let is_over = |it: Standing| !matches!(it, Standing::Current | Standing::Forgotten);
        assert!(standing.is_some_and(is_over), "{generation} is {standing:?}");
    }

    fn check_done(&mut self, operation: Operation, outcome: Outcome) {
        match operation {
            Operation::Replace(child) => {
                assert!(self.owed_replaces.remove(&child), "{child:?} is answered twice");
            }
            Operation::Reload | Operation::Upgrade => {
                let owed = self.owed.entry(name(operation)).or_default();
                assert!(owed.0, "{operation:?} is answered twice");
                *owed = (owed.1, false);
            }
        }
        match (operation, outcome) {
            (_, Outcome::Failed(Why::Stopping)) => assert!(self.stopping.is_some()),
            (Operation::Replace(_), Outcome::Failed(Why::Busy)) => self.seen.at("replace refused"),
            (Operation::Replace(old), Outcome::Done { .. }) => {
                self.seen.at("replace done");
                self.may_end.insert(old);
                self.successor = None;
            }
            (Operation::Replace(_), Outcome::Failed(_)) => {
                self.may_end.extend(self.successor.take());
                self.seen.at("replace failed");
            }
            (Operation::Reload, Outcome::Done { .. }) => self.seen.at("reload done"),
            (Operation::Reload, Outcome::Failed(Why::Child { .. })) => {
                self.seen.at("reload failed by a child")
            }
            (Operation::Upgrade, Outcome::Done { .. }) => {
                assert!(self.is_new_image);
                self.seen.at("upgrade done");
            }
            (Operation::Upgrade, Outcome::Failed(Why::Probe { .. })) => self.seen.at("probe failed"),
            _ => {}
        }
        if operation == Operation::Upgrade {
            self.is_new_image = false;
        }
        if let Outcome::Done { generation } = outcome {
            assert_eq!(generation, self.current);
            assert!(self.stopping.is_none());
        }
        if !matches!(operation, Operation::Replace(_)) && matches!(outcome, Outcome::Failed(_)) {
            self.fail_trial();
        }
    }

    fn fail_trial(&mut self) {
        for standing in self.generations.values_mut() {
            if matches!(standing, Standing::Preparing | Standing::Trial(_)) {
                *standing = Standing::Failed;
            }
        }
    }

    fn check_announced_stop(&mut self) {
        assert!(self.stopping.is_none(), "announced once");
        if self.owed.values().any(|owed| owed.0) {
            self.seen.at("stop in an operation");
        }
        if self.owed.values().any(|owed| owed.1) {
            self.seen.at("stop with a request waiting");
        }
        if self.generations.values().any(|standing| *standing == Standing::Retired) {
            self.seen.at("stop with a retired generation");
        }
        // How is told right behind.
        self.stopping = Some((self.now, StopKind::Graceful));
        for process in self.processes.values_mut() {
            process.covers.clear();
        }
    }

    fn note_report(&mut self, report: Report) {
        match report {
            Report::Stopping(kind) => self.stopping = Some((self.now, kind)),
            Report::StartFailed { .. } => {
                assert!(!self.announced);
                self.seen.at("start failed");
            }
            Report::NotReady { child, .. } => {
                self.seen.at("not ready");
                assert!(self.process(child).ready_at.is_none());
                let due = self.process(child).started_at + self.limits.ready_timeout;
                assert!(!self.has_unread(child, due), "it was READY in time");
                self.may_end_once(child);
            }
            Report::Hung { child, .. } => {
                self.seen.at("hung");
                let limit = self.limits.hang_timeout.expect("a limit, since there is no hanging without");
                let due = self.process(child).pinged_at.expect("a ping that waits") + limit;
                assert!(!self.has_unread(child, due), "it has answered in time");
                self.may_end_once(child);
            }
            Report::Stuck { .. } => self.seen.at("stuck"),
            Report::Answers { .. } => self.seen.at("answers"),
            Report::Waits(_) => self.seen.at("waits"),
            Report::Retired { generation } => {
                assert_eq!(generation, self.current);
                self.seen.at("workers retired");
                self.is_retired = true;
                let retired = self.supervisor.children().filter(|(_, slot)| slot.generation == generation);
                self.may_end.extend(retired.map(|(id, _)| id));
                for process in self.processes.values_mut() {
                    process.covers.clear();
                }
            }
            _ => {}
        }
    }

    /// This process of a child may be ended, but the next may be started.
    fn may_end_once(&mut self, child: ChildId) {
        self.process(child).has_asked = true;
    }

    pub(super) fn check_turn(&mut self) {
        self.check_slots();
        self.check_watch();
        self.check_generations();
        self.check_stop();
    }

    /// In a stop nobody may take as long as it needs, once it cannot be handed connections any more.
    fn check_stop(&self) {
        let acceptors = self.processes.values().filter(|process| process.role == Role::Acceptor);
        let fed: Vec<u32> = acceptors.map(|process| process.generation).collect();
        for (id, slot) in self.supervisor.children().filter(|_| self.stopping.is_some()) {
            if let State::Ending { deadline, .. } = slot.state
                && !fed.contains(&slot.generation)
            {
                assert!(deadline <= self.now + secs(31), "{id:?} {slot:?}");
            }
        }
    }

    /// What has ended is forgotten at once.
    fn check_generations(&self) {
        let is_over = |standing: &Standing| matches!(standing, Standing::Retired | Standing::Failed);
        for (number, _) in self.generations.iter().filter(|(_, standing)| is_over(standing)) {
            let is_of = |id: &ChildId| self.supervisor.child(*id).is_some_and(|it| it.generation == *number);
            let is_left = self.processes.keys().chain(&self.spawning).any(is_of);
            assert!(is_left, "generation {number} is kept for nothing: {:?}", self.supervisor);
        }
    }

    /// A slot is never without an accepter while any worker lives, answers and may accept.
    fn check_slots(&mut self) {
        if self.stopping.is_some() || self.is_retired {
            return;
        }
        let is_owner = |id: ChildId, slot: &Slot| {
            slot.generation == self.current && !slot.is_retired && Some(id) != self.successor
        };
        let serves = |id: ChildId, slot: &Slot| {
            let may = |it: &Process| it.ready_at.is_some() && it.told.is_none() && !it.is_paused;
            self.processes.get(&id).is_some_and(may) && !slot.is_stuck
        };
        let owners: Vec<(ChildId, u32, bool, bool)> = self
            .supervisor
            .children()
            .filter(|(id, slot)| is_owner(*id, slot))
            .filter_map(|(id, slot)| {
                let had_its_turn = self.announced || slot.restarts > 0 || slot.ready_at.is_some();
                Some((id, slot_of(slot.role)?, serves(id, slot), had_its_turn))
            })
            .collect();
        let mut is_bare = false;
        for (owner, slot, serves, had_its_turn) in &owners {
            let covers = |(_, it): &(&ChildId, &Process)| {
                it.covers.contains(slot) && it.told.is_none() && it.generation == self.current
            };
            let by: Vec<ChildId> = self.processes.iter().filter(covers).map(|(id, _)| *id).collect();
            let candidates = owners.iter().filter(|(id, ..)| id != owner).filter(|(_, _, serves, _)| *serves);
            let candidates: Vec<ChildId> = candidates.map(|(id, ..)| *id).collect();
            if *serves || candidates.is_empty() || !had_its_turn {
                assert_eq!(by, [], "slot {slot} is covered for nothing");
                is_bare |= !serves && self.announced;
            } else {
                assert!(
                    by.len() == 1 && candidates.contains(&by[0]),
                    "slot {slot}: {by:?} of {candidates:?}"
                );
            }
        }
        if is_bare {
            self.seen.at("nobody to cover");
        }
    }

    /// Who does not answer is known, and who answers is not blamed.
    fn check_watch(&self) {
        for (id, process) in &self.processes {
            let Some(slot) = self.supervisor.child(*id) else { panic!("{id:?} is not known") };
            assert_eq!(slot.pid, Some(process.pid));
            if slot.is_stuck {
                assert!(process.pinged_at.is_some(), "{slot:?} has answered");
            }
            let waits = process.pinged_at.map(|at| self.now.saturating_duration_since(at));
            let is_exact = self.is_at_rest()
                && self.held_up.is_zero()
                && !self.has_been_frozen()
                && self.stopping.is_none();
            let Some(waits) = waits.filter(|_| is_exact && slot.state == State::Ready) else { continue };
            assert_eq!(slot.is_stuck, waits >= self.limits.ping_timeout, "after {waits:?}");
            assert!(self.limits.hang_timeout.is_none_or(|limit| waits < limit), "{slot:?} hangs");
        }
    }

    /// A stop is bounded, whatever the children do.
    pub(super) fn check_time(&self) {
        if let Some((since, kind)) = self.stopping {
            let limit = match kind {
                // Stop and kill of workers, then quit, stop and kill of the log server; a child may just be starting.
                StopKind::Fast => secs(2 + 1 + 3 + 2 + 1),
                StopKind::Graceful => secs(31 + 2 + 1 + 3 + 2 + 1),
            };
            let passed = self.now.saturating_duration_since(since);
            assert!(
                passed <= limit + self.held_up_in_stop,
                "{kind} stop for {passed:?}: {:?}",
                self.supervisor
            );
        }
    }
}

/// Why a child that an order names is there.
const KNOWN: &str = "orders are about children that are known";

pub(super) fn name(operation: Operation) -> &'static str {
    match operation {
        Operation::Reload => "reload",
        Operation::Upgrade => "upgrade",
        Operation::Replace(_) => "replace",
    }
}
