//! Handlers on other threads: what only a loop whose messages are handled elsewhere can meet.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use tidegate_engine::{
    Decoded, Dispatch, EngineConfig, Flow, HandleError, HandlerPool, Io, ListenerWord, LoopBuilder,
    MAX_LETTERS, Metrics, Peer, PoolConfig, ProcessWord, Reason, Refusal, Running, Service, Trigger,
};

use crate::lab::{CHUNK, Note, Seen};
use crate::support::{Client, Server, pattern, until};

fn config(dispatch: Dispatch) -> EngineConfig {
    EngineConfig { dispatch, pool_threads: 3, ..EngineConfig::default() }
}

/// Runs each case with each way of handling messages on other threads.
macro_rules! with_other_threads {
    ($($case:ident),+ $(,)?) => {
        with_other_threads!(@ on_a_pool, Pool, $($case)+);
        with_other_threads!(@ reactor, Reactor, $($case)+);
        with_other_threads!(@ leader_follower, LeaderFollower, $($case)+);
    };
    (@ $name:ident, $dispatch:ident, $($case:ident)+) => {
        mod $name {
            $(
                #[test]
                fn $case() {
                    super::$case(tidegate_engine::Dispatch::$dispatch);
                }
            )+
        }
    };
}

with_other_threads!(
    a_handler_that_blocks_holds_up_its_own_connection_only,
    letters_wait_for_the_handler_in_order,
    a_connection_whose_handler_blocks_keeps_only_so_many_letters,
    a_peer_that_resets_while_its_handler_runs_is_closed_when_it_has,
    the_end_of_the_peer_is_told_after_its_messages,
    what_a_timer_did_during_a_message_that_sets_it_anew_is_forgotten,
    a_peer_is_read_ahead_only_up_to_the_limit,
    a_stop_waits_for_the_handlers_and_closes_each_connection_once,
    bytes_stay_whole_and_in_order_through_many_hands,
);

fn blocked(server: &Server) {
    server.see(|seen| matches!(seen, Seen::Blocked).then_some(()));
}

fn a_handler_that_blocks_holds_up_its_own_connection_only(dispatch: Dispatch) {
    let server = Server::new(config(dispatch));
    let mut held = server.client();
    held.send("hold\necho after\n");
    blocked(&server);
    let mut free = server.client();
    free.round_trip();
    server.unblock.send(()).unwrap();
    held.expect("after");
}

fn letters_wait_for_the_handler_in_order(dispatch: Dispatch) {
    let server = Server::new(config(dispatch));
    let (mut client, handle) = server.client_with_handle();
    client.send("hold\n");
    blocked(&server);
    handle.send("sent\n").unwrap();
    handle.post(Note::Say("noted".into())).unwrap();
    handle.close(Reason::DONE).unwrap();
    // All of them have reached the loop once another connection has been served.
    let mut other = server.client();
    other.round_trip();
    assert!(handle.is_open());
    server.unblock.send(()).unwrap();
    assert_eq!(client.rest(), b"sent\nnoted\n");
    drop(client);
    server.expect_close(Reason::DONE);
}

fn a_connection_whose_handler_blocks_keeps_only_so_many_letters(dispatch: Dispatch) {
    let server = Server::new(config(dispatch));
    let (mut client, handle) = server.client_with_handle();
    client.send("hold\n");
    blocked(&server);
    let mut sent = 0;
    let mut other = server.client();
    while sent < 2 * MAX_LETTERS {
        // Taken out of the mailbox now and then, they count on.
        if sent % 10_000 == 0 {
            other.round_trip();
        }
        match handle.send("x\n") {
            Ok(()) => sent += 1,
            Err(error) => {
                assert_eq!(error, HandleError::Full);
                break;
            }
        }
    }
    assert_eq!(sent, MAX_LETTERS);
    server.unblock.send(()).unwrap();
    assert_eq!(client.bytes(2 * sent), b"x\n".repeat(sent));
    handle.send("room again\n").unwrap();
    client.expect("room again");
}

fn a_peer_that_resets_while_its_handler_runs_is_closed_when_it_has(dispatch: Dispatch) {
    let server = Server::new(config(dispatch));
    let (client, handle) = server.client_with_handle();
    client.send("hold\n");
    blocked(&server);
    client.reset();
    let mut other = server.client();
    other.round_trip();
    assert!(handle.is_open(), "its session is still in use");
    server.unblock.send(()).unwrap();
    server.expect_close(Reason::PEER_RESET);
    assert!(!handle.is_open());
}

