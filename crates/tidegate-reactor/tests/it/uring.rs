//! What only a proactor has to get right: operations in flight when their connection, or the whole reactor, goes away.

use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use tidegate_reactor::{Completion, End, Errno, More, Reactor, Token, Uring};

use crate::support::{Any, Backend, Bench, PATIENCE, expect_rest, is_writable, pattern, reset, until};

/// Runs a case on io_uring, where there is one.
macro_rules! on_uring {
    ($($case:ident),+ $(,)?) => {
        mod cases {
            $(
                #[test]
                fn $case() {
                    if super::Backend::Uring.is_there() {
                        super::$case();
                    }
                }
            )+
        }
    };
}

on_uring!(
    a_small_send_is_over_with_its_turn_and_says_nothing,
    a_stalled_send_says_so_and_then_that_it_is_over,
    what_came_before_a_send_failed_is_told_before_it,
    the_end_of_sending_waits_for_what_was_taken,
    a_close_in_order_drops_what_the_kernel_does_not_take,
    a_close_by_reset_with_a_send_in_flight_is_one,
    a_slot_is_used_again_while_its_last_operations_end,
    bytes_on_their_way_when_it_is_paused_are_held_and_lost_by_nobody,
    more_than_all_buffers_in_one_turn_is_received,
    accepted_connections_survive_a_pause,
    a_reactor_goes_away_with_everything_in_flight,
    a_reactor_that_never_waited_goes_away,
    what_was_taken_last_is_sent_when_the_reactor_goes_away,
    a_reactor_is_made_on_one_thread_and_runs_on_another,
    another_thread_cannot_wait_on_it,
);

fn bench() -> Bench {
    Bench::new(Backend::Uring)
}

/// Sends in small pieces until no more is taken; answers how much was.
fn stall(bench: &mut Bench, token: Token) -> usize {
    let piece = pattern(4 << 10);
    let mut sent = 0;
    let mut quiet = 0;
    while quiet < 2 {
        quiet += 1;
        while bench.reactor.send(token, &piece, More::No).unwrap() == piece.len() {
            sent += piece.len();
            quiet = 0;
        }
        bench.reactor.wait_for(Duration::from_millis(200));
        while let Some(completion) = bench.reactor.next() {
            assert!(matches!(completion, Completion::Stalled(t) if t == token), "{completion:?}");
        }
    }
    assert!(bench.reactor.unsent(token));
    sent
}

fn read_aside(client: &TcpStream, n: usize) -> std::thread::JoinHandle<Vec<u8>> {
    let mut client = client.try_clone().unwrap();
    std::thread::spawn(move || {
        let mut got = vec![0; n];
        client.read_exact(&mut got).unwrap();
        got
    })
}

fn a_small_send_is_over_with_its_turn_and_says_nothing() {
    let mut bench = bench();
    let (mut client, token) = bench.connect();
    for part in [&b"one "[..], b"and ", b"two"] {
        assert_eq!(bench.reactor.send(token, part, More::No), Ok(part.len()));
    }
    assert!(bench.reactor.unsent(token));
    bench.submit();
    assert!(!bench.reactor.unsent(token));
    let mut got = [0; 11];
    client.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"one and two");
    expect_rest(&mut bench.reactor);
    // Who awaits it is told, though the kernel took all at once.
    bench.reactor.send(token, b"again", More::No).unwrap();
    bench.reactor.await_writable(token);
    until(&mut bench.reactor, |_, c| is_writable(&c, token));
    assert!(!bench.reactor.unsent(token));
}

fn a_stalled_send_says_so_and_then_that_it_is_over() {
    let mut bench = bench();
    let (client, token) = bench.connect();
    for _ in 0..2 {
        let sent = stall(&mut bench, token);
        assert!(sent >= 64 << 10);
        bench.reactor.await_writable(token);
        expect_rest(&mut bench.reactor);
        let reader = read_aside(&client, sent);
        let mut stalls = 0;
        until(&mut bench.reactor, |_, completion| {
            stalls += u32::from(matches!(completion, Completion::Stalled(_)));
            is_writable(&completion, token)
        });
        assert!(!bench.reactor.unsent(token));
        let got = reader.join().unwrap();
        assert!(got.chunks(4 << 10).all(|piece| piece == pattern(4 << 10)));
        assert!(stalls > 0);
    }
}

