//! Generations: a crew on trial becomes the current one, is retired, and is forgotten.
//!
//! The one invariant: exactly one generation is the current one, and it changes by a commit only. A retired generation's
//! acceptor ends before its workers are told to, and each of them has answered since, so that its channel is drained to the
//! end: by itself, or by a neighbour.

use serde::{Deserialize, Serialize};
use tidegate_timer::Instant;

use super::slot::{Slot, State};
use super::words::{ChildId, Crew, Measure, Order};
use super::{FIRST_GENERATION, Supervisor};
use crate::role::Role;

/// A generation that has processes, is to get some, or is the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Generation {
    pub(super) number: u32,
    pub(super) standing: Standing,
    /// Empty until it is prepared.
    #[serde(default)]
    pub(super) crew: Crew,
}

/// What a generation is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Standing {
    /// It is prepared or started, and may still fail.
    Trial,
    /// It serves.
    Current,
    /// Another one serves.
    Retired,
    /// It never served as a whole.
    Failed,
}

impl Generation {
    pub(super) fn first(crew: Crew) -> Self {
        Self { number: FIRST_GENERATION, standing: Standing::Current, crew }
    }
}

impl Supervisor {
    /// Adds the children of a generation, the workers to be started then. Its acceptor waits for them to serve, or to be
    /// released in the first start: what it accepts on trial must not be handed to one that fails.
    pub(super) fn add_crew(&mut self, generation: u32, crew: Crew, until: Instant) {
        for index in 0..crew.workers {
            self.add_child(Role::Worker(index), generation, until);
        }
        if crew.acceptor {
            self.add_child(Role::Acceptor, generation, Instant::MAX);
        }
    }

    /// The number of a new generation, which is on trial.
    pub(super) fn add_generation(&mut self) -> u32 {
        self.last_generation = self.last_generation.saturating_add(1);
        let number = self.last_generation;
        self.generations.push(Generation { number, standing: Standing::Trial, crew: Crew::default() });
        number
    }

    pub(super) fn has_room_for_generation(&self) -> bool {
        self.limits.has_room_beside(self.generations.len())
    }

    pub(super) fn set_crew(&mut self, generation: u32, crew: Crew) {
        if let Some(known) = self.generations.iter_mut().find(|known| known.number == generation) {
            known.crew = crew;
        }
    }

    /// Makes a generation the current one, and retires the one before.
    pub(super) fn commit(&mut self, generation: u32) {
        let before = std::mem::replace(&mut self.current, generation);
        self.set_standing(before, Standing::Retired);
        self.set_standing(generation, Standing::Current);
        self.retire_crew(before);
        // Who covered whom in the one before stays as it is: they drain what they hold.
        self.covers.clear();
        self.orders.push_back(Order::Commit { generation });
    }

    /// Ends a generation that was on trial.
    pub(super) fn give_up(&mut self, generation: u32) {
        self.set_standing(generation, Standing::Failed);
        self.retire_crew(generation);
    }

    /// Retires all that is left of a generation.
    pub(super) fn retire_crew(&mut self, generation: u32) {
        for id in self.crew_of(generation) {
            self.retire(id);
        }
    }

    /// Tells those that are retired to end, as soon as it is their turn.
    pub(super) fn settle_retired(&mut self, now: Instant) {
        if self.phase.is_stopping() {
            return;
        }
        let (stop_timeout, drain_timeout) = (self.limits.stop_timeout, self.limits.drain_timeout);
        for id in self.ids() {
            let Some(child) = self.children.get(&id).filter(|child| child.is_retired && child.is_up()) else {
                continue;
            };
            let is_ready = child.state == State::Ready;
            let has_failed = self.standing(child.generation) == Some(Standing::Failed);
            match child.role {
                Role::Probe => self.end(id, Measure::Stop, now),
                // It serves nobody, and nobody waits for it. One that is READY has accepted already, even on trial.
                _ if has_failed && !is_ready => self.end(id, Measure::Stop, now),
                // What waits in its sockets is accepted by the next acceptor.
                Role::Acceptor => self.quit(id, Some(stop_timeout), now),
                Role::Worker(_) if self.is_fed(child) || self.is_awaited(child.generation) => {}
                Role::Worker(_) if is_ready => self.quit(id, drain_timeout, now),
                _ => self.quit(id, Some(stop_timeout), now),
            }
        }
    }

