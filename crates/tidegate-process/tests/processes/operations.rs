//! Reloads, upgrades and what neighbours do for each other, with real processes.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::Signal;
use tidegate_process::control_socket::request;

use crate::cases::Case;
use crate::server::Server;

pub(crate) const ALL: &[Case] = &[
    ("a_reload_replaces_the_workers", a_reload_replaces_the_workers),
    ("a_refused_reload_changes_nothing", a_refused_reload_changes_nothing),
    ("a_generation_that_cannot_start_is_given_up", a_generation_that_cannot_start_is_given_up),
    ("a_storm_of_signals_leaves_one_reload_to_do", a_storm_of_signals_leaves_one_reload_to_do),
    ("an_upgrade_keeps_the_pid_and_its_clients", an_upgrade_keeps_the_pid_and_its_clients),
    ("an_upgrade_whose_probe_fails_changes_nothing", an_upgrade_whose_probe_fails_changes_nothing),
    ("a_successor_that_gives_up_gives_everything_back", a_successor_that_gives_up_gives_everything_back),
    ("an_upgrade_whose_workers_fail_is_taken_back", an_upgrade_whose_workers_fail_is_taken_back),
    ("workers_can_be_retired_and_come_back", workers_can_be_retired_and_come_back),
    ("a_group_hears_what_the_master_hears", a_group_hears_what_the_master_hears),
    ("a_neighbour_accepts_for_a_dead_worker", a_neighbour_accepts_for_a_dead_worker),
    ("a_neighbour_accepts_for_a_stopped_worker", a_neighbour_accepts_for_a_stopped_worker),
    ("a_worker_is_replaced_by_request", a_worker_is_replaced_by_request),
    ("workers_are_asked", workers_are_asked),
    ("clients_are_answered_by_the_next_image", clients_are_answered_by_the_next_image),
    ("a_delayed_stop_comes_whatever_happens_meanwhile", a_delayed_stop_comes_whatever_happens_meanwhile),
    ("what_a_failed_reload_has_opened_has_an_accepter", what_a_failed_reload_has_opened_has_an_accepter),
];

/// A server with a control socket that serves.
struct Operated {
    server: Server,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

impl Operated {
    fn ready(scenario: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let mut server = Server::start_with_control(scenario, &path);
        server.wait_for("master ready");
        Self { server, path, _folder: folder }
    }

    fn ask(&self, what: &str) -> String {
        ask(&self.path, what)
    }

