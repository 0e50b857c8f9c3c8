//! Outgoing connections: how they come about, how they do not, and what becomes of them.

use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use rustix::net::{AddressFamily, SocketType};
use tidegate_engine::{
    Closed, ConnHandle, ConnState, Connect, ConnectError, ConnectFailed, ConnectFailure, Decoded,
    EngineConfig, Flow, HandleError, Io, ListenerMetrics, ListenerWord, LoopBuilder, LoopHandle, Metrics,
    Peer, PeerAddress, Reason, Refusal, Running, Service, Target,
};

use crate::descriptors::{self, Process, lower_the_limit};
use crate::support::{PATIENCE, check_the_books, name_of, prepare_the_process, until};

under_each_model!(
    a_connection_opens_and_then_gets_its_note,
    both_sides_talk_and_end,
    a_unix_socket_is_connected_to,
    a_unix_socket_whose_queue_is_full_is_tried_again,
    a_target_that_refuses_is_told_with_the_note,
    a_callback_asks_for_a_connection,
    what_is_asked_for_at_the_end_is_had_at_once,
    what_was_asked_for_fails_when_the_loop_ends,
    a_full_loop_connects_no_further,
    a_connection_comes_from_the_address_that_is_named,
    a_refused_connection_hears_of_nothing,
    a_connection_that_comes_late_is_told_that_the_loop_retires,
    asking_wrongly_is_an_error_at_once,
    a_panic_over_a_failure_ends_nobody,
    an_operator_closes_what_is_being_connected,
    who_is_refused_has_asked_all_the_same,
    a_storm_ends_with_one_outcome_for_each,
    without_a_descriptor_a_connection_fails,
);
under_all_models_at_once!(a_target_that_does_not_answer_is_given_up_in_time);

/// What the client's service saw.
#[derive(Debug)]
enum Seen {
    Opened(PeerAddress, String),
    Note(&'static str, ConnHandle<&'static str>),
    Failed(ConnectFailed<&'static str>),
    Retire,
    Got(Vec<u8>),
    Eof,
    Closed(Closed),
}

/// Sends what it is posted, and tells what it sees. "refuse" has it refuse.
struct Caller {
    seen: Sender<Seen>,
    refuses: bool,
}

impl Caller {
    fn tell(&self, seen: Seen) {
        let _ = self.seen.send(seen);
    }
}

impl Service for Caller {
    type Session = ();
    type Head = ();
    type Note = &'static str;

    fn on_open(&self, _: &mut Io<'_>, peer: &Peer<'_>) -> Result<(), Refusal> {
        self.tell(Seen::Opened(peer.address, peer.listener.to_owned()));
        if self.refuses { Err(Reason::REFUSED.into()) } else { Ok(()) }
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        self.tell(Seen::Got(bytes.to_vec()));
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, (): &mut (), note: &'static str) -> Flow {
        self.tell(Seen::Note(note, io.handle()));
        io.send(note.as_bytes());
        Flow::Continue
    }

    fn on_eof(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        self.tell(Seen::Eof);
        Flow::CloseAfterFlush(Reason::PEER_CLOSED)
    }

    fn on_retire(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        self.tell(Seen::Retire);
        Flow::CloseAfterFlush(Reason::SHUTDOWN)
    }

    fn on_connect_failed(&self, failed: ConnectFailed<&'static str>) {
        let note = failed.note;
        self.tell(Seen::Failed(failed));
        assert_ne!(note, Some("panic"), "told to");
    }

    fn on_close(&self, (): (), closed: &Closed) {
        self.tell(Seen::Closed(*closed));
    }
}

/// Has the client connect wherever a peer says; behind "late", only when the loop retires, and the peer is told so.
struct Relay;

impl Service for Relay {
    type Session = Option<SocketAddr>;
    type Head = (bool, SocketAddr);
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, peer: &Peer<'_>) -> Result<Self::Session, Refusal> {
        // Who comes from this address is not served, but has something done.
        if let PeerAddress::Inet(from) = peer.address
            && from.ip() == REFUSED
        {
            io.connect("caller", Connect::to(from), "for one refused").unwrap();
            return Err(Reason::REFUSED.into());
        }
        Ok(None)
    }

