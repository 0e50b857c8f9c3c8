//! Peers that are slower than they may be, and peers that are not.

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::Duration;

use tidegate_engine::{EngineConfig, Limits, Reason};

use crate::lab::Note;
use crate::support::{Client, PATIENCE, Server, Setup, pattern};

under_all_models_at_once!(
    a_body_that_trickles_is_too_slow_and_one_that_flows_is_not,
    a_service_may_give_a_slow_body_another_grace,
    a_reader_that_takes_nothing_is_reset,
    a_reader_of_the_last_answer_is_reset_too,
    a_reader_of_a_file_is_reset_too,
    a_reader_that_takes_enough_is_served_to_the_end,
    nothing_is_asked_of_a_peer_that_is_not_heard,
    without_a_rate_a_body_may_trickle,
);

/// The grace is short, and any other limit out of the way.
fn limits(limits: &mut Limits) {
    limits.min_rate_bytes = 10_000;
    limits.min_rate_grace = Duration::from_millis(150);
    limits.body_timeout = Some(PATIENCE);
    limits.write_timeout = Some(PATIENCE);
    limits.idle_timeout = None;
}

/// Sends bytes one by one until the server has had enough.
fn trickle(client: &Client) {
    let has_enough = |_| {
        std::thread::park_timeout(Duration::from_millis(10));
        client.stream().write_all(b"x").is_err()
    };
    assert!((0..1000).any(has_enough), "the server is patient");
}

fn a_body_that_trickles_is_too_slow_and_one_that_flows_is_not(config: EngineConfig) {
    let server = Server::with(config, limits);
    let mut fast = server.client();
    fast.send("body 400000\n");
    for _ in 0..40 {
        // Longer than the grace, all in all; and as fast as 200 KB/s, which leaves room for a slow machine.
        fast.send([b'x'; 10_000]);
        std::thread::park_timeout(Duration::from_millis(5));
    }
    fast.expect("body done");
    let silent = server.client();
    silent.send("body 100000\n");
    server.expect_close(Reason::SLOW_BODY);
    let client = server.client();
    client.send("body 100000\n");
    trickle(&client);
    server.expect_close(Reason::SLOW_BODY);
    // Between two bodies it may be as slow as it likes.
    std::thread::park_timeout(Duration::from_millis(300));
    fast.round_trip();
}

fn a_service_may_give_a_slow_body_another_grace(config: EngineConfig) {
    let server = Server::with(config, limits);
    let mut client = server.client();
    client.send("patient\nbody 5\nab");
    client.expect("late: Body");
    client.send("cde");
    client.expect("body done");
    client.send("patient\nbody 5\nab");
    client.expect("late: Body");
    client.until_reset();
    server.expect_close(Reason::SLOW_BODY);
}

fn a_reader_that_takes_nothing_is_reset(config: EngineConfig) {
    let server = Server::with(config, limits);
    let client = server.client();
    client.send("big 1500000\n");
    server.expect_close(Reason::SLOW_READER);
    drop(client);
}

fn a_reader_of_the_last_answer_is_reset_too(config: EngineConfig) {
    let server = Server::with(config, limits);
    let client = server.client();
    client.send("big 1500000\ndone\n");
    server.expect_close(Reason::SLOW_READER);
    drop(client);
}

fn a_reader_of_a_file_is_reset_too(config: EngineConfig) {
    // Also where the kernel takes so much at first that it would be worth a long time.
    for send_buffer in [32 << 10, 1 << 20] {
        let mut setup = Setup { send_buffer, ..Setup::new(config) };
        limits(&mut setup.limits);
        let server = Server::start(setup);
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&pattern(8 << 20)).unwrap();
        *server.control.file.lock().unwrap() = Some(Arc::new(file.into()));
        let client = server.client();
        client.send("file 0 8388608\n");
        server.expect_close(Reason::SLOW_READER);
        drop(client);
    }
}

fn a_reader_that_takes_enough_is_served_to_the_end(config: EngineConfig) {
    let server = Server::with(config, |it| {
        limits(it);
        it.min_rate_bytes = 1000;
        it.min_rate_grace = Duration::from_secs(1);
    });
    let client = server.client();
    client.send("big 1500000\n");
    let mut got = 0;
    let mut piece = vec![0; 50_000];
    while got < 1_500_001 {
        got += client.stream().read(&mut piece).unwrap();
        std::thread::park_timeout(Duration::from_millis(40));
    }
    let mut client = client;
    client.round_trip();
}

fn nothing_is_asked_of_a_peer_that_is_not_heard(config: EngineConfig) {
    let server = Server::with(config, limits);
    let (mut client, handle) = server.client_with_handle();
    client.send("body 6\nabc");
    // The body has begun, and its pace with it.
    server.wait_for(tidegate_engine::ListenerWord::BytesIn, 10);
    handle.post(Note::Suspend).unwrap();
    std::thread::park_timeout(Duration::from_millis(500));
    handle.post(Note::Say("go on".into())).unwrap();
    client.expect("go on");
    client.send("def");
    client.expect("body done");
}

fn without_a_rate_a_body_may_trickle(config: EngineConfig) {
    let server = Server::with(config, |it| {
        limits(it);
        it.min_rate_bytes = 0;
    });
    let mut client = server.client();
    client.send("body 40\n");
    for _ in 0..40 {
        client.send("x");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    client.expect("body done");
}
