//! Ties: what one peer sends reaches the other, whole, in order and to its end, and nothing else does.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rustix::net::sockopt;
use tidegate_engine::{
    Closed, ConnHandle, ConnState, Connect, ConnectFailed, Decoded, EngineConfig, Flow, Io, Limits,
    ListenerMetrics, ListenerWord, LoopBuilder, LoopHandle, Metrics, Peer, Phase, ProcessMetrics, Reason,
    Refusal, Running, Service, Target, TieError, TimerToken,
};

use crate::support::{PATIENCE, check_the_books, pattern, prepare_the_process, until};

under_each_model!(
    bytes_reach_the_other_side_whole_both_ways,
    what_came_before_is_passed_on_first,
    an_end_that_came_before_is_passed_on,
    the_other_direction_of_a_half_closed_pair_works,
    a_reset_is_passed_on_as_a_reset,
    a_peer_that_does_not_read_holds_up_the_other,
    a_pair_whose_peer_never_reads_is_closed,
    a_pair_is_not_idle_while_one_of_it_is_slow_to_read,
    closing_one_by_its_handle_ends_both_in_order,
    a_target_that_refuses_ends_the_first,
    a_tie_waits_for_a_session_that_is_away,
    a_tie_to_what_has_ended_ends_the_one,
    no_callback_is_called_for_a_pair,
    stopping_ends_a_pair_with_fin,
    tying_wrongly_is_an_error_at_once,
);
under_all_models_at_once!(
    an_idle_pair_is_closed_and_a_busy_one_is_not,
    a_retiring_loop_leaves_a_pair_its_time
);