/// The handler counts with what waited when its message left, stops when it is over the mark with that, and goes on from
/// `on_drained`; by the time that it is back the peer has taken what waited.
#[test]
fn a_handler_that_went_over_the_mark_hears_of_it_whatever_the_peer_took_meanwhile() {
    const WAITING: usize = 1_500_000;
    let server = Server::with(config(Dispatch::Pool), |limits| {
        // More than waits, and far more than the handler adds to that.
        limits.high_water_bytes = 1_600_000;
        limits.low_water_bytes = 1_000;
    });
    let mut client = server.client();
    client.send(format!("big {WAITING}\nhold-stream 30\n"));
    blocked(&server);
    assert_eq!(client.bytes(WAITING + 1).len(), WAITING + 1);
    server.unblock.send(()).unwrap();
    let chunk = pattern(CHUNK);
    for _ in 0..30 {
        assert!(client.bytes(CHUNK) == chunk);
    }
    client.expect("end of stream");
}

fn the_end_of_the_peer_is_told_after_its_messages(dispatch: Dispatch) {
    let server = Server::new(config(dispatch));
    let mut client = server.client();
    client.send("keep\nhold\necho one\necho two\n");
    client.end_input();
    blocked(&server);
    server.unblock.send(()).unwrap();
    client.expect("one");
    client.expect("two");
    client.expect("eof");
}

fn what_a_timer_did_during_a_message_that_sets_it_anew_is_forgotten(dispatch: Dispatch) {
    let server = Server::new(config(dispatch));
    let mut client = server.client();
    client.send("timer 1 0\nhold\ncancel 1\necho after\n");
    blocked(&server);
    server.unblock.send(()).unwrap();
    // The timer may have expired before `hold` left; it does not after `cancel`.
    let first = client.line();
    if first == "timer 1" {
        client.expect("after");
    } else {
        assert_eq!(first, "after");
        client.round_trip();
    }
}

fn a_peer_is_read_ahead_only_up_to_the_limit(dispatch: Dispatch) {
    let server = Server::with(config(dispatch), |limits| limits.max_input_bytes = 64 << 10);
    let mut client = server.client();
    client.send("hold\n");
    blocked(&server);
    let line = format!("echo {}\n", "x".repeat(994));
    let lines: Vec<u8> = line.repeat(20_000).into_bytes();
    let writer = client.send_aside(lines);
    // The peer's bytes stop coming: the limit, one receive more, and no further.
    let mut last = 0;
    for _ in 0..20 {
        server.client().round_trip();
        last = server.count(ListenerWord::BytesIn);
    }
    assert!(last < 400 << 10, "{last} bytes were read ahead");
    server.unblock.send(()).unwrap();
    for _ in 0..20_000 {
        assert_eq!(client.line().len(), 994);
    }
    writer.join().unwrap().unwrap();
}

fn a_stop_waits_for_the_handlers_and_closes_each_connection_once(dispatch: Dispatch) {
    let mut server = Server::new(config(dispatch));
    let (held, handle) = server.client_with_handle();
    held.send("hold\n");
    blocked(&server);
    let running = server.running.take().unwrap();
    running.stop();
    // Whoever is not being handled is closed at once; the one that is, when it has been.
    assert!(handle.is_open());
    server.unblock.send(()).unwrap();
    running.join().unwrap();
    server.expect_close(Reason::STOPPED);
    assert!(!handle.is_open());
}

/// Counts how many of its messages are handled at the same time, on one connection and in all.
struct Counting {
    gate: Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
    entered: Arc<AtomicUsize>,
}

impl Service for Counting {
    type Session = (AtomicUsize, u8);
    type Head = u8;
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(AtomicUsize, u8), Refusal> {
        Ok((AtomicUsize::new(0), 0))
    }

    fn decode(&self, _: &mut (AtomicUsize, u8), input: &[u8]) -> Decoded<u8> {
        Decoded::Message { len: 1, head: input[0] }
    }

    fn on_message(&self, io: &mut Io<'_>, session: &mut (AtomicUsize, u8), head: u8, bytes: &[u8]) -> Flow {
        assert_eq!(session.0.fetch_add(1, Ordering::SeqCst), 0, "two messages of a connection at a time");
        assert_eq!(head, session.1, "out of order");
        session.1 = session.1.wrapping_add(1);
        self.entered.fetch_add(1, Ordering::SeqCst);
        if head == 0 {
            self.gate.lock().unwrap().recv().unwrap();
        }
        io.send(bytes);
        session.0.fetch_sub(1, Ordering::SeqCst);
        Flow::Continue
    }
}

