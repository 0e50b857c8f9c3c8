//! Seeds of each scenario: none fails, together they get everywhere, and each is the same every time.

use tidegate_sim::{Scenario, Seen, explain, try_seed};

use crate::spawning::apart;

/// So many of each; `cargo run -p tidegate-sim` runs more.
const SEEDS: u64 = 500;
/// A place that is reached less often is hardly tested.
const OFTEN: u64 = 3;

fn all_hold(scenario: Scenario) {
    let mut seen = Seen::default();
    for seed in 0..SEEDS {
        let outcome = apart(|| try_seed(scenario, seed, false));
        if let Some(violation) = outcome.violation {
            let small = apart(|| explain(scenario, seed)).map(|failure| failure.small.trace.join("\n"));
            let name = scenario.name();
            panic!("{name}, seed {seed}: {violation}\n{}", small.unwrap_or_default());
        }
        seen.add(&outcome.seen);
    }
    let missed: Vec<_> = scenario.places().iter().filter(|place| seen.count(place) < OFTEN).collect();
    assert!(missed.is_empty(), "hardly reached: {missed:?}");
}

#[test]
fn a_loop_that_handles_messages_itself_holds() {
    all_hold(Scenario::LoopInline);
}

#[test]
fn a_loop_with_a_pool_holds() {
    all_hold(Scenario::LoopPool);
}

#[test]
fn a_loop_that_connects_to_others_holds() {
    all_hold(Scenario::Outgoing);
}

#[test]
fn the_supervisor_holds() {
    all_hold(Scenario::Supervisor);
}

#[test]
fn a_seed_is_the_same_every_time() {
    for scenario in Scenario::ALL {
        for seed in 0..30 {
            let told = || apart(|| try_seed(scenario, seed, true));
            let (once, again) = (told(), told());
            assert!(once == again, "{}, seed {seed}", scenario.name());
            assert!(!once.trace.is_empty());
            // Writing a trace changes nothing.
            assert_eq!(apart(|| try_seed(scenario, seed, false)).seen, once.seen);
        }
    }
}