fn what_came_before_a_send_failed_is_told_before_it() {
    let mut bench = bench();
    let (mut peer, socket) = UnixStream::pair().unwrap();
    let token = Token { slot: 3, generation: 1 };
    bench.reactor.open(token, socket.into()).unwrap();
    bench.submit();
    let words = pattern(100_000);
    peer.write_all(&words).unwrap();
    drop(peer);
    assert_eq!(bench.reactor.send(token, b"answer", More::No).unwrap(), 6);
    let (got, end) = bench.receive();
    assert!(got == words, "{} bytes, then {end:?}", got.len());
    assert!(matches!(end, Completion::Failed(t, Errno::PIPE) if t == token), "{end:?}");
    assert_eq!(bench.reactor.send(token, b"more", More::No), Err(Errno::PIPE));
    expect_rest(&mut bench.reactor);
}

fn the_end_of_sending_waits_for_what_was_taken() {
    let mut bench = bench();
    let (client, token) = bench.connect();
    let sent = stall(&mut bench, token);
    bench.reactor.shutdown_send(token);
    assert_eq!(bench.reactor.send(token, b"too late", More::No), Err(Errno::PIPE));
    let reader = read_aside(&client, sent);
    bench.deliver(token);
    reader.join().unwrap();
    assert_eq!((&client).read(&mut [0; 1]).unwrap(), 0);
}

fn a_close_in_order_drops_what_the_kernel_does_not_take() {
    let mut bench = bench();
    let (mut client, token) = bench.connect();
    let sent = stall(&mut bench, token);
    bench.reactor.close(token, End::Fin);
    bench.submit();
    let mut got = Vec::new();
    client.read_to_end(&mut got).unwrap();
    assert!(!got.is_empty() && got.len() < sent, "{} of {sent}", got.len());
    expect_rest(&mut bench.reactor);
}

fn a_close_by_reset_with_a_send_in_flight_is_one() {
    let mut bench = bench();
    let (mut client, token) = bench.connect();
    stall(&mut bench, token);
    bench.reactor.close(token, End::Reset);
    bench.submit();
    let error = client.read_to_end(&mut Vec::new()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    expect_rest(&mut bench.reactor);
}

fn a_slot_is_used_again_while_its_last_operations_end() {
    let mut bench = bench();
    for end in [End::Fin, End::Reset, End::Fin] {
        let (mut old_client, old) = bench.connect();
        old_client.write_all(b"for the old one").unwrap();
        stall_quietly(&mut bench, old);
        let (mut client, between) = bench.connect_at(8);
        // Its socket moves into the slot within the turn in which the other leaves it.
        bench.reactor.close(between, End::Fin);
        bench.reactor.close(old, end);
        assert_eq!(client.read(&mut [0; 1]).unwrap_or(0), 0);
        let (mut client, new) = bench.connect();
        assert_eq!((new.slot, new.generation > old.generation), (old.slot, true));
        client.write_all(b"for the new one").unwrap();
        assert_eq!(bench.receive_bytes(15), b"for the new one");
        bench.reactor.send(new, b"answer", More::No).unwrap();
        bench.submit();
        let mut got = [0; 6];
        client.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"answer");
        bench.reactor.close(new, End::Fin);
    }
}

/// Leaves a send in flight, and what was received meanwhile unread.
fn stall_quietly(bench: &mut Bench, token: Token) {
    let piece = pattern(4 << 10);
    for _ in 0..100 {
        while bench.reactor.send(token, &piece, More::No).unwrap() == piece.len() {}
        let now = bench.reactor.now();
        bench.reactor.wait(Some(now)).unwrap();
        while bench.reactor.next().is_some() {}
    }
    assert!(bench.reactor.unsent(token));
}