    fn decode(&self, _: &mut Self::Session, input: &[u8]) -> Decoded<Self::Head> {
        let line = std::str::from_utf8(input).unwrap().strip_suffix('\n').unwrap();
        let late = line.strip_prefix("late ");
        Decoded::Message { len: input.len(), head: (late.is_some(), late.unwrap_or(line).parse().unwrap()) }
    }

    fn on_message(
        &self,
        io: &mut Io<'_>,
        late: &mut Self::Session,
        (is_late, to): Self::Head,
        _: &[u8],
    ) -> Flow {
        if is_late {
            *late = Some(to);
            io.send(b"later");
        } else {
            io.connect("caller", Connect::to(to), "asked for").unwrap();
        }
        Flow::Continue
    }

    fn on_retire(&self, io: &mut Io<'_>, late: &mut Self::Session) -> Flow {
        if let Some(to) = late.take() {
            io.connect("caller", Connect::to(to), "late").unwrap();
        }
        Flow::Continue
    }
}

/// A relay's peer that it refuses.
const REFUSED: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 66));

/// A loop with a client. When it is dropped it is stopped, and its books must balance.
struct Bench {
    running: Option<Running>,
    handle: LoopHandle,
    metrics: ListenerMetrics,
    relay: SocketAddr,
    seen: Receiver<Seen>,
}

impl Bench {
    fn new(config: EngineConfig) -> Self {
        Self::with(config, false)
    }

    fn with(config: EngineConfig, refuses: bool) -> Self {
        prepare_the_process();
        let (seen_by, seen) = channel();
        let metrics = Metrics::on_heap(2).process(0);
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let relay = socket.local_addr().unwrap();
        let running = LoopBuilder::new(config)
            .client("caller", || Ok(Caller { seen: seen_by, refuses }))
            .listen("relay", socket, || Ok(Relay))
            .metrics(metrics.clone())
            .spawn()
            .unwrap();
        let handle = running.handle();
        // Clients are numbered behind the listeners.
        Self { running: Some(running), handle, metrics: metrics.listener(1), relay, seen }
    }

    fn connect(&self, to: impl Into<Target>, note: &'static str) {
        self.handle.connect("caller", Connect::to(to), note).unwrap();
    }

    fn see(&self) -> Seen {
        self.seen.recv_timeout(PATIENCE).expect("what the test waits for was not seen")
    }

    fn expect_open(&self, note: &str) -> ConnHandle<&'static str> {
        let opened = self.see();
        assert!(matches!(opened, Seen::Opened(..)), "{opened:?}");
        match self.see() {
            Seen::Note(got, handle) if got == note => handle,
            other => panic!("{other:?}"),
        }
    }

    fn expect_failure(&self) -> ConnectFailed<&'static str> {
        match self.see() {
            Seen::Failed(failed) => failed,
            other => panic!("{other:?}"),
        }
    }

    fn expect_close(&self, reason: Reason) -> Closed {
        match self.see() {
            Seen::Closed(closed) if closed.reason == reason => closed,
            other => panic!("{other:?}"),
        }
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join().unwrap();
        }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
            check_the_books(&self.metrics);
            assert_eq!(self.handle.connections(), 0, "connections that are counted after the end");
        }
    }
}

fn target() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// An address at which nobody listens and nobody will.
fn refusing() -> (TcpListener, SocketAddr) {
    // Bound, so that nobody else takes the port, by an address that is not the one connected to.
    let listener = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 99), 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, (Ipv4Addr::new(127, 0, 0, 98), port).into())
}

fn a_connection_opens_and_then_gets_its_note(config: EngineConfig) {
    let bench = Bench::new(config);
    let (listener, address) = target();
    bench.connect(address, "hello");
    assert!(
        matches!(bench.see(), Seen::Opened(PeerAddress::Inet(peer), by) if peer == address && by == "caller")
    );
    let Seen::Note("hello", handle) = bench.see() else { panic!("no note") };
    let mut peer = accept(&listener);
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    assert!(handle.is_open());
    assert_eq!(bench.metrics.get(ListenerWord::Open), 1);
    assert_eq!(bench.metrics.get(ListenerWord::Connects), 1);
    assert_eq!(bench.metrics.get(ListenerWord::Accepted), 0);
}