struct Fixture {
    running: Running,
    metrics: tidegate_engine::ProcessMetrics,
    address: std::net::SocketAddr,
}

fn counting(
    pool: &HandlerPool,
    gate: &Arc<Mutex<std::sync::mpsc::Receiver<()>>>,
    entered: &Arc<AtomicUsize>,
    trigger: Trigger,
) -> Fixture {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = socket.local_addr().unwrap();
    let metrics = Metrics::on_heap(1).process(0);
    let service = Counting { gate: Arc::clone(gate), entered: Arc::clone(entered) };
    let builder = LoopBuilder::new(EngineConfig { trigger, ..config(Dispatch::Pool) })
        .pool(pool)
        .metrics(metrics.clone());
    Fixture { running: builder.listen("counting", socket, || Ok(service)).spawn().unwrap(), metrics, address }
}

#[test]
fn a_full_queue_pauses_reading_and_loses_nothing() {
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Oneshot] {
        let pool = HandlerPool::start(&PoolConfig { threads: 1, queue: 1, ..PoolConfig::default() }).unwrap();
        let (open, gate) = channel();
        let (gate, entered) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicUsize::new(0)));
        // Two loops share the pool: neither hears from the other's messages that there is room.
        let servers = [(); 2].map(|()| counting(&pool, &gate, &entered, trigger));
        let mut clients: Vec<Client> = (0..40).map(|n: usize| Client::new(servers[n % 2].address)).collect();
        let messages: Vec<u8> = (0..=255).collect();
        clients.iter().for_each(|client| client.send(&messages));
        until(|| entered.load(Ordering::SeqCst) == 1);
        // One handler runs, one message is queued; the 38 others wait in their loops.
        for server in &servers {
            until(|| server.metrics.listener(0).get(ListenerWord::BytesIn) == 20 * 256);
        }
        assert_eq!(entered.load(Ordering::SeqCst), 1);
        (0..40).for_each(|_| open.send(()).unwrap());
        for client in &mut clients {
            assert_eq!(client.bytes(256), messages);
        }
        drop(clients);
        for Fixture { running, metrics, .. } in servers {
            running.stop();
            running.join().unwrap();
            assert_eq!(metrics.listener(0).get(ListenerWord::Messages), 20 * 256);
            assert_eq!(metrics.get(ProcessWord::Panics), 0);
        }
        pool.stop();
    }
}

#[test]
fn a_stopped_pool_refuses_and_the_connection_is_closed() {
    let pool = HandlerPool::start(&PoolConfig { threads: 2, ..PoolConfig::default() }).unwrap();
    let (open, gate) = channel();
    let (gate, entered) = (Arc::new(Mutex::new(gate)), Arc::new(AtomicUsize::new(0)));
    let server = counting(&pool, &gate, &entered, Trigger::Edge);
    let mut served = Client::new(server.address);
    open.send(()).unwrap();
    served.send(b"\0\x01");
    assert_eq!(served.bytes(2), b"\0\x01");
    pool.stop();
    served.send(b"\x02");
    assert_eq!(served.rest(), b"");
    until(|| server.metrics.listener(0).closed(Reason::STOPPED) == 1);
    server.running.stop();
    server.running.join().unwrap();
}

#[test]
fn a_pool_can_be_stopped_before_it_has_begun() {
    for threads in [1, 3, 50] {
        let started = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&started);
        let on_start = Arc::new(move |_| {
            count.fetch_add(1, Ordering::SeqCst);
        });
        let pool = HandlerPool::start(&PoolConfig { threads, queue: 1, on_start, ..PoolConfig::default() });
        pool.unwrap().stop();
        assert_eq!(started.load(Ordering::SeqCst), threads);
    }
}

fn bytes_stay_whole_and_in_order_through_many_hands(dispatch: Dispatch) {
    let server = Server::new(EngineConfig { pool_threads: 4, ..config(dispatch) });
    std::thread::scope(|scope| {
        for n in 0..50 {
            let mut client = server.client();
            scope.spawn(move || {
                let lines: String = (0..200).map(|i| format!("echo {n}-{i}\nbig {}\n", n * 7 + i)).collect();
                client.send(lines);
                for i in 0..200 {
                    client.expect(&format!("{n}-{i}"));
                    assert_eq!(client.line().len(), n * 7 + i);
                }
            });
        }
    });
}
