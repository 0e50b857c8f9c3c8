//! The master is killed: the next one serves soon, and what the old children hold ends well, or in time.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use tidegate::{ListenerStatus, Status};

use crate::http::get;
use crate::load::{Kind, Listed, Load, Mix};
use crate::processes::{Exit, Watched};
use crate::site::{Shape, Site, addresses};
use crate::support::Server;
use crate::{alone, check_bound, full_or, say};

fn children(server: &Server) -> Vec<Watched> {
    let group = server.group();
    let of_master = group.iter().filter(|process| process.parent == server.pid());
    of_master.map(|process| Watched::open(process.pid)).collect()
}

fn listener<'a>(status: &'a Status, name: &str) -> &'a ListenerStatus {
    status.listeners.iter().find(|listener| listener.name == name).unwrap()
}

fn connections(status: &Status, name: &str) -> u64 {
    listener(status, name).connections
}

#[test]
fn the_next_start_serves_and_what_was_under_way_is_finished() {
    let _alone = alone();
    let mut shape = Shape::new(2, "reuseport").process("shutdown_timeout = \"10s\"");
    let site = Site::new(&shape);
    let mut server = site.start();
    shape.addresses = addresses(&server);
    site.configure(&shape);
    let (mut slowest_ready, mut slowest_answer) = (Duration::ZERO, Duration::ZERO);
    let mut slow_answers = 0;
    for _ in 0..full_or(10, 2) {
        let before = listener(&server.status(), "web").requests;
        // Requests that are in the middle, and take longer than the new master needs.
        let load = Load::start(&site.targets(&server), Mix { slow: 16, once: true, ..Mix::NONE });
        server.wait_status("every slow request has begun", |status| {
            // The slow readers have asked, the slow senders are on the way.
            connections(status, "web") == 16 && listener(status, "web").requests == before + 8
        });
        let old = children(&server);
        server.signal(Signal::KILL);
        assert_eq!(server.wait_exit(), Exit::Signal(9));
        let begin = Instant::now();
        let next = site.start();
        slowest_ready = slowest_ready.max(begin.elapsed());
        assert_eq!(get(next.address("web"), "/hello").status, 200);
        slowest_answer = slowest_answer.max(begin.elapsed());
        let tally = load.finish();
        assert!(tally.failures.is_empty(), "{tally}\n{}", Listed(&tally.failures));
        slow_answers += tally.of(Kind::SlowSend).answers + tally.of(Kind::SlowRead).answers;
        old.iter().for_each(Watched::wait_end);
        server = next;
    }
    say(
        "kill -9 of the master",
        &format!(
            "the next start ready after at most {slowest_ready:.1?}, a new connection answered after at most \
             {slowest_answer:.1?}; {slow_answers} slow requests under way, all answered"
        ),
    );
    check_bound("the next start serves", slowest_answer, Duration::from_secs(1));
}

#[test]
fn nobody_is_left_after_the_shutdown_timeout() {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, "reuseport").process("shutdown_timeout = \"1s\""));
    let server = site.start();
    // Connections that never end by themselves, and answers that nobody reads.
    let load = Load::start(&site.targets(&server), Mix { slow: 16, gateway: 20, ..Mix::NONE });
    server.wait_status("all are there", |status| {
        connections(status, "web") == 16 && connections(status, "gateway") == 20
    });
    let old = children(&server);
    assert_eq!(old.len(), 3);
    let begin = Instant::now();
    server.signal(Signal::KILL);
    old.iter().for_each(Watched::wait_end);
    let took = begin.elapsed();
    say("kill -9 of the master, connections that stay", &format!("all children gone after {took:.1?}"));
    check_bound("the children of a killed master are gone", took, Duration::from_millis(1500));
    let tally = load.finish();
    assert!(tally.failed > 0, "nothing outlasted the children");
}
