//! Connections by hand-over: what the acceptor takes for each, and that none is lost on the way to many workers.

use std::thread;
use std::time::Duration;

use tidegate::Status;

use crate::kernel::cpu_time;
use crate::load::{Kind, Load, Mix};
use crate::site::{Shape, Site};
use crate::{alone, check_bound, full_or, say};

#[test]
fn the_acceptor_takes_little_and_loses_none() {
    let _alone = alone();
    let site = Site::new(&Shape::new(8, "handoff"));
    let server = site.start();
    let status = server.status();
    let acceptor = status.processes.iter().find(|process| process.role == "acceptor").unwrap().pid;
    let pause = Duration::from_millis(full_or(2, 20));
    let before = cpu_time(acceptor);
    let load = Load::start(&site.targets(&server), Mix { short: 64, pause, ..Mix::NONE });
    let wanted = full_or(40_000, 1_000);
    let web =
        |status: &Status| status.listeners.iter().find(|listener| listener.name == "web").unwrap().clone();
    loop {
        let requests = web(&server.status()).requests;
        if requests >= wanted {
            break;
        }
        assert!(load.elapsed() < Duration::from_secs(120), "{requests} requests");
        thread::sleep(Duration::from_millis(100));
    }
    let tally = load.finish();
    let status = server.status();
    let web = web(&status);
    let each = (cpu_time(acceptor) - before).div_f64(web.accepted as f64);
    let workers: Vec<u64> = status
        .processes
        .iter()
        .filter(|process| process.role == "worker")
        .map(|process| process.requests)
        .collect();
    say(
        "hand-over to 8 workers",
        &format!(
            "{each:.2?} of the acceptor's processor time for each of {} connections; requests of the workers {workers:?}; \
             {tally}",
            web.accepted
        ),
    );
    tally.check_clean();
    assert_eq!((web.accepted, web.requests), (tally.connections, tally.of(Kind::Short).answers));
    assert!(workers.len() == 8 && workers.iter().all(|&requests| requests > 0), "{workers:?}");
    check_bound("processor time of the acceptor for a connection", each, Duration::from_micros(20));
}
