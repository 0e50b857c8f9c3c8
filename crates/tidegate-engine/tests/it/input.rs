//! Input: whatever way bytes arrive, the same messages are handled, in order and once.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::atomic::Ordering;

use tidegate_engine::{
    Decoded, EngineConfig, Flow, Io, ListenerWord, LoopBuilder, Peer, PeerAddress, ProcessWord, Reason,
    Refusal, Service, Socket, TimerKind,
};

use crate::client::counts;
use crate::lab::Note;
use crate::support::{Server, pattern, until};

/// Sends back what it gets.
struct Echo;

impl Service for Echo {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, peer: &Peer<'_>) -> Result<(), Refusal> {
        if peer.address == PeerAddress::Unix { Ok(()) } else { Err(Reason::REFUSED.into()) }
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        io.send(bytes);
        Flow::Continue
    }
}

under_each_model!(
    a_message_knows_whether_more_came_with_it,
    a_hundred_connections_get_their_own_bytes_back,
    a_stream_may_be_split_anywhere,
    a_stream_may_come_byte_by_byte,
    thousands_in_one_write_are_answered_in_order_with_bounded_output,
    everything_before_the_peers_end_is_answered,
    an_unfinished_message_at_the_end_is_dropped,
    input_waits_while_the_service_has_paused,
    a_timer_may_resume_what_a_message_paused,
    a_message_over_the_limit_ends_the_connection,
    broken_input_ends_the_connection_without_an_answer,
    large_bodies_pass_in_pieces,
);

fn a_hundred_connections_get_their_own_bytes_back(config: EngineConfig) {
    bytes_come_back(config, 200 << 10);
}

/// Back end, trigger, dispatch and timers in every combination, with as many MiB each as `TIDEGATE_TEST_MIB` says. By
/// hand: see `.ci/whole-product`.
#[test]
fn the_whole_product() {
    let mut out = std::io::stderr();
    let Some(mib) = std::env::var("TIDEGATE_TEST_MIB").ok().and_then(|text| text.parse::<usize>().ok())
    else {
        return writeln!(out, "skipped: TIDEGATE_TEST_MIB is not set").unwrap();
    };
    for model in crate::support::models() {
        for timers in [TimerKind::Wheel, TimerKind::Heap, TimerKind::Tree, TimerKind::List] {
            let config = EngineConfig { timers, ..model };
            crate::support::under(config, |config| bytes_come_back(config, (mib << 20) / 100));
            writeln!(out, "{mib} MiB came back: {} {timers:?}", crate::support::name_of(config)).unwrap();
        }
    }
}

/// A hundred connections send random bytes, about so many each, in pieces of up to 20,000, and read them back.
fn bytes_come_back(config: EngineConfig, each: usize) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("echo");
    let socket = Socket::shared(UnixListener::bind(&path).unwrap());
    let running = LoopBuilder::new(config).listen("echo", socket, || Ok(Echo)).spawn().unwrap();
    std::thread::scope(|scope| {
        for seed in 1..=100u64 {
            let path = &path;
            scope.spawn(move || {
                let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                let mut client = UnixStream::connect(path).unwrap();
                client.set_read_timeout(Some(crate::support::PATIENCE)).unwrap();
                let (mut bytes, mut back) = (Vec::new(), Vec::new());
                let mut left = each;
                while left > 0 {
                    let len = usize::try_from(random % 20_000).unwrap().clamp(1, left);
                    bytes.clear();
                    while bytes.len() < len {
                        // xorshift64, Marsaglia 2003
                        random ^= random << 13;
                        random ^= random >> 7;
                        random ^= random << 17;
                        bytes.extend_from_slice(&random.to_be_bytes());
                    }
                    bytes.truncate(len);
                    client.write_all(&bytes).unwrap();
                    back.resize(len, 0);
                    client.read_exact(&mut back).unwrap();
                    assert!(back == bytes, "connection {seed}");
                    left -= len;
                }
            });
        }
    });
    running.stop();
    running.join().unwrap();
}

const SCRIPT: &str = "echo one\necho two\nbody 10\n0123456789count 5\necho three\n";
const ANSWERS: [&str; 4] = ["one", "two", "body done", "three"];

fn a_stream_may_be_split_anywhere(config: EngineConfig) {
    let server = Server::new(config);
    let mut sent = 0;
    for at in 1..SCRIPT.len() {
        let mut client = server.client();
        let (first, second) = SCRIPT.split_at(at);
        client.send(first);
        sent += first.len() as u64;
        // The two pieces must not meet in the kernel.
        server.wait_for(ListenerWord::BytesIn, sent);
        client.send(second);
        sent += second.len() as u64;
        ANSWERS.iter().for_each(|line| client.expect(line));
    }
    let splits = SCRIPT.len() as u64 - 1;
    // Whoever handled the last message may have answered before it was counted.
    until(|| server.listener().service(0) >= 5 * splits && server.count(ListenerWord::BytesIn) >= sent);
    server.wait_for(ListenerWord::Messages, 6 * splits);
    assert_eq!(server.listener().service(0), 5 * splits);
    assert!(counts(server.count(ListenerWord::BytesIn), sent), "{sent} bytes were sent");
}

