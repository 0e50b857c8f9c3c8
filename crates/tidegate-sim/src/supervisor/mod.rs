//! The real supervisor among unreliable children, with a virtual clock.
//!
//! Children fail to start, die before or after READY, are never READY, are mute for a while or for good, are slow to obey or
//! do not obey; the master is held up; reloads, upgrades, replacements, pauses and retirements are asked for at any time and
//! in storms, and fail at each step; a stop comes at any moment. What must hold is checked after each order and at the end.
//! Now and then the supervisor is frozen and thawed, and its twin must go on in the same way.
//!
//! Invariant: a world follows from its schedule alone. What does not hold is a panic here, and a violation to who asks.

mod checks;
mod children;
mod world;

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_process::Role;

use crate::{Outcome, guarded};
use world::World;

/// What happens in a world: a seed, less what is left out.
#[derive(Clone, Debug)]
pub(crate) struct Schedule {
    pub(crate) seed: u64,
    pub(crate) left_out: BTreeSet<usize>,
    /// How unreliable everything may be, in percent.
    pub(crate) most_trouble: u64,
}

impl Schedule {
    pub(crate) fn new(seed: u64) -> Self {
        Self { seed, left_out: BTreeSet::new(), most_trouble: 100 }
    }
}

/// Runs a schedule.
pub(crate) fn run(schedule: &Schedule, traced: bool) -> Outcome {
    let mut world = World::new(schedule, traced);
    let ran = guarded(|| world.run());
    world.outcome(ran.err())
}

/// How much a schedule plans, whatever is left out of it.
pub(crate) fn planned(schedule: &Schedule) -> usize {
    World::new(schedule, false).planned
}

/// The slot that a worker accepts for.
fn slot_of(role: Role) -> Option<u32> {
    match role {
        Role::Worker(slot) => Some(slot),
        _ => None,
    }
}

/// Of children that live over generations.
const NO_GENERATION: u32 = 0;

/// The places that enough schedules have to reach.
pub(crate) const PLACES: &[&str] = &[
    "announced",
    "start failed",
    "restart after back-off",
    "not ready",
    "kill",
    "hung",
    "stuck",
    "answers",
    "cover",
    "uncover",
    "cover handed on",
    "left to a neighbour",
    "nobody to cover",
    "pause",
    "resume",
    "prepare refused",
    "reload done",
    "reload failed by a child",
    "upgrade done",
    "probe failed",
    "take-over failed",
    "reverted by the new image",
    "reverted by the driver",
    "revert failed",
    "replace done",
    "replace failed",
    "replace refused",
    "workers retired",
    "waits",
    "acceptor retired",
    "failed crew drains",
    "stop in an operation",
    "stop with a request waiting",
    "stop with a retired generation",
    "twin agreed",
    "burst of messages",
];

fn secs(secs: u64) -> Duration {
    Duration::from_secs(secs)
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}