#[derive(Debug)]
enum Seen {
    Opened(ConnHandle<()>),
    Holding,
    Closed(&'static str, Closed),
    #[expect(dead_code, reason = "a failed test prints it")]
    Called(&'static str),
    Error(TieError),
}

/// Reads a line, connects to the address in it, and has what follows passed on.
///
/// A word before the address has it do something else too: `hold` waits in the handler, `timer` sets one, `itself` and
/// `foreign` tie wrongly, and with `late` the target's side ties only when the first has ended.
struct Gate {
    limits: Limits,
    seen: Sender<Seen>,
    go_on: Mutex<Receiver<()>>,
    foreign: Foreign,
}

/// A connection of another loop.
type Foreign = Arc<Mutex<Option<ConnHandle<()>>>>;

impl Service for Gate {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        let _ = self.seen.send(Seen::Opened(io.handle()));
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        match input.iter().position(|byte| *byte == b'\n') {
            Some(at) => Decoded::Message { len: at + 1, head: () },
            None => Decoded::Need { phase: Phase::Head, at_least: input.len() + 1 },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), line: &[u8]) -> Flow {
        let line = std::str::from_utf8(line).unwrap().trim_end();
        let (word, address) = line.split_once(' ').unwrap_or(("", line));
        let note = OutNote { to: io.handle(), late: word == "late" };
        io.connect("out", Connect::to(address.parse::<Target>().unwrap()), note).unwrap();
        match word {
            "hold" => {
                let _ = self.seen.send(Seen::Holding);
                self.go_on.lock().unwrap().recv().unwrap();
            }
            "timer" => io.set_timer(TimerToken(1), Duration::from_millis(100)),
            "foreign" => {
                let foreign = self.foreign.lock().unwrap().take().unwrap();
                let _ = self.seen.send(Seen::Error(io.tie(&foreign).unwrap_err()));
            }
            "itself" => {
                let own: ConnHandle<()> = io.handle();
                let _ = self.seen.send(Seen::Error(io.tie(&own).unwrap_err()));
            }
            _ => {}
        }
        io.pause();
        Flow::Continue
    }

    fn on_note(&self, _: &mut Io<'_>, (): &mut (), (): ()) -> Flow {
        let _ = self.seen.send(Seen::Called("note"));
        Flow::Continue
    }

    fn on_timer(&self, _: &mut Io<'_>, (): &mut (), _: TimerToken) -> Flow {
        let _ = self.seen.send(Seen::Called("timer"));
        Flow::Continue
    }

    fn on_retire(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        let _ = self.seen.send(Seen::Called("retire"));
        Flow::Continue
    }

    fn on_eof(&self, _: &mut Io<'_>, (): &mut ()) -> Flow {
        Flow::Continue
    }

    fn on_close(&self, (): (), closed: &Closed) {
        let _ = self.seen.send(Seen::Closed("gate", *closed));
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

struct OutNote {
    to: ConnHandle<()>,
    /// Tie when the other is gone.
    late: bool,
}

struct Out {
    limits: Limits,
    seen: Sender<Seen>,
}

impl Service for Out {
    /// Whom to tie to.
    type Session = Option<ConnHandle<()>>;
    type Head = ();
    type Note = OutNote;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<Option<ConnHandle<()>>, Refusal> {
        Ok(None)
    }

    fn decode(&self, _: &mut Self::Session, input: &[u8]) -> Decoded<()> {
        Decoded::Need { phase: Phase::Idle, at_least: input.len() + 1 }
    }

    fn on_message(&self, _: &mut Io<'_>, _: &mut Self::Session, (): (), _: &[u8]) -> Flow {
        unreachable!("decode finds no message")
    }

    fn on_note(&self, io: &mut Io<'_>, to: &mut Self::Session, note: OutNote) -> Flow {
        if note.late {
            note.to.close(Reason::custom(41)).unwrap();
            io.set_timer(TimerToken(1), Duration::ZERO);
            *to = Some(note.to);
        } else {
            io.tie(&note.to).unwrap();
        }
        Flow::Continue
    }

    fn on_timer(&self, io: &mut Io<'_>, to: &mut Self::Session, timer: TimerToken) -> Flow {
        let to = to.as_ref().unwrap();
        if to.is_open() {
            io.set_timer(timer, Duration::ZERO);
        } else {
            io.tie(to).unwrap();
        }
        Flow::Continue
    }

    fn on_connect_failed(&self, failed: ConnectFailed<OutNote>) {
        failed.note.unwrap().to.close(Reason::custom(40)).unwrap();
    }

    fn on_eof(&self, _: &mut Io<'_>, _: &mut Self::Session) -> Flow {
        Flow::Continue
    }

    fn on_close(&self, _: Self::Session, closed: &Closed) {
        let _ = self.seen.send(Seen::Closed("out", *closed));
    }

    fn limits(&self) -> Limits {
        self.limits
    }
}

/// A loop that ties. When it is dropped it is stopped, and its books must balance.
pub(crate) struct Bench {
    running: Option<Running>,
    pub(crate) handle: LoopHandle,
    pub(crate) metrics: ProcessMetrics,
    gate: SocketAddr,
    pub(crate) target: TcpListener,
    seen: Receiver<Seen>,
    go_on: Sender<()>,
    foreign: Foreign,
}

impl Bench {
    fn new(config: EngineConfig) -> Self {
        Self::with(config, Limits::default())
    }

    pub(crate) fn with(config: EngineConfig, limits: Limits) -> Self {
        prepare_the_process();
        let (seen_by, seen) = channel();
        let (go_on, held) = channel();
        let metrics = Metrics::on_heap(2).process(0);
        let [socket, target] = [(); 2].map(|()| TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap());
        sockopt::set_socket_send_buffer_size(&socket, 32 << 10).unwrap();
        sockopt::set_socket_recv_buffer_size(&target, 32 << 10).unwrap();
        let gate = socket.local_addr().unwrap();
        let foreign = Foreign::default();
        let go_on_when_told = Mutex::new(held);
        let (seen_too, foreign_too) = (seen_by.clone(), Arc::clone(&foreign));
        let first = Gate { limits, seen: seen_too, go_on: go_on_when_told, foreign: foreign_too };
        let second = Out { limits, seen: seen_by };
        let builder = LoopBuilder::new(config).listen("gate", socket, || Ok(first));
        let running = builder.client("out", || Ok(second)).metrics(metrics.clone()).spawn().unwrap();
        let handle = running.handle();
        Self { running: Some(running), handle, metrics, gate, target, seen, go_on, foreign }
    }

    /// A client that has said where it wants to go, and what comes behind that.
    fn client(&self, word: &str, rest: &[u8]) -> TcpStream {
        self.client_of(word, &self.target.local_addr().unwrap().into(), rest)
    }

    /// The same, for another target.
    pub(crate) fn client_of(&self, word: &str, target: &Target, rest: &[u8]) -> TcpStream {
        let mut client = TcpStream::connect(self.gate).unwrap();
        patient(&client);
        let line = format!("{word}{target}\n");
        client.write_all(&[line.as_bytes(), rest].concat()).unwrap();
        client
    }

    fn accept(&self) -> TcpStream {
        let (stream, _) = self.target.accept().unwrap();
        patient(&stream);
        stream
    }

    /// Two peers that are tied together.
    pub(crate) fn pair(&self) -> (TcpStream, TcpStream) {
        let (mut client, mut target) = (self.client("", b"to"), self.accept());
        expect(&mut target, b"to");
        target.write_all(b"fro").unwrap();
        expect(&mut client, b"fro");
        (client, target)
    }

    fn see<T>(&self, pick: impl Fn(Seen) -> Option<T>) -> T {
        loop {
            let seen = self.seen.recv_timeout(PATIENCE).expect("what the test waits for was not seen");
            if let Some(found) = pick(seen) {
                return found;
            }
        }
    }

    fn opened(&self) -> ConnHandle<()> {
        self.see(|seen| if let Seen::Opened(handle) = seen { Some(handle) } else { None })
    }

    /// The ends of both, that of the gate's side first.
    pub(crate) fn closes(&self) -> [Closed; 2] {
        let close = |seen| if let Seen::Closed(who, closed) = seen { Some((who, closed)) } else { None };
        let (first, second) = (self.see(close), self.see(close));
        assert_ne!(first.0, second.0, "one side was closed twice");
        if first.0 == "gate" { [first.1, second.1] } else { [second.1, first.1] }
    }

    pub(crate) fn expect_closes(&self, gate: Reason, out: Reason) {
        assert_eq!(self.closes().map(|closed| closed.reason), [gate, out]);
    }

    fn stop(&mut self) {
        if let Some(running) = self.running.take() {
            running.stop();
            running.join().unwrap();
        }
    }

    fn sites(&self) -> [ListenerMetrics; 2] {
        [0, 1].map(|site| self.metrics.listener(site))
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            self.stop();
            self.sites().iter().for_each(check_the_books);
            assert_eq!(self.handle.connections(), 0, "connections that are counted after the end");
        }
    }
}

fn patient(stream: &TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
}

pub(crate) fn expect(stream: &mut impl Read, bytes: &[u8]) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).unwrap();
    assert_eq!(got, bytes);
}