fn a_stream_may_come_byte_by_byte(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    for (n, byte) in SCRIPT.bytes().enumerate() {
        client.send([byte]);
        server.wait_for(ListenerWord::BytesIn, n as u64 + 1);
    }
    ANSWERS.iter().for_each(|line| client.expect(line));
}

fn thousands_in_one_write_are_answered_in_order_with_bounded_output(config: EngineConfig) {
    const HIGH: usize = 4096;
    let server = Server::with(config, |limits| {
        limits.high_water_bytes = HIGH;
        limits.low_water_bytes = 1024;
    });
    let mut client = server.client();
    let lines: Vec<u8> = (0..20_000).flat_map(|n| format!("echo {n:>50}\n").into_bytes()).collect();
    let total = lines.len() as u64;
    let writer = client.send_aside(lines);
    for n in 0..20_000 {
        client.expect(&format!("{n:>50}"));
    }
    writer.join().unwrap().unwrap();
    // Whoever handled the last one may have answered before it was counted.
    server.wait_for(ListenerWord::Messages, 20_000);
    assert_eq!(server.count(ListenerWord::Messages), 20_000);
    assert!(counts(server.count(ListenerWord::BytesIn), total), "{total} bytes were sent");
    // It is counted after it was sent.
    until(|| counts(server.count(ListenerWord::BytesOut), 20_000 * 51));
    let most = server.control.max_queued.load(Ordering::Relaxed);
    assert!(most <= HIGH + 51, "{most} bytes of output were queued");
}

fn everything_before_the_peers_end_is_answered(config: EngineConfig) {
    let server = Server::with(config, |limits| {
        limits.high_water_bytes = 2000;
        limits.low_water_bytes = 1000;
    });
    let mut client = server.client();
    let lines: String = (0..3000).map(|n| format!("echo {n}\n")).collect();
    let expected: String = (0..3000).map(|n| format!("{n}\n")).collect();
    client.send(lines);
    client.end_input();
    assert_eq!(String::from_utf8(client.rest()).unwrap(), expected);
    server.expect_close(Reason::PEER_CLOSED);
}

fn an_unfinished_message_at_the_end_is_dropped(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("echo whole\necho half");
    client.end_input();
    assert_eq!(client.rest(), b"whole\n");
    server.expect_close(Reason::PEER_CLOSED);
}

fn input_waits_while_the_service_has_paused(config: EngineConfig) {
    let server = Server::new(config);
    let (mut client, handle) = server.client_with_handle();
    client.send("echo before\npause\necho after\n");
    client.expect("before");
    client.send("echo much later\n");
    handle.post(Note::Say("still paused".into())).unwrap();
    client.expect("still paused");
    handle.post(Note::Resume).unwrap();
    client.expect("after");
    client.expect("much later");
}

fn a_timer_may_resume_what_a_message_paused(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("timer 7 1\npause\necho after\n");
    client.end_input();
    assert_eq!(client.rest(), b"timer 7\nafter\n");
}

fn a_message_over_the_limit_ends_the_connection(config: EngineConfig) {
    let server = Server::with(config, |limits| limits.max_input_bytes = 1000);
    let mut client = server.client();
    client.send([b'x'; 1001]);
    client.until_reset();
    server.expect_close(Reason::INPUT_OVERFLOW);
    // One that says that it will be.
    let mut client = server.client();
    client.send("?");
    client.until_reset();
    server.expect_close(Reason::INPUT_OVERFLOW);
    // The limit is on what is kept, in one piece or in many.
    let mut client = server.client();
    client.send(format!("echo {:>990}\n", "fits"));
    assert!(client.line().ends_with("fits"));
}

fn broken_input_ends_the_connection_without_an_answer(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("!");
    assert_eq!(client.until_reset(), b"");
    let closed = server.expect_close(Reason::BAD_LENGTH);
    assert!(counts(closed.bytes_in, 1) && counts(closed.bytes_out, 0), "{closed:?}");
    assert_eq!(server.metrics.get(ProcessWord::Panics), 0);
}

fn large_bodies_pass_in_pieces(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    let mut bytes = b"body 3000000\n".to_vec();
    bytes.extend(pattern(3_000_000));
    bytes.extend(b"echo behind it\n");
    let writer = client.send_aside(bytes);
    client.expect("body done");
    client.expect("behind it");
    writer.join().unwrap().unwrap();
}

fn a_message_knows_whether_more_came_with_it(config: EngineConfig) {
    let server = Server::new(config);
    let mut client = server.client();
    client.send("more\nmore\nmore\n");
    ["more", "more", "all"].iter().for_each(|answer| client.expect(answer));
    client.send("more\nmo");
    client.expect("more");
    client.send("re\n");
    client.expect("all");
}