    /// Forgets the generations that have ended.
    pub(super) fn forget(&mut self) {
        let lives = |number: u32| self.children.values().any(|it| it.generation == number && !it.is_gone());
        let has_ended = |it: &Generation| {
            matches!(it.standing, Standing::Retired | Standing::Failed) && !lives(it.number)
        };
        let ended: Vec<u32> =
            self.generations.iter().filter(|it| has_ended(it)).map(|it| it.number).collect();
        self.generations.retain(|it| !ended.contains(&it.number));
        self.orders.extend(ended.into_iter().map(|generation| Order::Forget { generation }));
    }

    /// Whether connections come to the workers of a generation through an acceptor.
    pub(crate) fn hands_over(&self, generation: u32) -> bool {
        self.generations.iter().any(|known| known.number == generation && known.crew.acceptor)
    }

    /// Whether an acceptor that is told to end before this worker may still hand it connections.
    pub(super) fn is_fed(&self, worker: &Slot) -> bool {
        let is_its = |it: &Slot| it.role == Role::Acceptor && it.generation == worker.generation;
        let is_first = |it: &Slot| it.is_retired || self.phase.is_stopping();
        self.children.values().any(|it| is_its(it) && is_first(it) && !it.is_gone())
    }

    /// A retired child has ended, one that `is_told` to. What was left for workers that may not read it is for neighbours.
    pub(super) fn hand_on(&mut self, id: ChildId, is_told: bool, now: Instant) {
        let Some(child) = self.child(id) else { return };
        let (role, generation) = (child.role, child.generation);
        let is_left = role.slot().is_some() && !is_told && (self.is_fed(child) || child.answers_owed > 0);
        if is_left {
            self.leave_to_neighbour(id);
        }
        if role != Role::Acceptor {
            return;
        }
        for id in self.crew_of(generation) {
            let Some(child) = self.children.get_mut(&id).filter(|child| child.state == State::Ready) else {
                continue;
            };
            if child.is_stuck {
                self.leave_to_neighbour(id);
            } else {
                // An answer that is on its way may be older than what was left last.
                child.answers_owed = if child.pinged_at.is_some() { 2 } else { 1 };
                self.ping(id, now);
            }
        }
    }

    /// Has a worker of the same generation, which is to end as well, read what was left for this one.
    pub(super) fn leave_to_neighbour(&mut self, id: ChildId) {
        let Some((absent, slot)) = self.child(id).and_then(|it| Some((it, it.role.slot()?))) else { return };
        let is_able = |it: &Slot| {
            it.generation == absent.generation
                && it.role.slot().is_some()
                && it.state == State::Ready
                && !it.is_stuck
        };
        let mut others = self.children.iter().filter(|(other, it)| **other != id && is_able(it));
        // One that has answered, if there is one.
        let by = others.clone().find(|(_, it)| it.answers_owed == 0).or_else(|| others.next());
        if let Some((by, _)) = by {
            self.orders.push_back(Order::Cover { absent: id, slot, by: *by });
        }
    }

    /// Whether it is not certain yet that all workers of a retired generation read what was left for them.
    fn is_awaited(&self, generation: u32) -> bool {
        let owes = |it: &Slot| it.generation == generation && it.state == State::Ready && it.answers_owed > 0;
        self.children.values().any(owes)
    }

    pub(super) fn crew_of(&self, generation: u32) -> Vec<ChildId> {
        let is_of = |child: &Slot| child.generation == generation && child.role.is_crew();
        self.children.iter().filter(|(_, child)| is_of(child)).map(|(id, _)| *id).collect()
    }

    fn standing(&self, generation: u32) -> Option<Standing> {
        self.generations.iter().find(|known| known.number == generation).map(|known| known.standing)
    }

    fn set_standing(&mut self, generation: u32, standing: Standing) {
        if let Some(known) = self.generations.iter_mut().find(|known| known.number == generation) {
            known.standing = standing;
        }
    }
}