pub(crate) fn rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut got = Vec::new();
    stream.read_to_end(&mut got).unwrap();
    got
}

fn expect_reset(stream: &mut TcpStream) {
    let error = stream.read_to_end(&mut Vec::new()).expect_err("FIN came, and a reset was expected");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset, "{error}");
}

pub(crate) fn reset(stream: TcpStream) {
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
    drop(stream);
}

/// Writes all of it and then FIN, aside.
fn write_aside(stream: &TcpStream, bytes: Vec<u8>) -> std::thread::JoinHandle<()> {
    let mut stream = stream.try_clone().unwrap();
    std::thread::spawn(move || {
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
    })
}

fn bytes_reach_the_other_side_whole_both_ways(config: EngineConfig) {
    let bench = Bench::new(config);
    let (mut client, mut target) = bench.pair();
    let (there, back) = (pattern(3 << 20), pattern(2 << 20)[7..].to_vec());
    let writers = [write_aside(&client, there.clone()), write_aside(&target, back.clone())];
    let reader = std::thread::spawn(move || rest(&mut target));
    assert!(rest(&mut client) == back, "what came back is not what was sent");
    assert!(reader.join().unwrap() == there, "what arrived is not what was sent");
    writers.into_iter().for_each(|writer| writer.join().unwrap());
    let [gate, out] = bench.closes();
    assert_eq!((gate.reason, out.reason), (Reason::PEER_CLOSED, Reason::PEER_CLOSED));
    assert_eq!((out.bytes_out, out.bytes_in), (2 + there.len() as u64, 3 + back.len() as u64));
    assert_eq!(gate.bytes_out, out.bytes_in);
    let [gate, out] = bench.sites();
    assert_eq!(gate.get(ListenerWord::BytesOut), out.get(ListenerWord::BytesIn));
}

fn what_came_before_is_passed_on_first(config: EngineConfig) {
    let bench = Bench::new(config);
    let early = pattern(50_000);
    let mut client = bench.client("", &early);
    let mut target = bench.accept();
    target.write_all(b"banner").unwrap();
    expect(&mut client, b"banner");
    expect(&mut target, &early);
    client.write_all(b"late").unwrap();
    expect(&mut target, b"late");
}

fn an_end_that_came_before_is_passed_on(config: EngineConfig) {
    let bench = Bench::new(config);
    let mut client = bench.client("", b"all of it");
    client.shutdown(Shutdown::Write).unwrap();
    let mut target = bench.accept();
    assert_eq!(rest(&mut target), b"all of it");
    target.write_all(b"answer").unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), b"answer");
    bench.expect_closes(Reason::PEER_CLOSED, Reason::PEER_CLOSED);
}

