//! Processes that die: what takes their place, and what is left of them.

use std::fs;

use rustix::process::Signal;
use tempfile::tempdir;

use crate::http::{Connection, get};
use crate::processes::{Exit, Watched, stop};
use crate::support::{Server, Setup, is_replaced, log_server, stdout, worker};

/// Nobody of the group has ended without being reaped.
#[track_caller]
fn check_no_zombie(server: &Server) {
    let group = server.group();
    assert!(group.iter().all(|process| process.state != 'Z'), "{group:?}");
}

#[test]
fn a_killed_worker_is_reaped_told_of_and_replaced() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let before = server.worker(0);
    Watched::of(&before).signal(Signal::KILL);
    server.wait_lines(&["child died with signal 9 (KILL)", "worker:0", &format!("pid={}", before.pid)]);
    let status = server.wait_status("there is another worker 0", |status| is_replaced(status, &before));
    assert_eq!((worker(&status, 0).restarts, worker(&status, 1).restarts), (1, 0));
    check_no_zombie(&server);
    // Both workers' sockets are served again.
    for _ in 0..16 {
        assert_eq!(get(server.address("web"), "/hello").status, 200);
    }
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
}

#[test]
fn what_waits_for_a_dead_worker_is_served_by_its_successor() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("process.workers=1").start();
    // Stopped, so that it does not take the connection, which the kernel has.
    let before = stop(&server.worker(0));
    let mut connection = Connection::open(server.address("web"));
    connection.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n");
    before.signal(Signal::KILL);
    assert_eq!(connection.answer().unwrap().status, 200);
}

#[test]
fn a_killed_log_server_is_replaced_and_records_go_on() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let before = server.log_server();
    Watched::of(&before).signal(Signal::KILL);
    server.wait_lines(&["child died with signal 9 (KILL)", "log-server"]);
    let status = server.wait_status("there is another log server", |status| is_replaced(status, &before));
    assert_eq!(log_server(&status).restarts, 1);
    check_no_zombie(&server);
    server.signal(Signal::USR1);
    server.wait_lines(&["signal received", "USR1"]);
    assert_eq!(server.end(Signal::TERM), Exit::Code(0));
    // The death, which was told while nobody stored records, and what came later.
    let records = crate::log::records(&server);
    for part in ["child died with signal 9 (KILL)", "signal received"] {
        assert!(records.iter().any(|record| record.body.contains(part)), "{part}");
    }
}

#[test]
fn a_crash_loop_backs_off_and_ends_when_its_cause_does() {
    let dir = tempdir().unwrap();
    let (root, away) = (dir.path().join("site"), dir.path().join("away"));
    fs::create_dir(&root).unwrap();
    fs::write(root.join("index.html"), "here").unwrap();
    let mut server =
        Setup::new(&dir).set("process.workers=1").set(format!("web.root={}", root.display())).start();
    assert_eq!(get(server.address("web"), "/").body, "here");
    fs::rename(&root, &away).unwrap();
    Watched::of(&server.worker(0)).signal(Signal::KILL);
    server.wait_lines(&["worker failed", "site"]);
    server.wait_lines(&["is started again in 100ms, having died early 2 times in a row"]);
    server.wait_lines(&["is started again in 200ms, having died early 3 times in a row"]);
    check_no_zombie(&server);
    // The master answers meanwhile, though the configuration would be refused by now.
    assert_eq!(server.tidegate(&["check"]).status.code(), Some(2));
    let status = server.tidegate(&["status"]);
    assert!(stdout(&status).contains("worker 0"), "{status:?}");
    assert!(stdout(&server.tidegate(&["log", "tail"])).contains("worker failed"));
    fs::rename(&away, &root).unwrap();
    server.wait_lines(&["child serves", "worker:0"]);
    assert_eq!(get(server.address("web"), "/").body, "here");
    assert_eq!(server.end(Signal::QUIT), Exit::Code(0));
}

#[test]
fn children_of_a_killed_master_finish_and_make_room_for_the_next() {
    let dir = tempdir().unwrap();
    let addresses = |server: &Server| -> Vec<String> {
        server.listeners().iter().map(|(name, address)| format!("listen.{name}.address={address}")).collect()
    };
    let first = Setup::new(&dir).start();
    let children: Vec<Watched> = first
        .group()
        .iter()
        .filter(|process| process.parent == first.pid())
        .map(|process| Watched::open(process.pid))
        .collect();
    assert_eq!(children.len(), 3);
    let mut held = Connection::open(first.address("web"));
    held.send("GET /hello HTTP/1.1\r\nHo");
    first.wait_status("the half request has arrived", |status| {
        status.processes.iter().any(|process| process.bytes_in > 0)
    });
    first.signal(Signal::KILL);
    assert_eq!(first.wait_exit(), Exit::Signal(9));

    let setup = addresses(&first).into_iter().fold(Setup::new(&dir), Setup::set);
    let second = setup.start();
    assert_eq!(addresses(&second), addresses(&first));
    for _ in 0..8 {
        assert_eq!(get(second.address("web"), "/hello").status, 200);
    }
    // What was in flight when the first master was killed is answered by its worker.
    held.send("st: test\r\n\r\n");
    assert_eq!(held.answer().unwrap().status, 200);
    assert!(held.ends_in_order());
    children.iter().for_each(Watched::wait_end);
    assert_eq!(second.status().processes.len(), 4);
    assert_eq!(second.end(Signal::TERM), Exit::Code(0));
}

#[test]
fn children_of_a_killed_master_do_not_outlast_the_shutdown_timeout() {
    let dir = tempdir().unwrap();
    let server = Setup::new(&dir).set("process.shutdown_timeout=300ms").start();
    let mut held = Connection::open(server.address("web"));
    held.send("GET /hello HTTP/1.1\r\nHo");
    server.wait_status("the half request has arrived", |status| {
        status.processes.iter().any(|process| process.bytes_in > 0)
    });
    let children: Vec<Watched> = server.group().iter().map(|process| Watched::open(process.pid)).collect();
    server.signal(Signal::KILL);
    assert!(!held.ends_in_order());
    children.iter().for_each(Watched::wait_end);
}

#[test]
fn a_stopped_worker_is_killed_in_a_stop() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("process.shutdown_timeout=100ms").start();
    let stuck = stop(&server.worker(1));
    server.signal(Signal::QUIT);
    server.wait_lines(&["child did not end in time, next measure: kill", "worker:1"]);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(stuck.has_ended());
}