fn both_sides_talk_and_end(config: EngineConfig) {
    let bench = Bench::new(config);
    let (listener, address) = target();
    bench.connect(address, "ping");
    let handle = bench.expect_open("ping");
    let mut peer = accept(&listener);
    peer.write_all(b"pong").unwrap();
    assert!(matches!(bench.see(), Seen::Got(bytes) if bytes == b"pong"));
    handle.send(*b" and more").unwrap();
    let mut got = [0; 13];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"ping and more");
    drop(peer);
    assert!(matches!(bench.see(), Seen::Eof));
    let closed = bench.expect_close(Reason::PEER_CLOSED);
    assert_eq!((closed.bytes_in, closed.bytes_out), (4, 13));
    assert_eq!(closed.address, PeerAddress::Inet(address));
    assert!(!handle.is_open());
}

fn a_unix_socket_is_connected_to(config: EngineConfig) {
    let bench = Bench::new(config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    bench.connect(path, "hello");
    bench.expect_open("hello");
    let (mut peer, _) = listener.accept().unwrap();
    peer.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut got = [0; 5];
    peer.read_exact(&mut got).unwrap();
    assert_eq!(&got, b"hello");
    bench.connect(folder.path().join("nobody"), "nowhere");
    let failed = bench.expect_failure();
    assert_eq!(failed.error.to_string(), "No such file or directory (os error 2)");
}

fn a_unix_socket_whose_queue_is_full_is_tried_again(config: EngineConfig) {
    let bench = Bench::new(config);
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("s");
    let listener = UnixListener::bind(&path).unwrap();
    rustix::net::listen(&listener, 0).unwrap();
    bench.connect(&*path, "first");
    bench.expect_open("first");
    let hasty = Connect::to(&*path).deadline(Duration::from_millis(50));
    bench.handle.connect("caller", hasty, "hasty").unwrap();
    assert_eq!(bench.expect_failure().error, ConnectFailure::Deadline(Duration::from_millis(50)));
    bench.connect(&*path, "patient");
    until(|| bench.handle.connections() == 2);
    let _first = listener.accept().unwrap();
    bench.expect_open("patient");
}

fn a_target_that_refuses_is_told_with_the_note(config: EngineConfig) {
    let bench = Bench::new(config);
    let (_bound, address) = refusing();
    bench.connect(address, "comes back");
    let failed = bench.expect_failure();
    assert_eq!(failed.note, Some("comes back"));
    assert_eq!(failed.target, Target::Inet(address));
    assert_eq!(failed.error, ConnectFailure::Refused(tidegate_engine::Errno::CONNREFUSED));
    until(|| bench.metrics.get(ListenerWord::ConnectFailures) == 1);
    until(|| bench.handle.connections() == 0);
}

fn a_callback_asks_for_a_connection(config: EngineConfig) {
    let bench = Bench::new(config);
    let (listener, address) = target();
    let mut client = TcpStream::connect(bench.relay).unwrap();
    client.write_all(format!("{address}\n").as_bytes()).unwrap();
    bench.expect_open("asked for");
    let mut got = [0; 9];
    accept(&listener).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"asked for");
    let (_bound, address) = refusing();
    client.write_all(format!("{address}\n").as_bytes()).unwrap();
    loop {
        match bench.see() {
            Seen::Failed(failed) => break assert_eq!(failed.note, Some("asked for")),
            Seen::Eof | Seen::Closed(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

/// Nothing else happens then that would bring the next turn about.
fn what_is_asked_for_at_the_end_is_had_at_once(config: EngineConfig) {
    let bench = Bench::new(config);
    let (listener, address) = target();
    let mut client = TcpStream::connect(bench.relay).unwrap();
    client.write_all(format!("late {address}\n").as_bytes()).unwrap();
    client.read_exact(&mut [0; 5]).unwrap();
    bench.handle.quit(Duration::MAX);
    bench.expect_open("late");
    let mut got = [0; 4];
    accept(&listener).read_exact(&mut got).unwrap();
    assert_eq!(&got, b"late");
}

/// A listener whose queue is full, so that nothing is answered; and those that fill it.
fn silent() -> (TcpListener, SocketAddr, Vec<TcpStream>) {
    let (listener, address) = target();
    rustix::net::listen(&listener, 0).unwrap();
    let mut fillers = Vec::new();
    // A queue of 0 takes one; the next handshake is not answered.
    while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        fillers.push(filler);
        assert!(fillers.len() < 16, "the queue takes no end of them");
    }
    (listener, address, fillers)
}

fn a_target_that_does_not_answer_is_given_up_in_time(config: EngineConfig) {
    let bench = Bench::new(config);
    let (_listener, address, _fillers) = silent();
    let deadline = Duration::from_millis(200);
    let begun = Instant::now();
    bench.handle.connect("caller", Connect::to(address).deadline(deadline), "late").unwrap();
    until(|| bench.handle.connections() == 1);
    let page = bench.handle.connections_page(None, 10, PATIENCE).unwrap();
    assert!(page.iter().all(|conn| conn.state == ConnState::Connecting), "{page:?}");
    let failed = bench.expect_failure();
    assert!(begun.elapsed() >= deadline);
    assert_eq!(failed.error, ConnectFailure::Deadline(deadline));
    assert_eq!(failed.note, Some("late"));
    until(|| bench.handle.connections() == 0);
}

fn what_was_asked_for_fails_when_the_loop_ends(config: EngineConfig) {
    let mut bench = Bench::new(config);
    let (_listener, address, _fillers) = silent();
    bench.connect(address, "one");
    until(|| bench.handle.connections() == 1);
    bench.connect(address, "two");
    bench.stop();
    for _ in 0..2 {
        let failed = bench.expect_failure();
        assert_eq!(failed.error, ConnectFailure::Stopped);
    }
    let asked = bench.handle.connect("caller", Connect::to(address), "too late");
    assert_eq!(asked, Err(ConnectError::Ended));
    assert_eq!(bench.metrics.get(ListenerWord::Connects), 2);
    assert_eq!(bench.metrics.get(ListenerWord::ConnectFailures), 2);
}

fn a_full_loop_connects_no_further(config: EngineConfig) {
    let bench = Bench::new(EngineConfig { max_connections: 2, ..config });
    let (_listener, address) = target();
    for _ in 0..2 {
        bench.connect(address, "first");
        bench.expect_open("first");
    }
    bench.connect(address, "no room");
    let failed = bench.expect_failure();
    assert_eq!((failed.note, failed.error), (Some("no room"), ConnectFailure::NoRoom));
}

fn a_connection_comes_from_the_address_that_is_named(config: EngineConfig) {
    let bench = Bench::new(config);
    let (listener, address) = target();
    let from = IpAddr::from([127, 0, 0, 55]);
    bench.handle.connect("caller", Connect::to(address).from(from), "from").unwrap();
    bench.expect_open("from");
    let (_peer, address_of_peer) = listener.accept().unwrap();
    assert_eq!(address_of_peer.ip(), from);
    let foreign = IpAddr::from([192, 0, 2, 1]);
    bench.handle.connect("caller", Connect::to(address).from(foreign), "foreign").unwrap();
    let failed = bench.expect_failure();
    assert_eq!(failed.error, ConnectFailure::Refused(tidegate_engine::Errno::ADDRNOTAVAIL));
}

fn a_refused_connection_hears_of_nothing(config: EngineConfig) {
    let bench = Bench::with(config, true);
    let (listener, address) = target();
    bench.connect(address, "not delivered");
    assert!(matches!(bench.see(), Seen::Opened(..)));
    accept(&listener);
    until(|| bench.metrics.closed(Reason::REFUSED) == 1);
    assert!(bench.seen.try_recv().is_err());
}

fn a_connection_that_comes_late_is_told_that_the_loop_retires(config: EngineConfig) {
    let mut bench = Bench::new(config);
    let (listener, address) = target();
    bench.connect(address, "stays");
    bench.expect_open("stays");
    // A peer that nothing ends keeps the loop retiring.
    let _idle = TcpStream::connect(bench.relay).unwrap();
    until(|| bench.handle.connections() == 2);
    let running = bench.running.take().unwrap();
    running.quit(Duration::MAX);
    assert!(matches!(bench.see(), Seen::Retire));
    bench.connect(address, "late");
    let mut retired = false;
    let mut opened = false;
    while !retired {
        match bench.see() {
            Seen::Opened(..) | Seen::Closed(_) | Seen::Eof => {}
            Seen::Note("late", _) => opened = true,
            Seen::Retire => retired = opened,
            other => panic!("{other:?}"),
        }
    }
    running.stop();
    running.join().unwrap();
    drop(listener);
}

fn asking_wrongly_is_an_error_at_once(config: EngineConfig) {
    let bench = Bench::new(config);
    let (_listener, address) = target();
    let ask = |name| bench.handle.connect(name, Connect::to(address), "x");
    assert_eq!(ask("nobody"), Err(ConnectError::Unknown));
    assert_eq!(ask("relay"), Err(ConnectError::Unknown));
    assert_eq!(bench.handle.connect("caller", Connect::to(address), 7u8), Err(ConnectError::WrongNote));
}

fn a_panic_over_a_failure_ends_nobody(config: EngineConfig) {
    let bench = Bench::new(config);
    let (_bound, refusing) = refusing();
    bench.connect(refusing, "panic");
    assert_eq!(bench.expect_failure().note, Some("panic"));
    let (_listener, address) = target();
    bench.connect(address, "lives on");
    bench.expect_open("lives on");
}

fn an_operator_closes_what_is_being_connected(config: EngineConfig) {
    let bench = Bench::new(config);
    let (_listener, address, _fillers) = silent();
    bench.connect(address, "closed");
    until(|| bench.handle.connections() == 1);
    let page = bench.handle.connections_page(None, 10, PATIENCE).unwrap();
    assert_eq!(page[0].state, ConnState::Connecting);
    bench.handle.close(page[0].id, Reason::OPERATOR).unwrap();
    let failed = bench.expect_failure();
    assert_eq!((failed.note, failed.error), (Some("closed"), ConnectFailure::Closed(Reason::OPERATOR)));
    assert_eq!(bench.handle.close(page[0].id, Reason::OPERATOR), Err(HandleError::Gone));
    until(|| bench.handle.connections() == 0);
}

fn who_is_refused_has_asked_all_the_same(config: EngineConfig) {
    let bench = Bench::new(config);
    let socket = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    rustix::net::bind(&socket, &SocketAddr::new(REFUSED, 0)).unwrap();
    rustix::net::connect(&socket, &bench.relay).unwrap();
    // Nobody listens where it comes from.
    let failed = bench.expect_failure();
    assert_eq!(failed.note, Some("for one refused"));
}

fn a_storm_ends_with_one_outcome_for_each(config: EngineConfig) {
    const ROOM: usize = 8;
    const ASKED: usize = 500;
    let bench = Bench::new(EngineConfig { max_connections: ROOM, ..config });
    let (_listener, address) = target();
    for _ in 0..ASKED {
        bench.connect(address, "one of many");
    }
    let (mut opened, mut refused) = (0, 0);
    while opened + refused < ASKED {
        match bench.see() {
            Seen::Note("one of many", _) => opened += 1,
            Seen::Failed(failed) => {
                assert_eq!((failed.note, failed.error), (Some("one of many"), ConnectFailure::NoRoom));
                refused += 1;
            }
            Seen::Opened(..) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!((opened, bench.handle.connections()), (ROOM, ROOM));
    assert_eq!(bench.metrics.get(ListenerWord::Connects), ASKED as u64);
}

/// In a process of its own, whose limit is low.
fn without_a_descriptor_a_connection_fails(config: EngineConfig) {
    if !descriptors::is_child() {
        return Process::run_test(&format!(
            "connect::{}::without_a_descriptor_a_connection_fails",
            name_of(config)
        ));
    }
    lower_the_limit();
    let bench = Bench::new(config);
    let (_listener, address) = target();
    let mut fillers = Vec::new();
    while let Ok(filler) = std::fs::File::open("/dev/null") {
        fillers.push(filler);
    }
    for _ in 0..3 {
        bench.connect(address, "in vain");
        let failed = bench.expect_failure();
        assert_eq!(failed.note, Some("in vain"));
        assert_eq!(failed.error, ConnectFailure::Refused(tidegate_engine::Errno::MFILE));
    }
    assert_eq!(bench.handle.connections(), 0);
    drop(fillers);
    bench.connect(address, "again");
    bench.expect_open("again");
}
