//! The tests. Nothing is timed and nothing slept for: each waits for what the processes say.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use rustix::process::Signal;
use tidegate_process::control_socket::{MAX_REQUEST_BYTES, request};

use crate::server::Server;

pub(crate) type Case = (&'static str, fn());

pub(crate) const ALL: &[Case] = &[
    ("starts_in_order_with_titles_and_stops_in_reverse", starts_in_order_with_titles_and_stops_in_reverse),
    ("quit_is_graceful", quit_is_graceful),
    ("a_killed_worker_is_replaced", a_killed_worker_is_replaced),
    ("a_killed_log_server_is_replaced", a_killed_log_server_is_replaced),
    ("a_crash_loop_is_slowed_down_and_can_be_stopped", a_crash_loop_is_slowed_down_and_can_be_stopped),
    ("a_wrong_configuration_fails_the_start", a_wrong_configuration_fails_the_start),
    ("children_notice_that_the_master_was_killed", children_notice_that_the_master_was_killed),
    ("a_signal_to_the_group_is_one_to_the_master", a_signal_to_the_group_is_one_to_the_master),
    ("signals_for_the_master_do_not_end_children", signals_for_the_master_do_not_end_children),
    ("a_child_told_to_end_by_signal_is_replaced", a_child_told_to_end_by_signal_is_replaced),
    ("logs_are_reopened_everywhere", logs_are_reopened_everywhere),
    ("who_does_not_obey_is_killed", who_does_not_obey_is_killed),
    ("a_stopped_process_is_killed", a_stopped_process_is_killed),
    ("a_stop_at_any_moment_of_the_start_is_clean", a_stop_at_any_moment_of_the_start_is_clean),
    ("a_thread_wakes_the_main_thread", a_thread_wakes_the_main_thread),
    ("requests_are_answered", requests_are_answered),
    ("a_stuck_client_blocks_nobody", a_stuck_client_blocks_nobody),
];

const ROLES: [(&str, &str); 3] = [
    ("log-server", "tidegate: log server"),
    ("worker:0", "tidegate: worker 0"),
    ("worker:1", "tidegate: worker 1"),
];

fn assert_log_server_was_last(server: &Server) {
    let log_server = server.position("role=log-server pid=");
    let started = |role: &str| server.position(&format!("child started role={role} "));
    assert!(log_server > 0 && started("log-server") < started("worker:0"));
    let ended = |role: &str| server.position(&format!("child ended with exit code 0 role={role} "));
    assert!(ended("worker:0") < ended("log-server") && ended("worker:1") < ended("log-server"));
    assert!(server.position("master sees no workers") < ended("log-server"));
}

fn starts_in_order_with_titles_and_stops_in_reverse() {
    let mut server = Server::ready("");
    for (role, title) in ROLES {
        let pid = server.wait_for_child(role, "ready");
        let command_line = fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap();
        assert_eq!(command_line.split('\0').next(), Some(title));
        assert_eq!(fs::read_to_string(format!("/proc/{pid}/comm")).unwrap(), "tidegate\n");
    }
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
    server.wait_for_log(&[
        "signal received",
        "signal=\"TERM\"",
        &format!("sender_pid={}", std::process::id()),
    ]);
    assert!(server.position("log-server ") < server.position("worker:0 "));
    assert_log_server_was_last(&server);
    assert_eq!(server.count("WARN") + server.count("ERROR"), 0);
}

fn quit_is_graceful() {
    let mut server = Server::ready("");
    server.signal_master(Signal::QUIT);
    server.wait_for_child("worker:0", "quit within 30s");
    server.wait_for_child("worker:1", "quit within 30s");
    server.wait_for_child("log-server", "quit within 2s");
    assert_eq!(server.wait_end(), 0);
    assert_log_server_was_last(&server);
}

fn a_killed_worker_is_replaced() {
    let mut server = Server::ready("");
    let first = server.wait_for_child("worker:0", "ready");
    server.signal(first, Signal::KILL);
    let second = server.wait_for_child("worker:0", "ready");
    assert_ne!(first, second);
    server.wait_for_log(&["child died with signal 9 (KILL)", "role=worker:0", &format!("pid={first}")]);
    server.wait_for_log(&["child is started again", "role=worker:0"]);
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
    assert_eq!(server.count("master ready"), 1, "announced once");
    assert_eq!(server.count("child started role=worker:1 "), 1, "the other worker lived on");
}

fn a_killed_log_server_is_replaced() {
    let mut server = Server::ready("");
    let first = server.wait_for_child("log-server", "ready");
    server.signal(first, Signal::KILL);
    assert_ne!(server.wait_for_child("log-server", "ready"), first);
    server.signal_master(Signal::QUIT);
    assert_eq!(server.wait_end(), 0);
    assert_log_server_was_last(&server);
}

fn a_crash_loop_is_slowed_down_and_can_be_stopped() {
    let mut server = Server::start("crashing");
    for (deaths, delay) in [("1", "0ns"), ("2", "100ms"), ("3", "200ms")] {
        let deaths = format!("early_deaths={deaths}");
        server.wait_for_log(&["child died with exit code 101", "role=worker:1"]);
        server.wait_for_log(&["child is started again", &format!("delay={delay}"), &deaths]);
    }
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
    assert_eq!(server.count("master ready"), 0);
}

fn a_wrong_configuration_fails_the_start() {
    let mut server = Server::start("misconfigured");
    assert_eq!(server.wait_end(), 2);
    server.wait_for_log(&["ERROR", "the start is given up, exit code 2", "role=worker:1"]);
    assert_eq!(server.count("master ready") + server.count("is started again"), 0);
}

fn children_notice_that_the_master_was_killed() {
    let mut server = Server::ready("");
    server.signal_master(Signal::KILL);
    for (role, _) in ROLES {
        server.wait_for_child(role, "misses its master");
    }
    assert_eq!(server.wait_end(), -9);
}

fn a_signal_to_the_group_is_one_to_the_master() {
    for signal in [Signal::INT, Signal::TERM, Signal::QUIT] {
        let mut server = Server::ready("");
        server.signal_group(signal);
        assert_eq!(server.wait_end(), 0);
        assert_log_server_was_last(&server);
        assert_eq!(server.count("is started again"), 0, "no respawn in a stop");
    }
}

fn signals_for_the_master_do_not_end_children() {
    let mut server = Server::ready("");
    for (role, _) in ROLES {
        let pid = server.wait_for_child(role, "ready");
        for signal in [Signal::INT, Signal::PIPE, Signal::HUP, Signal::USR2, Signal::WINCH] {
            server.signal(pid, signal);
        }
    }
    server.signal_master(Signal::PIPE);
    // Whoever had died of one of them would be missing here, or have been replaced.
    server.signal_master(Signal::USR1);
    for (role, _) in ROLES {
        server.wait_for_child(role, "reopens");
    }
    server.signal_master(Signal::INT);
    assert_eq!(server.wait_end(), 0);
    assert_eq!(server.count("is started again"), 0);
    assert_log_server_was_last(&server);
}

fn a_child_told_to_end_by_signal_is_replaced() {
    let mut server = Server::ready("");
    for role in ["worker:1", "log-server"] {
        let first = server.wait_for_child(role, "ready");
        server.signal(first, Signal::TERM);
        assert_eq!(server.wait_for_child(role, "stop"), first);
        assert_ne!(server.wait_for_child(role, "ready"), first);
    }
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
}

fn logs_are_reopened_everywhere() {
    let mut server = Server::ready("");
    server.signal_master(Signal::USR1);
    server.wait_for("master reopens");
    for (role, _) in ROLES {
        server.wait_for_child(role, "reopens");
    }
    let worker = server.wait_for_child("worker:0", "begins");
    server.signal(worker, Signal::USR1);
    assert_eq!(server.wait_for_child("worker:0", "reopens"), worker);
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
}

fn who_does_not_obey_is_killed() {
    for signal in [Signal::TERM, Signal::QUIT] {
        let mut server = Server::ready("impatient stubborn");
        server.wait_for_child("worker:0", "does not listen");
        server.signal_master(signal);
        assert_eq!(server.wait_end(), 0);
        server.wait_for_log(&["child did not end in time, next measure: kill", "role=worker:0"]);
        server.wait_for_log(&["child died with signal 9 (KILL)", "role=worker:0"]);
        assert!(server.position("master sees no workers") > server.position("next measure: kill"));
    }
}

fn a_stopped_process_is_killed() {
    let mut server = Server::ready("impatient");
    let worker = server.wait_for_child("worker:1", "ready");
    server.signal(worker, Signal::STOP);
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
    server.wait_for_log(&["child died with signal 9 (KILL)", "role=worker:1"]);
}

fn a_stop_at_any_moment_of_the_start_is_clean() {
    let moments = [
        "master ",
        "log INFO message=child started role=log-server",
        "log-server ",
        "log INFO message=child serves after",
        "log INFO message=child started role=worker:0",
        "worker:0 ",
        "log INFO message=child started role=worker:1",
        "worker:1 ",
        "master ready",
    ];
    for moment in moments {
        for signal in [Signal::TERM, Signal::QUIT, Signal::INT] {
            let mut server = Server::start("");
            server.wait_for(moment);
            server.signal_group(signal);
            assert_eq!(server.wait_end(), 0, "{signal:?} at {moment:?}");
            assert_eq!(server.count("is started again"), 0);
        }
    }
}

fn a_thread_wakes_the_main_thread() {
    let mut server = Server::ready("waking");
    server.wait_for_child("worker:0", "woken");
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
}

fn requests_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let ask = |what: &str| {
        String::from_utf8(request(&path, what.as_bytes(), Duration::from_secs(20)).unwrap()).unwrap()
    };
    let mut server = Server::start_with_control("", &path);
    server.wait_for("master ready");
    let worker = server.wait_for_child("worker:0", "ready");
    let line = |role: &str, rest: &str| format!("{role} ready {rest} status=warming up\n");
    let fresh = "restarts=0 exit=none";
    let all = [line("log-server", fresh), line("worker:0", fresh), line("worker:1", fresh)].concat();
    assert_eq!(ask("status"), all);
    server.signal(worker, Signal::KILL);
    server.wait_for_child("worker:0", "ready");
    // The worker has said that it is ready, but the master may hear it later.
    server.wait_for_log(&["child serves after", "role=log-server"]);
    server.wait_for_log(&["child serves after", "role=worker:0"]);
    server.wait_for_log(&["child serves after", "role=worker:0"]);
    let again = line("worker:0", "restarts=1 exit=signal 9 (KILL)");
    assert!(ask("status").contains(&again), "{}", ask("status"));
    assert_eq!(ask("big").len(), 3_000_000);
    assert_eq!(ask("stop"), "stopping\n");
    assert_eq!(server.wait_end(), 0);
    assert!(!path.exists(), "the socket is removed at the end");
}

fn a_stuck_client_blocks_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("control.sock");
    let mut server = Server::start_with_control("", &path);
    server.wait_for("master ready");
    let _silent = UnixStream::connect(&path).unwrap();
    let mut deaf = UnixStream::connect(&path).unwrap();
    deaf.write_all(b"big\n").unwrap();
    let mut endless = UnixStream::connect(&path).unwrap();
    endless.write_all(&[b'x'; MAX_REQUEST_BYTES + 1]).unwrap();
    let mut rest = Vec::new();
    // Let go without an answer; what it had sent is unread, so that may be seen as a reset.
    if let Err(error) = endless.read_to_end(&mut rest) {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    }
    assert!(rest.is_empty());
    let answer = request(&path, b"status", Duration::from_secs(20)).unwrap();
    assert!(answer.starts_with(b"log-server ready"));
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
}
