//! Stopping: at once, gracefully, and what is left after the time that is granted.

use std::net::TcpStream;

use rustix::process::Signal;
use tempfile::tempdir;

use crate::http::Connection;
use crate::processes::Exit;
use crate::support::{Server, Setup, wait_until};

/// A request that the server has begun to read and cannot answer yet.
fn half_sent_request(server: &Server) -> Connection {
    let mut connection = Connection::open(server.address("web"));
    connection.send(HALF);
    server.wait_status("the half request has arrived", |status| {
        status.processes.iter().map(|process| process.bytes_in).sum::<u64>() >= HALF.len() as u64
    });
    connection
}

const HALF: &str = "GET /hello HTTP/1.1\r\nHost: te";
const OTHER_HALF: &str = "st\r\n\r\n";

#[track_caller]
fn check_stops_at_once(send: impl Fn(&Server)) {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let mut connection = half_sent_request(&server);
    send(&server);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(server.group().is_empty());
    connection.ends_in_order();
    let lines = server.all_lines();
    for role in ["worker:0", "worker:1", "log-server"] {
        let ended = |line: &&String| line.contains("child ended with exit code 0") && line.contains(role);
        assert_eq!(lines.iter().filter(ended).count(), 1, "{role}");
    }
    assert!(!lines.iter().any(|line| line.contains("WARN") || line.contains("ERROR")), "{lines:#?}");
}

#[test]
fn term_stops_at_once() {
    check_stops_at_once(|server| server.signal(Signal::TERM));
}

#[test]
fn int_stops_at_once() {
    check_stops_at_once(|server| server.signal(Signal::INT));
}

#[test]
fn int_to_the_whole_group_stops_in_order() {
    check_stops_at_once(|server| server.signal_group(Signal::INT));
}

#[test]
fn term_to_the_whole_group_stops_in_order() {
    check_stops_at_once(|server| server.signal_group(Signal::TERM));
}

#[test]
fn quit_of_one_process_waits_for_each_of_its_loops() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).set("process.workers=0").set("engine.loops=2").start();
    let mut connection = Connection::open(server.address("web"));
    assert_eq!(connection.get("/hello").status, 200);
    connection.send(HALF);
    server.signal(Signal::QUIT);
    server.wait_line("signal received");
    // The loop without a connection ends at once, and must not take the other one with it.
    let tasks = format!("/proc/{}/task", server.pid());
    let is_loop = |task: &std::fs::DirEntry| {
        std::fs::read_to_string(task.path().join("comm")).is_ok_and(|name| name.starts_with("loop-"))
    };
    // Those of the server and the log server's.
    let loops = || std::fs::read_dir(&tasks).map_or(0, |all| all.flatten().filter(is_loop).count());
    wait_until("the idle loop has ended", || loops() < 3);
    connection.send(OTHER_HALF);
    assert_eq!(connection.answer().unwrap().status, 200);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

#[test]
fn quit_lets_a_request_finish() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let mut connection = half_sent_request(&server);
    let mut idle = Connection::open(server.address("web"));
    assert_eq!(idle.get("/hello").status, 200);
    server.signal(Signal::QUIT);
    server.wait_line("graceful stop");
    // An idle connection is not worth waiting for.
    assert!(idle.ends_in_order());
    wait_until("nobody accepts any more", || TcpStream::connect(server.address("web")).is_err());
    connection.send(OTHER_HALF);
    let answer = connection.answer().unwrap();
    assert_eq!((answer.status, answer.body.as_str()), (200, "Hello, World!"));
    assert!(answer.head.contains("Connection: close"), "{}", answer.head);
    assert!(connection.ends_in_order());
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(server.group().is_empty());
}

#[test]
fn quit_to_the_whole_group_lets_a_request_finish() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let mut connection = half_sent_request(&server);
    server.signal_group(Signal::QUIT);
    server.wait_line("graceful stop");
    connection.send(OTHER_HALF);
    assert_eq!(connection.answer().unwrap().status, 200);
    assert_eq!(server.wait_exit(), Exit::Code(0));
}

/// Whoever was connected before the end began is answered, also those who were on their way from the acceptor to a worker.
#[track_caller]
fn check_all_are_answered(end: impl Fn(&Server)) {
    let dir = tempdir().unwrap();
    for _ in 0..4 {
        let server = Setup::new(&dir).set("process.accept=handoff").start();
        let open = |_| Connection::open(server.address("web"));
        let mut clients: Vec<Connection> = (0..150).map(open).collect();
        clients.iter_mut().for_each(|client| client.send("GET /hello HTTP/1.1\r\nHost: test\r\n\r\n"));
        end(&server);
        for client in &mut clients {
            assert_eq!(client.answer().unwrap().status, 200);
        }
        server.wait_exit();
        wait_until("all have ended", || server.group().is_empty());
    }
}

#[test]
fn quit_to_the_whole_group_answers_all_that_were_being_handed_over() {
    check_all_are_answered(|server| server.signal_group(Signal::QUIT));
}

#[test]
fn a_master_that_is_killed_costs_nothing_that_was_being_handed_over() {
    check_all_are_answered(|server| server.signal(Signal::KILL));
}

#[test]
fn what_outlasts_the_shutdown_timeout_is_closed_with_its_reason() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir)
        .set("process.shutdown_timeout=200ms")
        .set("log.level=info,tidegate_engine=debug")
        .start();
    let mut connection = half_sent_request(&server);
    server.signal(Signal::QUIT);
    assert!(!connection.ends_in_order());
    assert_eq!(server.wait_exit(), Exit::Code(0));
    assert!(
        server
            .all_lines()
            .iter()
            .any(|line| line.contains("connection closed") && line.contains("shutdown-timeout"))
    );
}

#[test]
fn term_makes_a_graceful_stop_a_fast_one() {
    let dir = tempdir().unwrap();
    let mut server = Setup::new(&dir).start();
    let mut connection = half_sent_request(&server);
    server.signal(Signal::QUIT);
    server.wait_line("graceful stop");
    server.signal(Signal::TERM);
    assert_eq!(server.wait_exit(), Exit::Code(0));
    connection.ends_in_order();
}
