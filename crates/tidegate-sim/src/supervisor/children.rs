//! The children: processes that do what they should, or not.

use std::collections::BTreeSet;

use tidegate_process::supervisor::{ChildId, Event, Measure};
use tidegate_process::{ExitStatus, Role};
use tidegate_timer::Instant;

use super::NO_GENERATION;
use super::world::{Coming, World};

#[derive(Debug)]
pub(super) struct Process {
    pub(super) pid: u32,
    pub(super) role: Role,
    pub(super) generation: u32,
    pub(super) started_at: Instant,
    pub(super) ready_at: Option<Instant>,
    pub(super) told: Option<Measure>,
    pub(super) covers: BTreeSet<u32>,
    pub(super) is_paused: bool,
    pub(super) pinged_at: Option<Instant>,
    pub(super) is_mute: bool,
    /// It was signalled by somebody, and asked.
    pub(super) has_asked: bool,
}

/// What a process does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing {
    Ready,
    Pong,
    Die,
    RefuseConfiguration,
    EndProbe,
    Ask,
    FallMute,
    Speak,
    /// Says everything that it can say many times over.
    Burst,
}

impl World {
    pub(super) fn spawned(&mut self, child: ChildId) -> Event {
        self.spawning.remove(&child);
        self.next_pid += 1;
        let pid = self.next_pid;
        let slot = self.supervisor.child(child).expect("it was ordered");
        let process = Process {
            pid,
            role: slot.role,
            generation: slot.generation,
            started_at: self.now,
            ready_at: None,
            told: None,
            covers: BTreeSet::new(),
            is_paused: false,
            pinged_at: None,
            is_mute: false,
            has_asked: false,
        };
        self.processes.insert(child, process);
        if self.random.chance(self.trouble) {
            let kind = if self.random.chance(4) { Doing::RefuseConfiguration } else { Doing::Die };
            let longest_ms = self.random.one_of(&[10, 600, 30_000]);
            self.later(longest_ms, Coming::Of(child, pid, kind));
        }
        // Some are never READY, and some later than they may.
        if !self.random.chance(self.trouble / 4) {
            let longest_ms = if self.random.chance(self.trouble / 2) { 40_000 } else { 50 };
            self.later(longest_ms, Coming::Of(child, pid, Doing::Ready));
        }
        if self.random.chance(self.trouble / 3) {
            self.later(20_000, Coming::Of(child, pid, Doing::FallMute));
        }
        if self.random.chance(3) {
            self.later(5_000, Coming::Of(child, pid, Doing::Ask));
        }
        if self.random.chance(self.trouble / 3) {
            self.later(20_000, Coming::Of(child, pid, Doing::Burst));
        }
        Event::Spawned { child, pid }
    }

    pub(super) fn act(&mut self, child: ChildId, pid: u32, doing: Doing) -> Option<Event> {
        let process = self.processes.get_mut(&child).filter(|process| process.pid == pid)?;
        match doing {
            Doing::Ready => {
                if process.ready_at.is_some() {
                    return Some(Event::Ready { child });
                }
                process.ready_at = Some(self.now);
                if process.role == Role::Probe && !self.random.chance(self.trouble / 4) {
                    self.later(100, Coming::Of(child, pid, Doing::EndProbe));
                }
                Some(Event::Ready { child })
            }
            Doing::Pong => {
                process.pinged_at = None;
                Some(Event::Pong { child })
            }
            Doing::Ask => {
                process.has_asked = true;
                Some(Event::Signalled { child })
            }
            Doing::Burst => {
                let is_ready = process.ready_at.is_some();
                self.seen.at("burst of messages");
                for _ in 0..self.random.below(30) {
                    let word = if is_ready { Doing::Ready } else { Doing::Pong };
                    let word = self.random.one_of(&[word, Doing::Pong]);
                    self.later(3, Coming::Of(child, pid, word));
                }
                None
            }
            Doing::FallMute => {
                process.is_mute = true;
                if self.random.chance(60) {
                    self.later(5_000, Coming::Of(child, pid, Doing::Speak));
                }
                None
            }
            Doing::Speak => {
                process.is_mute = false;
                process.pinged_at.take().map(|_| Event::Pong { child })
            }
            Doing::Die | Doing::RefuseConfiguration | Doing::EndProbe => Some(self.die(child, doing)),
        }
    }

    fn die(&mut self, child: ChildId, doing: Doing) -> Event {
        let process = self.processes.remove(&child).expect("what dies has lived");
        let refuses = matches!(doing, Doing::RefuseConfiguration) && process.ready_at.is_none();
        let failed_probe = matches!(doing, Doing::EndProbe) && self.random.chance(self.trouble / 2);
        let status = match (process.told, doing) {
            _ if refuses || failed_probe => ExitStatus::Code(2),
            (_, Doing::EndProbe) | (Some(Measure::Quit | Measure::Stop), _) => ExitStatus::Code(0),
            _ => ExitStatus::Signal(9),
        };
        if process.role == Role::Probe {
            self.has_passed |= process.ready_at.is_some() && process.told.is_none() && status.is_success();
        }
        let served = process.ready_at.map(|at| self.now.saturating_duration_since(at));
        let is_early = served.is_none_or(|served| served < self.limits.healthy_after);
        let early_deaths = self.early_deaths.entry(child).or_default();
        *early_deaths = if is_early { *early_deaths + 1 } else { 0 };
        self.ended_at.insert(child, self.now);
        Event::Exited { child, status }
    }

    /// A child told to end does so after a while, or, in trouble, never.
    pub(super) fn told(&mut self, child: ChildId, measure: Measure, longest_ms: u64) {
        let process = self.process(child);
        process.told = Some(measure);
        let pid = process.pid;
        if self.random.below(150) >= self.trouble {
            self.later(longest_ms, Coming::Of(child, pid, Doing::Die));
        }
    }

    pub(super) fn pinged(&mut self, child: ChildId) {
        let now = self.now;
        let process = self.process(child);
        process.pinged_at = Some(now);
        let (pid, is_mute) = (process.pid, process.is_mute);
        if !is_mute && self.random.below(2_000) >= self.trouble {
            let longest_ms = if self.random.below(1_000) < self.trouble { 5_000 } else { 20 };
            self.later(longest_ms, Coming::Of(child, pid, Doing::Pong));
        }
    }
}

impl Process {
    pub(super) fn is_of_crew(&self) -> bool {
        self.generation != NO_GENERATION
    }
}
