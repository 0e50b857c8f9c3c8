//! The real engine over a simulated kernel, with simulated peers.
//!
//! [`Plan`](plan::Plan) says what the world does, [`Kernel`](kernel::Kernel) lets it happen, the service
//! ([`service`]) writes down in the [`Ledger`](ledger::Ledger) what it sees, and [`World`](world::World) drives the loop and
//! judges. Invariant: a run follows from its plan alone.

mod dial_ledger;
mod dial_plan;
mod dialling;
mod judge;
mod judge_outgoing;
mod kernel;
mod ledger;
mod outside;
mod peer;
pub(crate) mod plan;
mod proxy;
mod reactor;
mod service;
mod socket;
mod wire;
mod world;

use std::sync::Arc;

use crate::{Outcome, guarded};
use plan::Plan;

/// Runs a plan. A panic is a violation like any other.
pub(crate) fn run(plan: &Arc<Plan>, traced: bool) -> Outcome {
    let ledger = ledger::SharedLedger::new(Arc::clone(plan), traced);
    let ran = guarded(|| world::run(plan, &ledger));
    let mut ledger = ledger.lock();
    match ran {
        Ok(Ok(())) => {}
        Ok(Err(error)) => ledger.violated(|| format!("the simulator itself failed: {error}")),
        Err(panic) => ledger.violated(|| panic),
    }
    Outcome {
        violation: ledger.violation.take(),
        trace: ledger.trace.take().unwrap_or_default(),
        seen: std::mem::take(&mut ledger.seen),
    }
}

/// The places that enough plans have to reach.
pub(crate) const PLACES: &[&str] = &[
    "closed",
    "timer",
    "drained",
    "deadline",
    "eof",
    "retire",
    "refused",
    "panic",
    "suspended",
    "paused",
    "file",
    "stale handle",
    "letter",
    "no descriptor",
    "told that there is none",
    "lost in the queue",
    "full",
    "reset by the peer",
    "stalled",
    "memory pressure",
    "ended by a handle",
    "stop amid work",
    "quit amid work",
];

/// The same, for plans with outgoing connections.
pub(crate) const OUTGOING_PLACES: &[&str] = &[
    "connected",
    "refused by the target",
    "connected too late",
    "no room to connect",
    "stopped while connecting",
    "the target's queue is full",
    "tied",
    "tied to who is gone",
    "both directions ended",
    "ended with its other side",
    "idle pair",
    "half-close passed on",
    "reset passed on",
    "back-pressure",
    "whole through a tie",
    "picked",
    "nothing to pick",
    "upstream not connected",
    "upstream open again",
    "stop amid work",
    "quit amid work",
];
