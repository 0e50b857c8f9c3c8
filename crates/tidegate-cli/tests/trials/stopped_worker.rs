//! One of two workers is stopped: every new connection is served by the other.

use std::thread;
use std::time::Duration;

use rustix::process::Signal;

use crate::load::{Load, Mix};
use crate::processes::stop;
use crate::site::{Shape, Site, generations};
use crate::support::wait_until;
use crate::{alone, check_bound, full_or, say};

fn check(accept: &'static str) {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, accept));
    let server = site.start();
    let mut slowest = Duration::ZERO;
    for index in 0..2 {
        let stopped = stop(&server.worker(index));
        // All of them come after the stop, the first before anybody can have noticed it.
        let load = Load::start(&site.targets(&server), Mix { short: 32, gateway: 32, ..Mix::NONE });
        load.wait_warm();
        thread::sleep(full_or(Duration::from_secs(5), Duration::from_millis(500)));
        let tally = load.finish();
        say(&format!("SIGSTOP of worker {index} of 2, {accept}"), &tally.to_string());
        tally.check_clean();
        slowest = slowest.max(tally.slowest());
        stopped.signal(Signal::CONT);
        // It serves again, and what was taken from it is its own again.
        let load = Load::start(&site.targets(&server), Mix { short: 32, gateway: 32, ..Mix::NONE });
        load.wait_warm();
        load.finish().check_clean();
    }
    check_bound("every new connection is served", slowest, Duration::from_secs(2));
}

#[test]
fn the_other_serves_with_reuseport() {
    check("reuseport");
}

#[test]
fn the_other_serves_with_a_shared_socket() {
    check("shared");
}

#[test]
fn the_other_serves_with_hand_over() {
    check("handoff");
}

/// A reload is no way out of it: nobody waits for the worker that is stopped, neither the next generation nor a connection
/// that nobody has accepted yet.
fn check_reload(accept: &'static str) {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, accept));
    let server = site.start();
    let stopped = stop(&server.worker(0));
    let load = Load::start(&site.targets(&server), Mix { short: 32, gateway: 32, ..Mix::NONE });
    // Some of them have come, and may have been given to the one that is stopped.
    wait_until("some clients are served", || load.elapsed() > Duration::from_millis(150));
    let output = server.tidegate(&["reload"]);
    assert!(output.status.success(), "{output:?}");
    load.wait_warm();
    let tally = load.finish();
    say(&format!("SIGSTOP of worker 0 of 2, and a reload, {accept}"), &tally.to_string());
    tally.check_clean();
    stopped.signal(Signal::CONT);
    server.wait_status("the retired generation has ended", |status| generations(status) == [2, 2]);
    check_bound("every new connection is served", tally.slowest(), Duration::from_secs(2));
}

#[test]
fn a_reload_leaves_it_behind_with_reuseport() {
    check_reload("reuseport");
}

#[test]
fn a_reload_leaves_it_behind_with_a_shared_socket() {
    check_reload("shared");
}

#[test]
fn a_reload_leaves_it_behind_with_hand_over() {
    check_reload("handoff");
}