    fn end(mut self) {
        self.server.signal_master(Signal::TERM);
        assert_eq!(self.server.wait_end(), 0);
        assert!(!self.path.exists(), "the control socket is removed");
    }
}

fn ask(path: &Path, what: &str) -> String {
    String::from_utf8(request(path, what.as_bytes(), Duration::from_secs(60)).unwrap()).unwrap()
}

fn a_reload_replaces_the_workers() {
    let mut operated = Operated::ready("");
    let server = &mut operated.server;
    let before = ["worker:0", "worker:1"].map(|role| server.wait_for_child(role, "ready"));
    let log_server = server.wait_for_child("log-server", "ready");
    assert_eq!(operated.ask("reload"), "Reload done, generation 2\n");
    let server = &mut operated.server;
    let after = ["worker:0", "worker:1"].map(|role| server.wait_for_child(role, "ready"));
    for (role, pid) in [("worker:0", before[0]), ("worker:1", before[1])] {
        assert_eq!(server.wait_for_child(role, "quit without limit"), pid);
    }
    server.wait_for("master forgets 1");
    assert!(before.iter().all(|pid| !after.contains(pid)));
    assert!(server.position("master commits 2") < server.position("quit without limit"));
    server.signal(log_server, Signal::USR1);
    assert_eq!(server.wait_for_child("log-server", "reopens"), log_server, "it lives over reloads");
    operated.end();
}

fn a_refused_reload_changes_nothing() {
    let mut operated = Operated::ready("refusing");
    operated.server.wait_for_child("worker:0", "ready");
    assert_eq!(operated.ask("reload"), "Reload failed: line 3: no\n");
    operated.server.signal_master(Signal::HUP);
    operated.server.wait_for("master: Reload failed: line 3: no");
    assert_eq!(operated.server.count("worker:0 ") - operated.server.count("role=worker:0 "), 2);
    operated.end();
}

fn a_generation_that_cannot_start_is_given_up() {
    let mut operated = Operated::ready("growing-worse");
    let why = "Reload failed: worker 1 ended with exit code 1 before it was ready: no root\n";
    assert_eq!(operated.ask("reload"), why);
    operated.server.wait_for("master forgets 2");
    assert_untouched(&mut operated.server);
    // The number is not used again, so that nothing of it is taken for something else.
    assert_eq!(operated.ask("reload"), "Reload done, generation 3\n");
    operated.end();
}

fn a_storm_of_signals_leaves_one_reload_to_do() {
    let mut operated = Operated::ready("");
    for _ in 0..100 {
        operated.server.signal_master(Signal::HUP);
    }
    assert!(operated.ask("reload").starts_with("Reload done, generation "));
    let server = &mut operated.server;
    server.wait_for("master: Reload done, generation 2");
    let reloads = server.count("master: Reload done");
    // Signals of a kind that wait are one; what comes while a reload runs is one more.
    assert!((1..50).contains(&reloads), "{reloads}");
    operated.end();
}

fn an_upgrade_keeps_the_pid_and_its_clients() {
    let mut operated = Operated::ready("");
    let pid = operated.server.pid();
    let mut log_server = operated.server.wait_for_child("log-server", "ready");
    for generation in [2, 3] {
        assert_eq!(operated.ask("upgrade"), format!("Upgrade done, generation {generation}\n"));
        let server = &mut operated.server;
        server.wait_for(&format!("master {pid} takes over"));
        server.wait_for_child("worker:0", "quit without limit");
        server.wait_for_child("worker:1", "quit without limit");
        server.wait_for(&format!("master forgets {}", generation - 1));
        // It passes over, and is then started again by the new program.
        assert_eq!(server.wait_for_child("log-server", "stop"), log_server);
        log_server = server.wait_for_child("log-server", "ready");
    }
    let server = &mut operated.server;
    server.signal(log_server, Signal::KILL);
    server.wait_for_log(&["child died with signal 9", "role=log-server"]);
    assert_eq!(operated.ask("reload"), "Reload done, generation 4\n");
    operated.end();
}

fn an_upgrade_whose_probe_fails_changes_nothing() {
    let mut operated = Operated::ready("unprobable");
    let answer = operated.ask("upgrade");
    assert!(answer.starts_with("Upgrade failed: the program at "), "{answer}");
    assert!(answer.ends_with("was tried out, and ended with exit code 1\n"), "{answer}");
    assert_eq!(operated.server.count("takes over"), 0);
    assert!(operated.ask("reload").starts_with("Reload done"));
    operated.server.wait_for("master commits");
    operated.end();
}

fn a_successor_that_gives_up_gives_everything_back() {
    let mut operated = Operated::ready("confused");
    let answer = operated.ask("upgrade");
    assert!(answer.contains("the successor is confused"), "{answer}");
    operated.server.wait_for(&format!("master {} takes over again", operated.server.pid()));
    assert_eq!(operated.server.count("quit without limit"), 0, "the workers are untouched");
    assert!(operated.ask("reload").starts_with("Reload done"));
    operated.end();
}

fn an_upgrade_whose_workers_fail_is_taken_back() {
    let mut operated = Operated::ready("growing-worse");
    let answer = operated.ask("upgrade");
    assert!(answer.starts_with("Upgrade failed: ") && answer.contains("no root"), "{answer}");
    let server = &mut operated.server;
    server.wait_for(&format!("master {} takes over again", server.pid()));
    assert_untouched(server);
    assert!(operated.ask("reload").starts_with("Reload done"));
    operated.end();
}

/// The first two workers were not told to end.
fn assert_untouched(server: &mut Server) {
    for role in ["worker:0", "worker:1"] {
        let first = server.wait_for_child(role, "begins");
        assert_eq!(server.count(&format!("{role} {first} quit")), 0);
    }
}

fn workers_can_be_retired_and_come_back() {
    let mut operated = Operated::ready("");
    let server = &mut operated.server;
    server.signal_master(Signal::WINCH);
    server.wait_for_child("worker:0", "quit without limit");
    server.wait_for_child("worker:1", "quit without limit");
    for role in ["worker:0", "worker:1"] {
        server.wait_for_log(&["child ended with exit code 0", &format!("role={role}")]);
    }
    assert_eq!(server.count("is started again"), 0);
    assert_eq!(operated.ask("reload"), "Reload done, generation 2\n");
    operated.server.wait_for_child("worker:1", "ready");
    operated.end();
}

fn a_group_hears_what_the_master_hears() {
    let mut operated = Operated::ready("");
    let server = &mut operated.server;
    server.signal_group(Signal::HUP);
    server.wait_for("master: Reload done, generation 2");
    server.signal_group(Signal::USR2);
    server.wait_for("master: Upgrade done, generation 3");
    server.signal_group(Signal::WINCH);
    server.wait_for_log(&["workers of generation 3 are retired"]);
    server.signal_group(Signal::QUIT);
    assert_eq!(server.wait_end(), 0);
    assert_eq!(server.count("is started again"), 0);
}

fn a_neighbour_accepts_for_a_dead_worker() {
    let mut server = Server::ready("");
    let first = server.wait_for_child("worker:0", "ready");
    let neighbour = server.wait_for_child("worker:1", "ready");
    server.signal(first, Signal::KILL);
    assert_eq!(server.wait_for_child("worker:1", "covers 0 by own:worker:0"), neighbour);
    server.wait_for_child("worker:0", "ready");
    assert_eq!(server.wait_for_child("worker:1", "uncovers 0"), neighbour);
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
}

fn a_neighbour_accepts_for_a_stopped_worker() {
    let mut server = Server::ready("");
    let stopped = server.wait_for_child("worker:1", "ready");
    server.signal(stopped, Signal::STOP);
    server.wait_for_child("worker:0", "covers 1 by own:worker:1");
    server.signal(stopped, Signal::CONT);
    server.wait_for_child("worker:0", "uncovers 1");
    server.signal_master(Signal::TERM);
    assert_eq!(server.wait_end(), 0);
}

fn a_worker_is_replaced_by_request() {
    let mut operated = Operated::ready("");
    let first = operated.server.wait_for_child("worker:0", "ready");
    let answer = operated.ask("replace");
    assert!(answer.starts_with("Replace(") && answer.ends_with("done, generation 1\n"), "{answer}");
    let second = operated.server.wait_for_child("worker:0", "ready");
    assert_ne!(first, second);
    assert_eq!(operated.server.wait_for_child("worker:0", "quit without limit"), first);
    assert_eq!(operated.ask("pause"), "paused\n");
    assert_eq!(operated.server.wait_for_child("worker:0", "pauses"), second);
    operated.server.wait_for_child("worker:1", "covers 0 by own:worker:0");
    operated.end();
}

fn workers_are_asked() {
    let operated = Operated::ready("");
    assert_eq!(operated.ask("ask"), "worker:0 says well\nworker:1 says well\n");
    operated.end();
}

fn clients_are_answered_by_the_next_image() {
    let mut operated = Operated::ready("speechless");
    let path = operated.path.clone();
    let asks = std::thread::spawn(move || ask(&path, "ask"));
    operated.server.wait_for_child("worker:0", "says nothing");
    let mut slow = UnixStream::connect(&operated.path).unwrap();
    slow.write_all(b"sta").unwrap();
    // Who came before has been accepted when this is answered.
    assert!(operated.ask("status").contains("log-server"));
    operated.server.signal_master(Signal::USR2);
    operated.server.wait_for("master leaves");
    operated.server.wait_for("master: Upgrade done, generation 2");
    assert!(asks.join().unwrap().contains("worker:1 says well\n"));
    slow.write_all(b"tus\n").unwrap();
    let mut answer = String::new();
    slow.read_to_string(&mut answer).unwrap();
    assert!(answer.contains("log-server"), "{answer}");
    operated.end();
}

fn a_delayed_stop_comes_whatever_happens_meanwhile() {
    let mut operated = Operated::ready("delaying");
    let server = &mut operated.server;
    server.signal_master(Signal::QUIT);
    server.wait_for_log(&["not ready any more"]);
    server.signal_master(Signal::USR1);
    server.wait_for("master reopens");
    server.signal_master(Signal::USR2);
    server.wait_for("master: Upgrade done, generation 2");
    assert_eq!(server.wait_end(), 0);
}

fn what_a_failed_reload_has_opened_has_an_accepter() {
    let mut operated = Operated::ready("refusing widening");
    let stopped = operated.server.wait_for_child("worker:1", "ready");
    operated.server.signal(stopped, Signal::STOP);
    operated.server.wait_for_child("worker:0", "covers 1 by own:worker:1");
    assert_eq!(operated.ask("reload"), "Reload failed: line 3: no\n");
    operated.server.wait_for_child("worker:0", "covers 1 by more");
    operated.server.signal(stopped, Signal::CONT);
    assert_eq!(operated.server.wait_for_child("worker:1", "covers 1 by more"), stopped);
    operated.server.wait_for_child("worker:0", "uncovers 1");
    operated.end();
}
