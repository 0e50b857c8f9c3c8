//! Rest: a connection of which nothing is wanted, or nothing is to come, does not keep the reactor busy.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidegate_reactor::{Completion, End, Errno, More, Token};

use crate::support::{Any, Backend, Bench, expect_rest, is_writable, pattern, reset, until};

with_each_backend!(
    while_it_is_idle,
    while_it_is_paused,
    while_it_is_paused_and_half_closed,
    while_it_is_half_closed,
    while_it_is_closed_both_ways,
    while_it_is_paused_and_closed_both_ways,
    while_a_unix_peer_is_gone_and_it_is_paused,
    after_it_was_reset,
    after_it_was_reset_while_paused,
    after_it_was_reset_while_half_closed,
    after_it_was_reset_while_output_waits,
    while_output_waits,
    after_output_was_taken,
    pausing_and_resuming_within_a_turn_loses_nothing,
    pausing_before_an_event_of_the_same_turn_loses_nothing,
    many_connections_with_slow_readers,
);

fn while_it_is_idle(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, _) = bench.connect();
    client.write_all(b"hello").unwrap();
    assert_eq!(bench.receive_bytes(5), b"hello");
    expect_rest(&mut bench.reactor);
}

fn while_it_is_paused(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    for _ in 0..3 {
        bench.reactor.pause(token);
        bench.reactor.pause(token);
        client.write_all(b"waits").unwrap();
        expect_rest(&mut bench.reactor);
        bench.reactor.resume(token);
        bench.reactor.resume(token);
        assert_eq!(bench.receive_bytes(5), b"waits");
    }
}

fn while_it_is_paused_and_half_closed(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    bench.reactor.pause(token);
    client.write_all(b"last").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    expect_rest(&mut bench.reactor);
    bench.reactor.resume(token);
    let (bytes, end) = bench.receive();
    assert_eq!(bytes, b"last");
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
}

fn while_it_is_half_closed(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = half_closed(&mut bench);
    expect_rest(&mut bench.reactor);
    // Neither pausing nor resuming brings the end back.
    bench.reactor.pause(token);
    expect_rest(&mut bench.reactor);
    bench.reactor.resume(token);
    expect_rest(&mut bench.reactor);
    assert_eq!(bench.reactor.send(token, b"still", More::No), Ok(5));
    drop(client);
}

fn while_it_is_closed_both_ways(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = half_closed(&mut bench);
    bench.reactor.shutdown_send(token);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    expect_rest(&mut bench.reactor);
}

fn while_it_is_paused_and_closed_both_ways(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    bench.reactor.pause(token);
    client.write_all(b"unread").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    bench.reactor.shutdown_send(token);
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    expect_rest(&mut bench.reactor);
    bench.reactor.resume(token);
    let (bytes, end) = bench.receive();
    assert_eq!(bytes, b"unread");
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
    expect_rest(&mut bench.reactor);
}

fn while_a_unix_peer_is_gone_and_it_is_paused(backend: Backend) {
    let mut reactor = Any::new(backend);
    let (mut peer, socket) = UnixStream::pair().unwrap();
    socket.set_nonblocking(true).unwrap();
    let token = Token { slot: 0, generation: 1 };
    reactor.open(token, socket.into()).unwrap();
    reactor.pause(token);
    peer.write_all(b"farewell").unwrap();
    drop(peer);
    expect_rest(&mut reactor);
    reactor.resume(token);
    let mut bytes = Vec::new();
    until(&mut reactor, |reactor, completion| match completion {
        Completion::Received(_) => {
            bytes.extend_from_slice(reactor.received());
            None
        }
        Completion::Ended(_) => Some(()),
        other => panic!("{other:?}"),
    });
    assert_eq!(bytes, b"farewell");
    expect_rest(&mut reactor);
}

fn after_it_was_reset(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = bench.connect();
    reset(client);
    expect_failure(&mut bench, token);
    expect_rest(&mut bench.reactor);
}

fn after_it_was_reset_while_paused(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    bench.reactor.pause(token);
    client.write_all(b"unread").unwrap();
    expect_rest(&mut bench.reactor);
    reset(client);
    expect_failure(&mut bench, token);
    expect_rest(&mut bench.reactor);
}

fn after_it_was_reset_while_half_closed(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = half_closed(&mut bench);
    expect_rest(&mut bench.reactor);
    reset(client);
    expect_failure(&mut bench, token);
    expect_rest(&mut bench.reactor);
}

fn after_it_was_reset_while_output_waits(backend: Backend) {
    let mut bench = Bench::new(backend);
    for paused in [false, true] {
        let (client, token) = bench.connect();
        if paused {
            bench.reactor.pause(token);
        }
        fill(&mut bench, token);
        expect_rest(&mut bench.reactor);
        reset(client);
        // It may be told of both halves, of each once.
        bench.reactor.wait(None).unwrap();
        let told: Vec<_> = std::iter::from_fn(|| bench.reactor.next()).collect();
        let expected = match (backend, &told[..]) {
            (Backend::Epoll(_), [Completion::Writable(a), Completion::Failed(b, Errno::CONNRESET)]) => a == b,
            // What was taken is lost, so nothing is written any more.
            (Backend::Uring, [Completion::Failed(t, Errno::CONNRESET)]) => *t == token,
            _ => false,
        };
        assert!(expected, "{told:?}");
        expect_rest(&mut bench.reactor);
        bench.reactor.close(token, End::Reset);
    }
}

fn while_output_waits(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (_client, token) = bench.connect();
    fill(&mut bench, token);
    expect_rest(&mut bench.reactor);
}