fn the_other_direction_of_a_half_closed_pair_works(config: EngineConfig) {
    for flip in [false, true] {
        let bench = Bench::new(config);
        let (mut one, mut other) = bench.pair();
        if flip {
            (one, other) = (other, one);
        }
        one.shutdown(Shutdown::Write).unwrap();
        assert_eq!(rest(&mut other), b"", "the end was passed on");
        let late = pattern(400_000);
        let writer = write_aside(&other, late.clone());
        assert!(rest(&mut one) == late);
        writer.join().unwrap();
        bench.expect_closes(Reason::PEER_CLOSED, Reason::PEER_CLOSED);
    }
}

fn a_reset_is_passed_on_as_a_reset(config: EngineConfig) {
    for flip in [false, true] {
        let bench = Bench::new(config);
        let (client, target) = bench.pair();
        let (one, mut other) = if flip { (target, client) } else { (client, target) };
        reset(one);
        expect_reset(&mut other);
        let reasons = [Reason::PEER_RESET, Reason::OTHER_SIDE];
        let [gate, out] = if flip { [reasons[1], reasons[0]] } else { reasons };
        bench.expect_closes(gate, out);
    }
}

fn a_peer_that_does_not_read_holds_up_the_other(config: EngineConfig) {
    let limits = Limits { high_water_bytes: 64 << 10, low_water_bytes: 16 << 10, ..Limits::default() };
    let bench = Bench::with(config, limits);
    let (client, mut target) = bench.pair();
    let sent = pattern(16 << 20);
    let writer = write_aside(&client, sent.clone());
    let received = || bench.metrics.listener(0).get(ListenerWord::BytesIn);
    let mut before = 0;
    // It takes in what the marks and the kernel's buffers allow, and then no more.
    let mut still = 0;
    until(|| {
        std::thread::sleep(Duration::from_millis(5));
        still = if received() == before { still + 1 } else { 0 };
        before = received();
        still > 20
    });
    assert!(before < sent.len() as u64, "{before} bytes were taken in for a peer that does not read");
    let page = bench.handle.connections_page(None, 10, PATIENCE).unwrap();
    assert!(page.iter().all(|conn| conn.state == ConnState::Tied), "{page:?}");
    let queued: usize = page.iter().map(|conn| conn.queued).sum();
    assert!(queued <= (64 << 10) + (256 << 10), "{queued} bytes wait");
    assert!(rest(&mut target) == sent);
    writer.join().unwrap();
}

fn a_pair_whose_peer_never_reads_is_closed(config: EngineConfig) {
    let limits = Limits { write_timeout: Some(Duration::from_millis(200)), ..Limits::default() };
    let bench = Bench::with(config, limits);
    let (mut client, _target) = bench.pair();
    let bytes = vec![0; 1 << 16];
    while client.write_all(&bytes).is_ok() {}
    bench.expect_closes(Reason::OTHER_SIDE, Reason::WRITE_TIMEOUT);
}

/// The client has said all, which is less than what holds it up, and waits; only the target's write time-out counts then.
fn a_pair_is_not_idle_while_one_of_it_is_slow_to_read(config: EngineConfig) {
    let limits = Limits {
        idle_timeout: Some(Duration::from_millis(600)),
        write_timeout: Some(Duration::from_secs(2)),
        high_water_bytes: 12 << 20,
        ..Limits::default()
    };
    let bench = Bench::with(config, limits);
    // More than the kernel's buffers take.
    let bytes = vec![0; 10 << 20];
    let (mut client, _target) = bench.pair();
    let said = client.write_all(&bytes);
    let reasons = bench.closes().map(|closed| closed.reason);
    assert_eq!(reasons, [Reason::OTHER_SIDE, Reason::WRITE_TIMEOUT], "{said:?}");
}

fn an_idle_pair_is_closed_and_a_busy_one_is_not(config: EngineConfig) {
    let limits = Limits { idle_timeout: Some(Duration::from_millis(600)), ..Limits::default() };
    let bench = Bench::with(config, limits);
    let (mut client, mut target) = bench.pair();
    // One direction alone keeps both.
    for _ in 0..12 {
        std::thread::sleep(Duration::from_millis(100));
        target.write_all(b"x").unwrap();
        expect(&mut client, b"x");
    }
    bench.expect_closes(Reason::IDLE_TIMEOUT, Reason::IDLE_TIMEOUT);
    expect_reset(&mut client);
    expect_reset(&mut target);
}

