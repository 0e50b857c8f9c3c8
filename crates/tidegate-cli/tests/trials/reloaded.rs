//! Reload after reload under load: no request fails, no connection is reset, no gateway client is lost.

use std::thread;
use std::time::{Duration, Instant};

use tidegate::Status;

use crate::load::{Load, Mix};
use crate::site::{Shape, Site};
use crate::support::stderr;
use crate::{alone, full_or, say};

/// How often, and how far from one to the next: 50 in a minute.
fn pace() -> (usize, Duration) {
    full_or((50, Duration::from_millis(1200)), (4, Duration::from_millis(600)))
}

/// Every worker that there is, by its generation.
fn generations(status: &Status) -> Vec<u64> {
    let workers = status.processes.iter().filter(|process| process.role == "worker");
    workers.map(|worker| worker.generation).collect()
}

/// Reloads to each of the shapes in turn.
fn check(what: &str, shapes: &[Shape]) {
    let _alone = alone();
    let site = Site::new(&shapes[0]);
    let server = site.start();
    let load = Load::start(&site.targets(&server), Mix::all());
    load.wait_warm();
    let (times, every) = pace();
    let mut slowest = Duration::ZERO;
    for nth in 1..=times {
        let begin = Instant::now();
        site.configure(&shapes[nth % shapes.len()]);
        let output = server.tidegate(&["reload"]);
        assert!(output.status.success(), "reload {nth}: {output:?}");
        slowest = slowest.max(begin.elapsed());
        thread::sleep(every.saturating_sub(begin.elapsed()));
    }
    let tally = load.finish();
    let last = times as u64 + 1;
    // What nobody holds any more has ended, and the last generation is as the file says.
    let workers = shapes[times % shapes.len()].workers;
    server.wait_status("the retired generations have ended", |status| {
        generations(status).iter().filter(|&&generation| generation == last).count() == workers
            && generations(status).len() == workers
    });
    say(&format!("{times} reloads, {what}"), &format!("each took at most {slowest:.1?}; {tally}"));
    tally.check_clean();
}

#[test]
fn nothing_is_lost_with_reuseport() {
    check("reuseport", &[Shape::new(2, "reuseport")]);
}

#[test]
fn nothing_is_lost_with_a_shared_socket() {
    check("shared", &[Shape::new(2, "shared")]);
}

#[test]
fn nothing_is_lost_with_hand_over() {
    check("handoff", &[Shape::new(2, "handoff")]);
}

#[test]
fn nothing_is_lost_when_workers_become_more_and_fewer() {
    for accept in ["reuseport", "shared", "handoff"] {
        let shapes = [2, 4, 1].map(|workers| Shape::new(workers, accept));
        check(&format!("{accept}, workers 2, 4, 1 in turn"), &shapes);
    }
}

#[test]
fn nothing_is_lost_when_the_way_of_accepting_changes() {
    let shapes = ["reuseport", "handoff", "shared"].map(|accept| Shape::new(2, accept));
    check("reuseport, handoff, shared in turn", &shapes);
}

#[test]
fn a_storm_of_signals_leaves_one_reload_to_do() {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, "reuseport"));
    let server = site.start();
    for _ in 0..100 {
        server.signal(rustix::process::Signal::HUP);
    }
    // Answered when it has been done, behind whatever the storm has left.
    let output = server.tidegate(&["reload"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let status = server.wait_status("one generation is left", |status| {
        let generations = generations(status);
        generations.len() == 2 && generations[0] == generations[1]
    });
    let reached = generations(&status)[0];
    say("100 HUP", &format!("generation {reached}"));
    assert!(reached < 20, "{reached} generations");
}
