//! Reload after reload under load: no request fails, no connection is reset, no gateway client is lost.

use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Mix};
use crate::site::{Settled, Shape, Site, generations};
use crate::support::stderr;
use crate::{alone, full_or, say};

/// How often, and how far from one to the next: 50 in a minute.
fn pace() -> (usize, Duration) {
    full_or((50, Duration::from_millis(1200)), (4, Duration::from_millis(600)))
}

/// Reloads to each of the shapes in turn.
fn check(what: &str, shapes: &[Shape]) {
    let _alone = alone();
    let site = Site::new(&shapes[0]);
    let server = site.start();
    // Once round first: from then on there are as many sockets as there will ever be. A generation keeps the counters of
    // all that there were when it began: before and after, that is the one before it and no other.
    let mut last = 1;
    let mut reload = |shape: &Shape| {
        site.configure(shape);
        let output = server.tidegate(&["reload"]);
        assert!(output.status.success(), "reload {last}: {output:?}");
        last += 1;
        last
    };
    for shape in shapes.iter().cycle().skip(1).take(shapes.len()) {
        Settled::of(&server, reload(shape), shape);
    }
    let before = Settled::of(&server, reload(&shapes[0]), &shapes[0]);

    let load = Load::start(&site.targets(&server), Mix::all());
    load.wait_warm();
    let (times, every) = pace();
    let mut slowest = Duration::ZERO;
    for nth in 1..=times {
        let begin = Instant::now();
        reload(&shapes[nth % shapes.len()]);
        slowest = slowest.max(begin.elapsed());
        thread::sleep(every.saturating_sub(begin.elapsed()));
    }
    let tally = load.finish();
    // What nobody holds any more has ended, and nothing is left of it.
    Settled::of(&server, reload(&shapes[0]), &shapes[0]);
    let after = Settled::of(&server, reload(&shapes[0]), &shapes[0]);
    say(
        &format!("{times} reloads, {what}"),
        &format!(
            "each took at most {slowest:.1?}; {tally}; descriptors of the master before and after: {} and {}, memory {} and \
             {} KiB",
            before.kept.count(),
            after.kept.count(),
            before.memory_kib,
            after.memory_kib,
        ),
    );
    tally.check_clean();
    assert_eq!(tally.raced, 0, "no kept connection ends but with an answer that says so");
    assert_eq!(after.kept, before.kept);
    let grown = after.memory_kib.saturating_sub(before.memory_kib);
    assert!(grown < MOST_GROWN_KIB, "{grown} KiB more after {times} reloads");
}

/// What the allocator may keep for itself; the plan of one generation alone, times 50, would be more.
const MOST_GROWN_KIB: u64 = 1024;

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

fn check_more_and_fewer(accept: &'static str) {
    let shapes = [2, 4, 1].map(|workers| Shape::new(workers, accept));
    check(&format!("{accept}, workers 2, 4, 1 in turn"), &shapes);
}

#[test]
fn nothing_is_lost_when_workers_become_more_and_fewer_with_reuseport() {
    check_more_and_fewer("reuseport");
}

#[test]
fn nothing_is_lost_when_workers_become_more_and_fewer_with_a_shared_socket() {
    check_more_and_fewer("shared");
}

#[test]
fn nothing_is_lost_when_workers_become_more_and_fewer_with_hand_over() {
    check_more_and_fewer("handoff");
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
