//! Signals to each process and to all of them, and a stop at any moment.

use std::fs;
use std::thread;
use std::time::Duration;

use rustix::process::Signal;
use tempfile::tempdir;
use tidegate::ProcessStatus;

use crate::http::get;
use crate::processes::{Exit, Watched};
use crate::support::{Server, Setup, is_replaced, log_server, wait_until};

fn name(signal: Signal) -> &'static str {
    match signal {
        Signal::TERM => "TERM",
        Signal::INT => "INT",
        Signal::QUIT => "QUIT",
        Signal::HUP => "HUP",
        Signal::USR1 => "USR1",
        Signal::USR2 => "USR2",
        Signal::WINCH => "WINCH",
        Signal::PIPE => "PIPE",
        other => panic!("{other:?}"),
    }
}

/// Sent by this very process.
fn sender() -> String {
    format!("sender_pid={}", std::process::id())
}

fn serves(server: &Server) {
    for _ in 0..10 {
        assert_eq!(get(server.address("web"), "/hello").body, "Hello, World!");
    }
}

/// All that are no masters.
fn children(server: &Server) -> Vec<ProcessStatus> {
    server.status().processes.into_iter().filter(|it| it.role != "master").collect()
}

#[test]
fn children_ignore_what_is_meant_for_the_master() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("process.accept=handoff").start();
    let before = children(&server);
    let roles: Vec<_> = before.iter().map(|it| it.role.as_str()).collect();
    assert_eq!(roles, ["log server", "acceptor", "worker", "worker"]);
    for child in &before {
        for signal in [Signal::INT, Signal::HUP, Signal::USR2, Signal::WINCH, Signal::PIPE] {
            Watched::of(child).signal(signal);
            if signal != Signal::PIPE {
                let pid = format!("[{}]", child.pid);
                server.wait_lines(&["signal received", &format!("signal={}", name(signal)), &sender(), &pid]);
            }
        }
    }
    serves(&server);
    let pids = |all: &[ProcessStatus]| all.iter().map(|it| it.pid).collect::<Vec<_>>();
    assert_eq!(pids(&children(&server)), pids(&before));
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn a_child_that_is_told_to_end_ends_and_is_replaced() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("process.accept=handoff").start();
    for signal in [Signal::TERM, Signal::QUIT] {
        for child in children(&server) {
            Watched::of(&child).signal(signal);
            let pid = format!("[{}]", child.pid);
            server.wait_lines(&["signal received", &format!("signal={}", name(signal)), &sender(), &pid]);
            server.wait_status("there is another one", |status| is_replaced(status, &child));
            serves(&server);
        }
    }
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn the_master_does_what_it_is_told() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let before = server.status();
    for (signal, generation) in [(Signal::USR1, 1), (Signal::PIPE, 1), (Signal::HUP, 2), (Signal::USR2, 3)] {
        server.signal(signal);
        if signal != Signal::PIPE {
            server.wait_lines(&["master", "signal received", &format!("signal={}", name(signal)), &sender()]);
        }
        let status = server.wait_status("it has done that", |it| {
            it.generations.len() == 1
                && it.generations[0].number == generation
                && it.generations[0].state == "current"
        });
        assert_eq!(status.processes[0].pid, before.processes[0].pid);
        // An upgrade starts it again, a moment later.
        if signal != Signal::USR2 {
            assert_eq!(log_server(&status).pid, log_server(&before).pid);
        }
        serves(&server);
    }
    server.signal(Signal::WINCH);
    server.wait_lines(&["signal=WINCH", &sender()]);
    server.wait_status("the workers have ended", |it| it.generations.is_empty());
    // What comes meanwhile waits for the workers of the next generation.
    server.signal(Signal::HUP);
    serves(&server);
    assert_eq!(server.end(Signal::INT), Exit::Code(0));
    server.check_nothing_left();
}