fn bytes_on_their_way_when_it_is_paused_are_held_and_lost_by_nobody() {
    let mut bench = bench();
    let (mut client, token) = bench.connect();
    let sent = pattern(1 << 20);
    let expected = sent.clone();
    let writer = std::thread::spawn(move || {
        client.write_all(&sent).unwrap();
        client
    });
    // Paused at each piece, with more of them in the same turn as a rule, and resumed in the next turn.
    let mut got = Vec::new();
    let limit = bench.reactor.now() + PATIENCE;
    while got.len() < expected.len() {
        assert!(bench.reactor.now() < limit);
        bench.reactor.wait_for(Duration::from_millis(10));
        while let Some(completion) = bench.reactor.next() {
            assert!(matches!(completion, Completion::Received(t) if t == token), "{completion:?}");
            got.extend_from_slice(bench.reactor.received());
            bench.reactor.pause(token);
        }
        bench.submit();
        bench.reactor.resume(token);
    }
    assert!(got == expected);
    // What is held is dropped with its connection.
    let mut client = writer.join().unwrap();
    client.write_all(&expected[..100_000]).unwrap();
    bench.reactor.wait_for(PATIENCE);
    assert!(matches!(bench.reactor.next(), Some(Completion::Received(_))));
    bench.reactor.pause(token);
    assert!(bench.reactor.next().is_none());
    bench.reactor.close(token, End::Reset);
    expect_rest(&mut bench.reactor);
}

fn more_than_all_buffers_in_one_turn_is_received() {
    const CONNECTIONS: u32 = 40;
    const EACH: usize = 60 << 10;
    let mut bench = bench();
    let peers: Vec<_> = (0..CONNECTIONS).map(|slot| bench.connect_at(slot)).collect();
    for (client, _) in &peers {
        let mut client = client;
        client.write_all(&pattern(EACH)).unwrap();
    }
    let mut got = vec![Vec::new(); peers.len()];
    let mut turns = 0;
    let limit = bench.reactor.now() + PATIENCE;
    while got.iter().any(|bytes| bytes.len() < EACH) {
        assert!(bench.reactor.now() < limit);
        bench.reactor.wait(Some(limit)).unwrap();
        turns += 1;
        while let Some(completion) = bench.reactor.next() {
            let Completion::Received(token) = completion else { panic!("{completion:?}") };
            got[token.slot as usize].extend_from_slice(bench.reactor.received());
        }
    }
    assert!(got.iter().all(|bytes| *bytes == pattern(EACH)));
    assert!((2..1000).contains(&turns), "{turns} turns");
    expect_rest(&mut bench.reactor);
}

fn accepted_connections_survive_a_pause() {
    let mut bench = bench();
    expect_rest(&mut bench.reactor);
    let clients: Vec<_> = (0..120).map(|_| crate::support::client(bench.address)).collect();
    bench.reactor.wait(None).unwrap();
    let first = bench.reactor.next();
    assert!(matches!(first, Some(Completion::Accepted { .. })), "{first:?}");
    // The kernel has accepted more of them; one has been told of.
    bench.reactor.pause_accept(bench.listener);
    expect_rest(&mut bench.reactor);
    for _ in 0..20 {
        bench.reactor.accept_now(bench.listener).unwrap();
    }
    bench.reactor.resume_accept(bench.listener).unwrap();
    bench.reactor.wait(None).unwrap();
    let mut seen = 21;
    while let Some(completion) = bench.reactor.next() {
        assert!(matches!(completion, Completion::Accepted { .. }), "{completion:?}");
        seen += 1;
    }
    assert!(seen <= 21 + 64, "{seen}");
    bench.reactor.pause_accept(bench.listener);
    while seen < clients.len() {
        bench.reactor.accept_now(bench.listener).unwrap();
        seen += 1;
    }
    bench.reactor.unlisten(bench.listener);
    expect_rest(&mut bench.reactor);
}

fn a_reactor_goes_away_with_everything_in_flight() {
    let mut bench = bench();
    let mut peers: Vec<_> = (0..20).map(|slot| bench.connect_at(slot)).collect();
    for (client, token) in &mut peers {
        stall_quietly(&mut bench, *token);
        client.write_all(b"unread").unwrap();
        if token.slot % 2 == 0 {
            bench.reactor.pause(*token);
        }
    }
    let _queued = crate::support::client(bench.address);
    bench.submit_whatever_comes();
    let Bench { reactor, .. } = bench;
    drop(reactor);
    for (client, _) in &mut peers {
        // Bytes that nobody read make the end a reset.
        let end = client.read_to_end(&mut Vec::new());
        assert!(end.is_ok_and(|n| n > 0) || client.read(&mut [0; 1]).is_ok_and(|n| n == 0), "still open");
    }
}