fn after_output_was_taken(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (client, token) = bench.connect();
    for _ in 0..3 {
        let sent = fill(&mut bench, token);
        let mut reader = client.try_clone().unwrap();
        let reader = std::thread::spawn(move || reader.read_exact(&mut vec![0; sent]).unwrap());
        until(&mut bench.reactor, |_, c| is_writable(&c, token));
        reader.join().unwrap();
        // Nobody asks again.
        expect_rest(&mut bench.reactor);
    }
}

fn pausing_and_resuming_within_a_turn_loses_nothing(backend: Backend) {
    let mut bench = Bench::new(backend);
    let (mut client, token) = bench.connect();
    for _ in 0..3 {
        client.write_all(b"some").unwrap();
        bench.reactor.pause(token);
        bench.reactor.resume(token);
        bench.reactor.pause(token);
        bench.reactor.resume(token);
        assert_eq!(bench.receive_bytes(4), b"some");
    }
}

fn pausing_before_an_event_of_the_same_turn_loses_nothing(backend: Backend) {
    let mut bench = Bench::new(backend);
    let mut peers: Vec<_> = (0..2).map(|slot| bench.connect_at(slot)).collect();
    for (client, _) in &mut peers {
        client.write_all(b"both are ready").unwrap();
    }
    bench.reactor.wait(None).unwrap();
    let Some(Completion::Received(first)) = bench.reactor.next() else { panic!("both have sent") };
    let (_, second) = peers.iter().find(|(_, token)| *token != first).unwrap();
    bench.reactor.pause(*second);
    assert!(bench.reactor.next().is_none());
    expect_rest(&mut bench.reactor);
    bench.reactor.resume(*second);
    assert_eq!(bench.receive_bytes(14), b"both are ready");
}

/// All of them wait to write at once, and read meanwhile.
fn many_connections_with_slow_readers(backend: Backend) {
    const CONNECTIONS: u32 = 40;
    const LEN: usize = 1 << 20;
    let mut bench = Bench::new(backend);
    let tokens: Vec<_> = (0..CONNECTIONS).map(|slot| bench.connect_at(slot)).collect();
    let content = pattern(LEN);
    let (clients, tokens): (Vec<TcpStream>, Vec<Token>) = tokens.into_iter().unzip();
    let reader = std::thread::spawn(move || read_in_turns(clients, LEN));
    let mut sent = vec![0; tokens.len()];
    let mut acknowledged = vec![0; tokens.len()];
    for token in &tokens {
        go_on(&mut bench.reactor, *token, &content, &mut sent);
    }
    let mut open = tokens.len();
    while open > 0 {
        bench.reactor.wait(None).unwrap();
        let mut seen = Vec::new();
        while let Some(completion) = bench.reactor.next() {
            match completion {
                Completion::Writable(token) => {
                    assert!(!seen.contains(&token), "two events of one connection in a turn");
                    seen.push(token);
                    go_on(&mut bench.reactor, token, &content, &mut sent);
                }
                Completion::Received(token) => {
                    acknowledged[token.slot as usize] += bench.reactor.received().len();
                }
                Completion::Stalled(_) => {}
                Completion::Ended(_) => open -= 1,
                other => panic!("{other:?}"),
            }
        }
    }
    reader.join().unwrap();
    assert!(sent.iter().all(|n| *n == LEN));
    assert!(acknowledged.iter().all(|n| *n == LEN / PIECE), "{acknowledged:?}");
}

const PIECE: usize = 64 << 10;

/// Reads a piece from each in turn, and says so with a byte.
fn read_in_turns(mut clients: Vec<TcpStream>, len: usize) {
    let content = pattern(len);
    let mut piece = vec![0; PIECE];
    for at in (0..len).step_by(PIECE) {
        for client in &mut clients {
            client.read_exact(&mut piece).unwrap();
            assert!(piece == content[at..at + PIECE]);
            client.write_all(b".").unwrap();
        }
    }
}

/// Sends until the kernel takes no more.
fn go_on(reactor: &mut Any, token: Token, content: &[u8], sent: &mut [usize]) {
    let at = &mut sent[token.slot as usize];
    while *at < content.len() {
        let offered = content.len() - *at;
        let taken = reactor.send(token, &content[*at..], More::No).unwrap();
        *at += taken;
        if taken < offered {
            return reactor.await_writable(token);
        }
    }
}

/// Fills the way to a client that does not read, and leaves `Writable` awaited; answers how many bytes that takes.
fn fill(bench: &mut Bench, token: Token) -> usize {
    // On io_uring, so little is gathered; what is sent in one piece is in `connections`.
    let bytes = pattern(4 << 10);
    let mut sent = 0;
    loop {
        let taken = bench.reactor.send(token, &bytes, More::No).unwrap();
        sent += taken;
        if taken == bytes.len() {
            continue;
        }
        bench.reactor.await_writable(token);
        // What is on its way makes room once more, with a delayed acknowledgement or a window probe at the latest.
        let writable = loop {
            bench.reactor.wait_for(Duration::from_millis(500));
            match bench.reactor.next() {
                None => break false,
                Some(Completion::Writable(_)) => break true,
                Some(Completion::Stalled(_)) => {}
                other => panic!("{other:?}"),
            }
        };
        if !writable {
            return sent;
        }
    }
}

/// A connection whose peer has ended its side, which was reported.
fn half_closed(bench: &mut Bench) -> (TcpStream, Token) {
    let (client, token) = bench.connect();
    client.shutdown(Shutdown::Write).unwrap();
    let (bytes, end) = bench.receive();
    assert!(bytes.is_empty());
    assert!(matches!(end, Completion::Ended(t) if t == token), "{end:?}");
    (client, token)
}

fn expect_failure(bench: &mut Bench, token: Token) {
    let (_, end) = bench.receive();
    assert!(matches!(end, Completion::Failed(t, Errno::CONNRESET | Errno::PIPE) if t == token), "{end:?}");
}
