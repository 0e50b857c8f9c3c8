//! A worker is killed every second: its own connections end, no other, and its place is taken at once.

use std::collections::HashSet;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::Signal;

use crate::kernel::peer_ports;
use crate::load::{Failure, Listed, Load, Mix};
use crate::processes::stop;
use crate::site::{Shape, Site};
use crate::support::is_replaced;
use crate::{alone, check_bound, full_or, say};

struct Death {
    at: Duration,
    /// The peers of the connections that it held.
    held: HashSet<u16>,
    replaced_after: Duration,
}

fn check(accept: &'static str) {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, accept));
    let server = site.start();
    let load = Load::start(&site.targets(&server), Mix::all());
    load.wait_warm();
    let mut deaths = Vec::new();
    for nth in 0..full_or(30, 3) {
        let begin = Instant::now();
        let index = nth % 2;
        let worker = server.worker(index);
        // Stopped for the moment that it takes to see what it holds: whatever it has not accepted is not its own.
        let stopped = stop(&worker);
        let held = peer_ports(worker.pid);
        let (at, killed) = (load.elapsed(), Instant::now());
        stopped.signal(Signal::KILL);
        server.wait_status("its place is taken", |status| is_replaced(status, &worker));
        deaths.push(Death { at, held, replaced_after: killed.elapsed() });
        thread::sleep(Duration::from_secs(1).saturating_sub(begin.elapsed()));
    }
    let tally = load.finish();
    let is_own = |failure: &Failure| {
        deaths.iter().any(|death| {
            // The client of a dead connection hears of it at once.
            let since = failure.at.checked_sub(death.at);
            death.held.contains(&failure.port) && since.is_some_and(|since| since < Duration::from_secs(5))
        })
    };
    let foreign: Vec<Failure> = tally.failures.iter().filter(|failure| !is_own(failure)).cloned().collect();
    let mut replaced: Vec<Duration> = deaths.iter().map(|death| death.replaced_after).collect();
    replaced.sort_unstable();
    let (median, slowest) = (replaced[replaced.len() / 2], replaced[replaced.len() - 1]);
    let held: usize = deaths.iter().map(|death| death.held.len()).sum();
    say(
        &format!("kill -9 of a worker, {accept}"),
        &format!(
            "{} deaths, {held} connections held by the dead, {} ended with them, {} others; a new worker after \
             {median:.1?}, at most {slowest:.1?}; {tally}",
            deaths.len(),
            tally.failed - foreign.len() as u64,
            foreign.len(),
        ),
    );
    assert!(foreign.is_empty(), "connections of workers that lived:\n{}", Listed(&foreign));
    check_bound("a killed worker is replaced", slowest, Duration::from_millis(200));
}

#[test]
fn only_its_own_connections_end_with_reuseport() {
    check("reuseport");
}

#[test]
fn only_its_own_connections_end_with_a_shared_socket() {
    check("shared");
}
