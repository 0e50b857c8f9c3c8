//! Upgrade after upgrade under load: the same process, and no request fails.

use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use crate::load::{Load, Mix};
use crate::processes::Exit;
use crate::site::{Shape, Site};
use crate::support::{TIDEGATE, stderr};
use crate::{alone, full_or, say};

/// Puts a new file in the place of the program, as an installer does.
fn install(site: &Site, content: impl AsRef<std::path::Path>) {
    fs::copy(content, site.path("tidegate.next")).unwrap();
    fs::rename(site.path("tidegate.next"), site.path("tidegate")).unwrap();
}

fn check(accept: &'static str) {
    let _alone = alone();
    let site = Site::new(&Shape::new(2, accept));
    install(&site, TIDEGATE);
    let mut setup = site.setup();
    setup.program = site.path("tidegate");
    let server = setup.start();
    let master = server.status().processes[0].pid;
    let load = Load::start(&site.targets(&server), Mix::all());
    load.wait_warm();
    let (times, every) = full_or((10, Duration::from_secs(6)), (2, Duration::from_millis(800)));
    let mut slowest = Duration::ZERO;
    for nth in 1..=times {
        install(&site, TIDEGATE);
        let begin = Instant::now();
        let output = server.tidegate(&["upgrade"]);
        assert!(output.status.success(), "upgrade {nth}: {}", stderr(&output));
        slowest = slowest.max(begin.elapsed());
        assert_eq!(server.status().processes[0].pid, master);
        // The new file itself runs, not the one that was there at the start.
        let running = fs::read_link(format!("/proc/{master}/exe")).unwrap();
        assert!(!running.to_string_lossy().ends_with("(deleted)"), "{running:?} runs");
        thread::sleep(every.saturating_sub(begin.elapsed()));
    }
    let tally = load.finish();
    say(
        &format!("{times} upgrades, {accept}"),
        &format!("pid {master} throughout, each took at most {slowest:.1?}; {tally}"),
    );
    tally.check_clean();
    assert_eq!(server.end(rustix::process::Signal::QUIT), Exit::Code(0));
}

#[test]
fn nothing_is_lost_with_reuseport() {
    check("reuseport");
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
