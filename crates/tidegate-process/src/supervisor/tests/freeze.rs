//! What passes from image to image.

use super::*;

#[test]
fn what_it_reads_is_what_was_written() {
    let mut bench = Bench::running();
    bench.on(Event::Pause { child: A });
    bench.died(B, KILLED);
    let written = serde_json::to_string(&bench.supervisor.freeze()).unwrap();
    let read: Frozen = serde_json::from_str(&written).unwrap();
    assert_eq!(read, bench.supervisor.freeze());
    assert_eq!(read.version(), Frozen::VERSION);
    // Also by way of a tree, in which another version may have looked around.
    let tree: serde_json::Value = serde_json::from_str(&written).unwrap();
    assert_eq!(serde_json::from_value::<Frozen>(tree).unwrap(), read);
}

#[test]
fn what_another_version_adds_or_leaves_out_does_no_harm() {
    let bench = Bench::running();
    let mut tree = serde_json::to_value(bench.supervisor.freeze()).unwrap();
    tree["later"] = serde_json::json!({ "any": "thing" });
    tree["children"]["1"]["later"] = serde_json::json!([1, 2]);
    for field in ["work", "wanted", "covers"] {
        tree.as_object_mut().unwrap().remove(field);
    }
    for field in ["restarts", "last_exit", "is_paused", "pinged_at", "early_deaths", "stop_asked_until"] {
        tree["children"]["1"].as_object_mut().unwrap().remove(field);
    }
    assert_eq!(serde_json::from_value::<Frozen>(tree).unwrap(), bench.supervisor.freeze());
}

#[test]
fn a_state_that_makes_no_sense_does_no_harm() {
    let mut bench = Bench::running();
    bench.died(A, KILLED);
    let mut tree = serde_json::to_value(bench.supervisor.freeze()).unwrap();
    tree["current"] = serde_json::json!(77);
    tree["covers"] = serde_json::json!({ "0": 99, "5": 1 });
    tree["generations"] = serde_json::json!([]);
    tree["work"] = serde_json::json!({ "operation": "Upgrade", "stage": { "Crew": { "generation": 9 } } });
    for as_ in [Thawed::New, Thawed::Old] {
        let frozen = serde_json::from_value(tree.clone()).unwrap();
        let mut bench =
            Bench { supervisor: Supervisor::thaw(frozen, quiet(), as_, bench.now), ..Bench::running() };
        for signal in [Signal::HUP, Signal::USR2, Signal::WINCH, Signal::TERM] {
            bench.on(Event::Signal(signal));
        }
        bench.died(B, DONE);
        assert!(bench.supervisor.is_stopping());
    }
}

#[test]
fn a_start_whose_answer_is_lost_is_made_again() {
    let mut bench = Bench::running();
    bench.died(A, KILLED);
    assert_eq!(bench.slot(A).state, State::Spawning);
    let frozen = bench.supervisor.freeze();
    bench.supervisor = Supervisor::thaw(frozen, quiet(), Thawed::New, bench.now);
    assert_eq!(bench.orders(), [Order::Spawn { child: A }]);
}
