//! A panic in any callback ends its connection and nothing else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_engine::{ProcessWord, Reason};

use crate::lab::Note;
use crate::support::{Client, Server, closes, until};

/// Makes a callback panic by the commands in `script` and what `then` does; the bystander must not notice.
fn check(callback: &str, script: &str, then: impl FnOnce(&Server, &Client)) {
    let server = Server::with(|limits| {
        limits.body_timeout = Some(Duration::from_millis(20));
        limits.high_water_bytes = 1000;
        limits.low_water_bytes = 100;
    });
    let mut bystander = server.client();
    bystander.round_trip();
    let mut client = server.client();
    client.send(format!("plan {callback}\n{script}"));
    then(&server, &client);
    server.expect_close(Reason::PANIC);
    client.until_reset();
    bystander.round_trip();
    assert_eq!(server.metrics.get(ProcessWord::Panics), 1, "{callback}");
    assert_eq!(closes(&server), 1, "{callback}");
}

#[test]
fn in_decode() {
    check("decode", "echo x\n", |_, _| {});
}

#[test]
fn in_on_message() {
    check("message", "panic\n", |_, _| {});
}

#[test]
fn in_on_note() {
    check("none", "suspend\n", |server, _| server.suspended().post(Note::Panic).unwrap());
}

#[test]
fn in_on_timer() {
    check("timer", "timer 1 1\n", |_, _| {});
}

#[test]
fn in_on_drained() {
    check("drained", "big 5000\n", |_, _| {});
}

#[test]
fn in_on_deadline() {
    check("deadline", "body 5\n", |_, _| {});
}

#[test]
fn in_on_eof() {
    check("eof", "echo x\n", |_, client| client.end_input());
}

#[test]
fn in_on_open() {
    let server = Server::new();
    let mut bystander = server.client();
    bystander.round_trip();
    server.control.panic_in_open.store(true, Ordering::Relaxed);
    assert_eq!(server.client().until_reset(), b"");
    until(|| server.listener().closed(Reason::PANIC) == 1);
    bystander.round_trip();
    assert_eq!((server.metrics.get(ProcessWord::Panics), closes(&server)), (1, 0));
}

#[test]
fn in_on_close() {
    let server = Server::new();
    let mut bystander = server.client();
    let mut client = server.client();
    client.send("plan close\ndone\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    server.expect_close(Reason::DONE);
    bystander.round_trip();
    assert_eq!((server.metrics.get(ProcessWord::Panics), closes(&server)), (1, 1));
}

#[test]
fn in_on_retire() {
    let mut server = Server::new();
    let mut other = server.client();
    other.send("suspend\n");
    let handle = server.suspended();
    let mut client = server.client();
    client.send("plan retire\necho ready\n");
    client.expect("ready");
    let running = server.running.take().unwrap();
    running.quit(Duration::from_secs(10));
    client.until_reset();
    server.expect_close(Reason::PANIC);
    assert_eq!(other.rest(), b"");
    drop((other, handle));
    running.join().unwrap();
    assert_eq!(closes(&server), 2);
}

#[test]
fn many_at_once() {
    let server = Server::new();
    let mut bystander = server.client();
    let clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    clients.iter().for_each(|client| client.send("panic\n"));
    for _ in 0..clients.len() {
        server.expect_close(Reason::PANIC);
    }
    bystander.round_trip();
}
