//! A panic in any callback ends its connection and nothing else.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_engine::{EngineConfig, ProcessWord, Reason};

use crate::lab::Note;
use crate::support::{Client, Server, closes, until};

/// Makes a callback panic by the commands in `script` and what `then` does; the bystander must not notice.
fn check(config: EngineConfig, callback: &str, script: &str, then: impl FnOnce(&Server, &Client)) {
    let server = Server::with(config, |limits| {
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

under_each_model!(
    in_decode,
    in_on_message,
    in_on_note,
    in_on_timer,
    in_on_drained,
    in_on_deadline,
    in_on_eof,
    in_on_open,
    in_on_close,
    in_on_retire,
);

under_all_models_at_once!(many_at_once);

fn in_decode(config: EngineConfig) {
    check(config, "decode", "echo x\n", |_, _| {});
}

fn in_on_message(config: EngineConfig) {
    check(config, "message", "panic\n", |_, _| {});
}

fn in_on_note(config: EngineConfig) {
    check(config, "none", "suspend\n", |server, _| server.suspended().post(Note::Panic).unwrap());
}

fn in_on_timer(config: EngineConfig) {
    check(config, "timer", "timer 1 1\n", |_, _| {});
}

fn in_on_drained(config: EngineConfig) {
    check(config, "drained", "big 5000\n", |_, _| {});
}

fn in_on_deadline(config: EngineConfig) {
    check(config, "deadline", "body 5\n", |_, _| {});
}

fn in_on_eof(config: EngineConfig) {
    check(config, "eof", "echo x\n", |_, client| client.end_input());
}

fn in_on_open(config: EngineConfig) {
    let server = Server::new(config);
    let mut bystander = server.client();
    bystander.round_trip();
    server.control.panic_in_open.store(true, Ordering::Relaxed);
    assert_eq!(server.client().until_reset(), b"");
    until(|| server.listener().closed(Reason::PANIC) == 1);
    bystander.round_trip();
    assert_eq!((server.metrics.get(ProcessWord::Panics), closes(&server)), (1, 0));
}

fn in_on_close(config: EngineConfig) {
    let server = Server::new(config);
    let mut bystander = server.client();
    let mut client = server.client();
    client.send("plan close\ndone\n");
    assert_eq!(client.rest(), b"");
    drop(client);
    server.expect_close(Reason::DONE);
    bystander.round_trip();
    assert_eq!((server.metrics.get(ProcessWord::Panics), closes(&server)), (1, 1));
}

fn in_on_retire(config: EngineConfig) {
    let mut server = Server::new(config);
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

fn many_at_once(config: EngineConfig) {
    let server = Server::new(config);
    let mut bystander = server.client();
    let clients: Vec<Client> = (0..200).map(|_| server.client()).collect();
    clients.iter().for_each(|client| client.send("panic\n"));
    for _ in 0..clients.len() {
        server.expect_close(Reason::PANIC);
    }
    bystander.round_trip();
}
