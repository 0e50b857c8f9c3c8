//! Output: peers that read slowly, late or never.

use std::sync::atomic::Ordering;
use std::time::Duration;

use tidegate_engine::{EngineConfig, ListenerWord, Reason};

use crate::client::counts;
use crate::lab::{CHUNK, Seen, letters};
use crate::support::{Server, Setup, pattern, until};

under_each_model!(
    a_peer_that_does_not_read_is_not_read_from,
    a_service_that_sends_without_end_goes_on_from_on_drained,
    a_peer_that_takes_nothing_is_reset_in_time,
    an_ending_connection_whose_peer_takes_nothing_is_reset_in_time,
    output_over_the_limit_of_a_connection_ends_it,
    output_over_the_limit_of_the_loop_ends_the_connection_that_asks_for_more,
    what_is_queued_outlives_a_close_and_then_comes_fin,
    a_peer_that_writes_on_and_on_before_it_reads_gets_its_answer_too,
);

under_all_models_at_once!(
    a_peer_that_takes_little_but_something_is_served_on,
    an_answer_on_its_way_is_not_overtaken_by_a_reset,
);

fn a_peer_that_does_not_read_is_not_read_from(config: EngineConfig) {
    const HIGH: usize = 64 << 10;
    const ANSWER: u64 = 10_000;
    let server = Server::with(config, |limits| {
        limits.high_water_bytes = HIGH;
        limits.low_water_bytes = 16 << 10;
    });
    let mut client = server.client();
    let requests = 1000;
    let writer = client.send_aside(format!("big {ANSWER}\n").repeat(requests).into_bytes());
    until(|| server.control.max_queued.load(Ordering::Relaxed) > HIGH);
    // Had reading not paused, ten megabytes would gather in memory while this client takes them line by line.
    let expected = String::from_utf8(letters(ANSWER)).unwrap();
    for _ in 0..requests {
        client.expect(&expected);
    }
    writer.join().unwrap().unwrap();
    server.see(|seen| matches!(seen, Seen::Drained).then_some(()));
    let most = server.control.max_queued.load(Ordering::Relaxed);
    assert!(most <= HIGH + 10_001, "{most} bytes were queued");
    client.round_trip();
}

fn a_service_that_sends_without_end_goes_on_from_on_drained(config: EngineConfig) {
    // To a peer that reads at once, and with a buffer that takes every chunk whole.
    for send_buffer in [16 << 10, 400 << 10] {
        let mut setup = Setup { send_buffer, ..Setup::new(config) };
        setup.limits.high_water_bytes = 64 << 10;
        setup.limits.low_water_bytes = 16 << 10;
        let server = Server::start(setup);
        let mut client = server.client();
        client.send("stream 50\n");
        let chunk = pattern(CHUNK);
        for _ in 0..50 {
            assert!(client.bytes(CHUNK) == chunk);
        }
        client.expect("end of stream");
        client.round_trip();
    }
}

fn a_peer_that_takes_nothing_is_reset_in_time(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.write_timeout = Some(Duration::from_millis(50)));
    let mut client = server.client();
    client.send("big 4000000\n");
    server.expect_close(Reason::WRITE_TIMEOUT);
    assert!(client.until_reset().len() < 4_000_000);
}

fn a_peer_that_takes_little_but_something_is_served_on(config: EngineConfig) {
    // Large enough that the kernel does not call it writable for some reads, each of which is progress though.
    let mut setup = Setup { send_buffer: 200 << 10, ..Setup::new(config) };
    setup.limits.write_timeout = Some(Duration::from_millis(1500));
    let server = Server::start(setup);
    let mut client = server.client();
    client.send("big 1000000\n");
    let mut got = 0;
    // Three time-outs long. One is many reads: the peer's window opens in large steps, and machines are busy.
    for _ in 0..60 {
        got += client.bytes(16 << 10).len();
        // The pace of the peer, not a wait for anything.
        std::thread::park_timeout(Duration::from_millis(75));
    }
    assert_eq!(client.bytes(1_000_001 - got).last(), Some(&b'\n'));
    client.round_trip();
}

fn an_ending_connection_whose_peer_takes_nothing_is_reset_in_time(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.write_timeout = Some(Duration::from_millis(50)));
    let mut client = server.client();
    client.send("big 4000000\ndone\n");
    server.expect_close(Reason::WRITE_TIMEOUT);
    client.until_reset();
}

fn output_over_the_limit_of_a_connection_ends_it(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.max_output_bytes = 1_000_000);
    let mut client = server.client();
    client.send("big 3000000\n");
    client.until_reset();
    server.expect_close(Reason::OUTPUT_OVERFLOW);
}

fn output_over_the_limit_of_the_loop_ends_the_connection_that_asks_for_more(config: EngineConfig) {
    let config = EngineConfig { max_buffer_bytes: 1 << 20, ..config };
    let server = Server::start(Setup::new(config));
    let mut bystander = server.client();
    let mut client = server.client();
    client.send("big 3000000\n");
    client.until_reset();
    server.expect_close(Reason::OUTPUT_OVERFLOW);
    // Its blocks are free again.
    bystander.send("big 1000000\n");
    assert_eq!(bystander.line().len(), 1_000_000);
}

fn what_is_queued_outlives_a_close_and_then_comes_fin(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    // Behind the last message there is more, which nobody reads: it must not turn FIN into a reset.
    client.send("big 4000000\ndone\n");
    client.send("x".repeat(100_000));
    let writer = client.send_aside(vec![b'y'; 600_000]);
    let got = client.rest();
    assert_eq!(got.len(), 4_000_001);
    assert!(got[..4_000_000] == letters(4_000_000));
    writer.join().unwrap().unwrap();
    drop(client);
    let closed = server.expect_close(Reason::DONE);
    assert!(counts(closed.bytes_out, 4_000_001), "{closed:?}");
    assert_eq!(closed.bytes_taken, 4_000_001, "{closed:?}");
}

fn a_peer_that_writes_on_and_on_before_it_reads_gets_its_answer_too(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.high_water_bytes = 4 << 20);
    let mut client = server.client();
    client.send("big 2000000\ndone\n");
    // More than a lingering connection throws away: at some point the server stops reading, and that is all.
    let writer = client.send_aside(vec![b'y'; 8_000_000]);
    server.wait_for(ListenerWord::BytesIn, 1 << 20);
    let got = client.bytes(2_000_001);
    assert!(got[..2_000_000] == letters(2_000_000));
    server.expect_close(Reason::DONE);
    // It was told everything and went on writing; the reset is its own affair.
    drop(client);
    drop(writer.join().unwrap());
}

fn an_answer_on_its_way_is_not_overtaken_by_a_reset(config: EngineConfig) {
    const ANSWER: u64 = 80_000;
    let server = Server::new(config);
    let mut client = server.client();
    // The kernel has it all at once, but not all of it at the client's end.
    client.send(format!("big {ANSWER}\ndone\n"));
    let writer = client.send_aside(vec![b'y'; 8_000_000]);
    // The server has thrown away as much as it does, and the client has not read a byte.
    server.wait_for(ListenerWord::BytesIn, 1 << 20);
    assert!(client.rest() == [&letters(ANSWER)[..], b"\n"].concat());
    server.expect_close(Reason::DONE);
    drop(client);
    drop(writer.join().unwrap());
}
