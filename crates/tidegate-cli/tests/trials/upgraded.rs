//! Upgrade after upgrade under load: the same process, and no request fails.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Mix};
use crate::processes::Exit;
use crate::site::{Settled, Shape, Site};
use crate::support::{Server, TIDEGATE, stderr};
use crate::{alone, full_or, say};

/// Puts a new file in the place of the program, as an installer does.
fn install(site: &Site, content: impl AsRef<std::path::Path>) {
    fs::copy(content, site.path("tidegate.next")).unwrap();
    fs::rename(site.path("tidegate.next"), site.path("tidegate")).unwrap();
}

/// Upgrades to a new file; tells how long the command took.
fn upgrade(site: &Site, server: &Server, master: u64) -> Duration {
    install(site, TIDEGATE);
    let begin = Instant::now();
    let output = server.tidegate(&["upgrade"]);
    assert!(output.status.success(), "{}", stderr(&output));
    let took = begin.elapsed();
    assert_eq!(server.status().processes[0].pid, master);
    // The new file itself runs, not the one that was there at the start.
    let running = fs::read_link(format!("/proc/{master}/exe")).unwrap();
    assert!(!running.to_string_lossy().ends_with("(deleted)"), "{running:?} runs");
    took
}

fn check(accept: &'static str) {
    let _alone = alone();
    let shape = Shape::new(2, accept);
    let site = Site::new(&shape);
    install(&site, TIDEGATE);
    let mut setup = site.setup();
    setup.program = site.path("tidegate");
    let server = setup.start();
    let master = server.status().processes[0].pid;
    // Once first: an image that has taken over has what the first one has not.
    upgrade(&site, &server, master);
    let before = Settled::of(&server, 2, &shape);
    let load = Load::start(&site.targets(&server), Mix::all());
    load.wait_warm();
    let (times, every) = full_or((10, Duration::from_secs(6)), (2, Duration::from_millis(800)));
    let mut slowest = Duration::ZERO;
    for _ in 0..times {
        let begin = Instant::now();
        slowest = slowest.max(upgrade(&site, &server, master));
        thread::sleep(every.saturating_sub(begin.elapsed()));
    }
    let tally = load.finish();
    Settled::of(&server, times + 2, &shape);
    upgrade(&site, &server, master);
    let after = Settled::of(&server, times + 3, &shape);
    say(
        &format!("{times} upgrades, {accept}"),
        &format!(
            "pid {master} throughout, each took at most {slowest:.1?}; {tally}; descriptors of the master before and after: {} \
             and {}",
            before.kept.count(),
            after.kept.count(),
        ),
    );
    assert_eq!(tally.raced, 0, "no kept connection ends but with an answer that says so");
    assert_eq!(after.kept, before.kept);
    tally.check_clean();
    assert_eq!(server.end(rustix::process::Signal::QUIT), Exit::Code(0));
}

#[test]
fn nothing_is_lost_with_reuseport() {
    check("reuseport");
}

#[test]
fn nothing_is_lost_with_a_shared_socket() {
    check("shared");
}

#[test]
fn nothing_is_lost_with_hand_over() {
    check("handoff");
}

#[test]
fn a_program_that_fails_changes_nothing() {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, "reuseport"));
    install(&site, TIDEGATE);
    let mut setup = site.setup();
    setup.program = site.path("tidegate");
    let server = setup.start();
    let before = server.status();
    let load = Load::start(&site.targets(&server), Mix { slow: 0, ..Mix::all() });
    load.wait_warm();
    for bad in ["/bin/false", "/etc/passwd"] {
        install(&site, bad);
        let output = server.tidegate(&["upgrade"]);
        assert_eq!(output.status.code(), Some(1), "{bad}: {output:?}");
        assert!(!stderr(&output).is_empty());
    }
    let tally = load.finish();
    let pids = |status: &tidegate::Status| -> Vec<u64> {
        status.processes.iter().map(|process| process.pid).collect()
    };
    assert_eq!(pids(&server.status()), pids(&before));
    // Nobody was even retired for it.
    assert_eq!((tally.raced, tally.reconnected), (0, 0), "{tally}");
    tally.check_clean();
}