fn closing_one_by_its_handle_ends_both_in_order(config: EngineConfig) {
    let bench = Bench::new(config);
    let (mut client, mut target) = bench.pair();
    let handle = bench.opened();
    handle.close(Reason::CLOSED_BY_PROGRAM).unwrap();
    assert_eq!(rest(&mut client), b"");
    assert_eq!(rest(&mut target), b"");
    drop((client, target));
    bench.expect_closes(Reason::CLOSED_BY_PROGRAM, Reason::CLOSED_BY_PROGRAM);
    assert!(!handle.is_open());
}

fn a_target_that_refuses_ends_the_first(config: EngineConfig) {
    let bench = Bench::new(config);
    let mut client = TcpStream::connect(bench.gate).unwrap();
    patient(&client);
    let unused = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 97), 0)).unwrap();
    let port = unused.local_addr().unwrap().port();
    client.write_all(format!("127.0.0.96:{port}\n").as_bytes()).unwrap();
    expect_reset(&mut client);
    let close = |seen| if let Seen::Closed(_, closed) = seen { Some(closed) } else { None };
    assert_eq!(bench.see(close).reason, Reason::custom(40));
}

fn a_tie_waits_for_a_session_that_is_away(config: EngineConfig) {
    let bench = Bench::new(config);
    let mut client = bench.client("hold ", b"early");
    bench.see(|seen| if let Seen::Holding = seen { Some(()) } else { None });
    client.write_all(b" and more").unwrap();
    bench.go_on.send(()).unwrap();
    let mut target = bench.accept();
    expect(&mut target, b"early and more");
    target.write_all(b"answer").unwrap();
    expect(&mut client, b"answer");
}

fn a_tie_to_what_has_ended_ends_the_one(config: EngineConfig) {
    let bench = Bench::new(config);
    let client = bench.client("late ", b"");
    let mut target = bench.accept();
    expect_reset(&mut target);
    bench.expect_closes(Reason::custom(41), Reason::OTHER_SIDE);
    drop(client);
}

fn no_callback_is_called_for_a_pair(config: EngineConfig) {
    let bench = Bench::new(config);
    let mut client = bench.client("timer ", b"x");
    let handle = bench.opened();
    let mut target = bench.accept();
    expect(&mut target, b"x");
    handle.post(()).unwrap();
    handle.send(*b"not sent").unwrap();
    std::thread::sleep(Duration::from_millis(150));
    target.write_all(b"only this").unwrap();
    target.shutdown(Shutdown::Write).unwrap();
    client.shutdown(Shutdown::Write).unwrap();
    assert_eq!(rest(&mut client), b"only this");
    let next = bench.see(Some);
    assert!(matches!(next, Seen::Closed(_, closed) if closed.reason == Reason::PEER_CLOSED), "{next:?}");
}

fn stopping_ends_a_pair_with_fin(config: EngineConfig) {
    let mut bench = Bench::new(config);
    let (mut client, mut target) = bench.pair();
    bench.stop();
    assert_eq!(rest(&mut client), b"");
    assert_eq!(rest(&mut target), b"");
    bench.expect_closes(Reason::STOPPED, Reason::STOPPED);
}

fn a_retiring_loop_leaves_a_pair_its_time(config: EngineConfig) {
    let mut bench = Bench::new(config);
    let (mut client, mut target) = bench.pair();
    let running = bench.running.take().unwrap();
    running.quit(Duration::from_millis(500));
    for _ in 0..3 {
        client.write_all(b"still").unwrap();
        expect(&mut target, b"still");
    }
    running.join().unwrap();
    bench.expect_closes(Reason::SHUTDOWN_TIMEOUT, Reason::SHUTDOWN_TIMEOUT);
}

fn tying_wrongly_is_an_error_at_once(config: EngineConfig) {
    let bench = Bench::new(config);
    let _client = bench.client("itself ", b"");
    let error = bench.see(|seen| if let Seen::Error(error) = seen { Some(error) } else { None });
    assert_eq!(error, TieError::Itself);
    let elsewhere = Bench::new(config);
    let _other = elsewhere.client("", b"");
    *bench.foreign.lock().unwrap() = Some(elsewhere.opened());
    let _client = bench.client("foreign ", b"");
    let error = bench.see(|seen| if let Seen::Error(error) = seen { Some(error) } else { None });
    assert_eq!(error, TieError::OtherLoop);
}