#[test]
fn a_signal_to_all_is_one_to_the_master() {
    for (signal, generation) in [(Signal::USR1, 1), (Signal::HUP, 2), (Signal::USR2, 2)] {
        let dir = tempdir().unwrap();
        let mut server = Setup::new(&dir).set("process.accept=handoff").start();
        let log = server.log_server();
        server.signal_group(signal);
        server.wait_lines(&["master", "signal received", &format!("signal={}", name(signal)), &sender()]);
        server.wait_status("it is done", |it| {
            it.generations.len() == 1
                && it.generations[0].number == generation
                && it.generations[0].state == "current"
        });
        serves(&server);
        if signal != Signal::USR2 {
            assert_eq!(server.log_server().pid, log.pid);
        }
        server.signal_group(Signal::INT);
        assert_eq!(server.wait_exit(), Exit::Code(0));
        server.check_nothing_left();
        let lines = server.all_lines();
        // An upgrade has the log server started again by the new program.
        let is_meant = |line: &str| signal == Signal::USR2 && line.contains("role=log-server");
        let again = |line: &str| line.contains("started again") && !is_meant(line);
        assert!(!lines.iter().any(|line| line.contains("child died") || again(line)));
    }
}

#[test]
fn a_stop_of_all_is_a_stop_and_no_crash() {
    for signal in [Signal::TERM, Signal::INT, Signal::QUIT] {
        for accept in ["reuseport", "handoff"] {
            let dir = tempdir().unwrap();
            let mut server = Setup::new(&dir).set(format!("process.accept={accept}")).start();
            serves(&server);
            server.signal_group(signal);
            assert_eq!(server.wait_exit(), Exit::Code(0));
            server.check_nothing_left();
            let lines = server.all_lines();
            for word in ["child died", "started again", "ERROR"] {
                assert!(
                    !lines.iter().any(|line| line.contains(word)),
                    "{word} after {signal:?} with {accept}"
                );
            }
            assert_eq!(
                lines.iter().filter(|line| line.contains("child started")).count(),
                3 + usize::from(accept == "handoff")
            );
        }
    }
}

/// Moments that differ from run to run all the same.
fn moments(seed: u64) -> impl Iterator<Item = Duration> {
    let mut state = seed;
    std::iter::repeat_with(move || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        Duration::from_micros((state >> 33) % 80_000)
    })
}

/// However far it is with something else, a stop ends everything.
#[track_caller]
fn check_stop_in(begin: &str, stop: Signal, rounds: usize) {
    for (round, moment) in moments(u64::from(stop.as_raw().unsigned_abs())).take(rounds).enumerate() {
        let dir = tempdir().unwrap();
        let mut server = Setup::new(&dir).start();
        let signal = if begin == "reload" { Signal::HUP } else { Signal::USR2 };
        server.signal(signal);
        // Not to wait for anything, but to be somewhere.
        thread::sleep(moment);
        if round % 2 == 0 {
            server.signal(stop)
        } else {
            server.signal_group(stop)
        }
        assert_eq!(server.wait_exit(), Exit::Code(0), "{begin}, stop after {moment:?}");
        wait_until("no process is left", || server.group().is_empty());
        for name in ["tidegate.pid", "control.sock", "log.sock"] {
            assert!(!server.data(name).exists(), "{name} is left, {begin}, stop after {moment:?}");
        }
        assert!(
            !fs::read_dir(server.data(""))
                .unwrap()
                .any(|it| it.unwrap().path().extension() == Some("sock".as_ref()))
        );
        let lines = server.all_lines();
        let panicked = lines.iter().find(|line| line.contains("panicked"));
        assert_eq!(panicked, None, "{begin}, stop after {moment:?}");
    }
}

#[test]
fn a_stop_in_a_reload_ends_cleanly() {
    check_stop_in("reload", Signal::TERM, 6);
    check_stop_in("reload", Signal::QUIT, 6);
}

#[test]
fn a_stop_in_an_upgrade_ends_cleanly() {
    check_stop_in("upgrade", Signal::TERM, 10);
    check_stop_in("upgrade", Signal::QUIT, 10);
}