fn a_reactor_that_never_waited_goes_away() {
    let (socket, _) = crate::support::listener();
    let mut reactor = Uring::new().unwrap();
    let listener = reactor.listen(socket.into(), true).unwrap();
    reactor.pause_accept(listener);
    reactor.resume_accept(listener).unwrap();
    let (peer, socket) = std::os::unix::net::UnixStream::pair().unwrap();
    let token = Token { slot: 3, generation: 9 };
    reactor.open(token, socket.into()).unwrap();
    drop(reactor);
    assert_eq!((&peer).read(&mut [0; 1]).unwrap(), 0);
}

fn what_was_taken_last_is_sent_when_the_reactor_goes_away() {
    let mut bench = bench();
    let (mut closed, first) = bench.connect_at(0);
    let (mut open, second) = bench.connect_at(1);
    bench.reactor.send(first, b"closed", More::No).unwrap();
    bench.reactor.close(first, End::Fin);
    bench.reactor.send(second, b"left open", More::No).unwrap();
    let Bench { reactor, .. } = bench;
    drop(reactor);
    for (client, word) in [(&mut closed, "closed"), (&mut open, "left open")] {
        let mut got = String::new();
        client.read_to_string(&mut got).unwrap();
        assert_eq!(got, word);
    }
}

fn a_reactor_is_made_on_one_thread_and_runs_on_another() {
    let (socket, address) = crate::support::listener();
    let mut reactor = Uring::new().unwrap();
    reactor.listen(socket.into(), false).unwrap();
    let waker = reactor.waker();
    let mut client = crate::support::client(address);
    client.write_all(b"hello").unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    let runner = std::thread::spawn(move || {
        let token = Token { slot: 0, generation: 1 };
        let mut got = Vec::new();
        loop {
            reactor.wait(None).unwrap();
            while let Some(completion) = reactor.next() {
                match completion {
                    Completion::Accepted { socket, .. } => reactor.open(token, socket).unwrap(),
                    Completion::Received(_) => got.extend_from_slice(reactor.received()),
                    Completion::Ended(_) => reactor.close(token, End::Fin),
                    Completion::Woken => return got,
                    other => panic!("{other:?}"),
                }
            }
        }
    });
    assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    waker.wake();
    assert_eq!(runner.join().unwrap(), b"hello");
}

fn another_thread_cannot_wait_on_it() {
    let mut reactor = Uring::new().unwrap();
    let now = reactor.now();
    reactor.wait(Some(now)).unwrap();
    let (peer, socket) = std::os::unix::net::UnixStream::pair().unwrap();
    reactor.open(Token { slot: 0, generation: 1 }, socket.into()).unwrap();
    let mut reactor = std::thread::spawn(move || {
        let now = reactor.now();
        assert!(reactor.wait(Some(now)).is_err());
        reactor
    })
    .join()
    .unwrap();
    let now = reactor.now();
    reactor.wait(Some(now)).unwrap();
    drop(reactor);
    assert_eq!((&peer).read(&mut [0; 1]).unwrap(), 0);
}

/// A reset, while a reset is all that is listened for, is heard in every state of the other direction.
#[test]
fn a_reset_is_heard_while_paused_with_a_send_in_flight() {
    if !Backend::Uring.is_there() {
        return;
    }
    let mut bench = bench();
    let (client, token) = bench.connect();
    bench.reactor.pause(token);
    stall(&mut bench, token);
    reset(client);
    let failed = until(&mut bench.reactor, |_: &mut Any, completion| match completion {
        Completion::Failed(t, errno) if t == token => Some(errno),
        other => panic!("{other:?}"),
    });
    assert!(matches!(failed, Errno::CONNRESET | Errno::PIPE), "{failed}");
    expect_rest(&mut bench.reactor);
    assert_eq!(bench.reactor.send(token, b"no more", More::No), Err(Errno::PIPE));
}
