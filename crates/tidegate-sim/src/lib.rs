//! The real engine and the real supervisor in a simulated world: everything that happens follows from a seed.
//!
//! What the world does (peers, threads, operators, what there is not enough of) is a plan that is drawn from the seed; the
//! kernel and the clock are simulated; the code under test is the code that serves. After each turn it is checked what
//! must hold. A run that fails is made smaller, by leaving out what it fails without, and told step by step.
//!
//! Read [`Scenario`] and [`try_seed`] first. Invariant: the same seed gives the same run, to the last line of its trace.

#![forbid(unsafe_code)]

mod guard;
mod network;
mod random;
mod shrink;
mod supervisor;

use std::collections::BTreeMap;
use std::sync::Arc;

pub(crate) use guard::guarded;
use network::plan::{Kind, Plan};
use supervisor::Schedule;

/// What is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// An event loop that handles messages itself.
    LoopInline,
    /// An event loop whose messages are handled in a pool, late and out of order.
    LoopPool,
    /// An event loop that connects to others: it ties connections together and keeps some to an upstream.
    Outgoing,
    /// The supervisor of a master, and its children.
    Supervisor,
}

impl Scenario {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::LoopInline, Self::LoopPool, Self::Outgoing, Self::Supervisor];

    /// As the command line names it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::LoopInline => "loop-inline",
            Self::LoopPool => "loop-pool",
            Self::Outgoing => "outgoing",
            Self::Supervisor => "supervisor",
        }
    }

    /// How its traces are to be read.
    #[must_use]
    pub const fn legend(self) -> &'static str {
        match self {
            Self::LoopInline | Self::LoopPool => {
                "world: what the plan lets happen; kernel: what the loop is told and does; thread: another thread; \
                 #N: a callback for connection N"
            }
            Self::Outgoing => {
                "world: what the plan lets happen; kernel: what the loop is told and does; thread: another thread; \
                 target: the far end of an outgoing connection; #N: a callback for connection N: below 1000 those \
                 that were accepted, from 1000 on those that were asked for, from 100000 on those of the upstream"
            }
            Self::Supervisor => "event: what the supervisor is told; order: what it has done",
        }
    }

    /// The places that a few hundred seeds have to reach several times: else they are worth little.
    #[must_use]
    pub const fn places(self) -> &'static [&'static str] {
        match self {
            Self::LoopInline | Self::LoopPool => network::PLACES,
            Self::Outgoing => network::OUTGOING_PLACES,
            Self::Supervisor => supervisor::PLACES,
        }
    }
}

/// How often a run got to the places that are of interest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    counts: BTreeMap<&'static str, u64>,
}

impl Seen {
    /// How often it got to a place.
    #[must_use]
    pub fn count(&self, place: &str) -> u64 {
        self.counts.get(place).copied().unwrap_or_default()
    }

    /// Adds what another run has seen.
    pub fn add(&mut self, other: &Self) {
        for (place, count) in &other.counts {
            *self.counts.entry(place).or_default() += count;
        }
    }

    pub(crate) fn at(&mut self, place: &'static str) {
        *self.counts.entry(place).or_default() += 1;
    }
}

/// What came of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The first thing that did not hold.
    pub violation: Option<String>,
    /// What happened, line by line, if that was asked for.
    pub trace: Vec<String>,
    /// Where it got.
    pub seen: Seen,
}

/// A run that failed, made small.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What did not hold in the run of the seed.
    pub violation: String,
    /// Steps of that run, and of the small one.
    pub steps: (usize, usize),
    /// What is left of it, and what does not hold in it.
    pub small: Outcome,
}

/// Runs a seed.
///
/// ```
/// use tidegate_sim::{Scenario, try_seed};
///
/// let outcome = try_seed(Scenario::LoopInline, 7, true);
/// assert_eq!(outcome.violation, None);
/// assert_eq!(outcome, try_seed(Scenario::LoopInline, 7, true), "to the last line of the trace");
/// ```
#[must_use]
pub fn try_seed(scenario: Scenario, seed: u64, traced: bool) -> Outcome {
    Case::new(scenario, seed).run(traced)
}

/// Runs a seed that fails, and makes it smaller. `None` when it does not fail.
#[must_use]
pub fn explain(scenario: Scenario, seed: u64) -> Option<Failure> {
    let whole = Case::new(scenario, seed);
    let violation = whole.run(false).violation?;
    let small = shrink::shrink(&whole);
    Some(Failure { violation, steps: (whole.size().0, small.size().0), small: small.run(true) })
}

/// What is run: all of a seed, or what is left of it.
#[derive(Clone, Debug)]
pub(crate) enum Case {
    Network(Arc<Plan>),
    Supervisor(Schedule),
}

impl Case {
    fn new(scenario: Scenario, seed: u64) -> Self {
        match scenario {
            Scenario::LoopInline => Self::Network(Arc::new(Plan::new(seed, Kind::Inline))),
            Scenario::LoopPool => Self::Network(Arc::new(Plan::new(seed, Kind::Pool))),
            Scenario::Outgoing => Self::Network(Arc::new(Plan::new(seed, Kind::Outgoing))),
            Scenario::Supervisor => Self::Supervisor(Schedule::new(seed)),
        }
    }

    pub(crate) fn run(&self, traced: bool) -> Outcome {
        match self {
            Self::Network(plan) => network::run(plan, traced),
            Self::Supervisor(schedule) => supervisor::run(schedule, traced),
        }
    }

    /// How many steps it has, and what else there is to be left out.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            Self::Network(plan) => (plan.steps.len(), plan.conns.iter().map(|conn| conn.script.len()).sum()),
            Self::Supervisor(schedule) => (supervisor::planned(schedule) - schedule.left_out.len(), 0),
        }
    }
}
