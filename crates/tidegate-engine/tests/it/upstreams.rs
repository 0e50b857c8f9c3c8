//! Upstreams: as many connections as are wanted, made again when they end, and given up with the loop.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use tidegate_engine::{
    Backoff, Closed, ConnectError, ConnectFailed, ConnectFailure, Decoded, EngineConfig, Errno, Flow, Io,
    ListenerMetrics, ListenerWord, LoopBuilder, LoopHandle, Metrics, NotConnected, Peer, Reason, Refusal,
    Running, Service, Upstream, UpstreamConfig,
};

use crate::support::{PATIENCE, check_the_books, prepare_the_process, until};

under_each_model!(
    as_many_are_kept_open_and_picked_in_turn,
    one_that_ends_is_made_again,
    a_target_that_comes_late_is_found,
    a_target_that_hangs_up_is_called_again,
    a_retiring_loop_closes_what_it_keeps_for_others,
    what_is_being_made_ends_with_a_retiring_loop,
    one_that_ends_or_is_tied_is_not_picked,
);

/// Sends what it is posted.
struct Speaker {
    failures: Sender<ConnectFailure>,
}

impl Service for Speaker {
    type Session = ();
    type Head = ();
    type Note = Vec<u8>;

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, _: &mut Io<'_>, (): &mut (), (): (), _: &[u8]) -> Flow {
        Flow::Continue
    }

    fn on_note(&self, io: &mut Io<'_>, (): &mut (), note: Vec<u8>) -> Flow {
        if note == b"tie" {
            let other = io.upstream::<Vec<u8>>("up").unwrap();
            let others = std::iter::repeat_with(|| other.pick().unwrap());
            let other = others.take(2).find(|other| other.id() != io.id()).unwrap();
            io.tie(&other).unwrap();
            return Flow::Continue;
        }
        io.send(&note);
        if note.is_empty() { Flow::CloseAfterFlush(Reason::DONE) } else { Flow::Continue }
    }

    fn on_connect_failed(&self, failed: ConnectFailed<Vec<u8>>) {
        assert!(failed.note.is_none());
        let _ = self.failures.send(failed.error);
    }

    fn on_close(&self, (): (), _: &Closed) {}
}

struct Bench {
    running: Option<Running>,
    handle: LoopHandle,
    metrics: ListenerMetrics,
    upstream: Upstream<Vec<u8>>,
    failures: Receiver<ConnectFailure>,
}

impl Bench {
    fn new(config: EngineConfig, to: SocketAddr, connections: usize) -> Self {
        prepare_the_process();
        let (failed, failures) = channel();
        let metrics = Metrics::on_heap(1).process(0);
        let backoff = Backoff { first: Duration::from_millis(2), max: Duration::from_millis(20) };
        let upstream = UpstreamConfig { connections, backoff, seed: Some(1), ..UpstreamConfig::to(to) };
        let builder = LoopBuilder::new(config).upstream("up", upstream, || Ok(Speaker { failures: failed }));
        let running = builder.metrics(metrics.clone()).spawn().unwrap();
        let handle = running.handle();
        let upstream = handle.upstream("up").unwrap();
        Self { running: Some(running), handle, metrics: metrics.listener(0), upstream, failures }
    }

    fn failure(&self) -> ConnectFailure {
        self.failures.recv_timeout(PATIENCE).expect("nothing failed")
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        if let Some(running) = self.running.take() {
            running.stop();
            running.join().unwrap();
        }
        check_the_books(&self.metrics);
        assert_eq!(self.upstream.open(), 0, "open after the end");
        assert_eq!(self.upstream.pick().unwrap_err(), NotConnected);
    }
}

fn listener() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (stream, _) = listener.accept().unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

fn as_many_are_kept_open_and_picked_in_turn(config: EngineConfig) {
    let (target, address) = listener();
    let bench = Bench::new(config, address, 3);
    let mut peers: Vec<TcpStream> = (0..3).map(|_| accept(&target)).collect();
    until(|| bench.upstream.open() == 3);
    for _ in 0..6 {
        bench.upstream.pick().unwrap().post(b"x".to_vec()).unwrap();
    }
    for peer in &mut peers {
        let mut got = [0; 2];
        peer.read_exact(&mut got).unwrap();
    }
    assert_eq!(bench.metrics.get(ListenerWord::Connects), 3);
    assert_eq!(bench.handle.upstream::<u8>("up").unwrap_err(), ConnectError::WrongNote);
    assert_eq!(bench.handle.upstream::<Vec<u8>>("down").unwrap_err(), ConnectError::Unknown);
}

fn one_that_ends_is_made_again(config: EngineConfig) {
    let (target, address) = listener();
    let bench = Bench::new(config, address, 1);
    for _ in 0..3 {
        let mut peer = accept(&target);
        until(|| bench.upstream.open() == 1);
        let handle = bench.upstream.pick().unwrap();
        handle.post(b"hello".to_vec()).unwrap();
        let mut got = [0; 5];
        peer.read_exact(&mut got).unwrap();
        assert_eq!(&got, b"hello");
        drop(peer);
        until(|| !handle.is_open());
    }
    let _last = accept(&target);
    until(|| bench.metrics.get(ListenerWord::Connects) == 4);
}

fn a_target_that_comes_late_is_found(config: EngineConfig) {
    // Bound to another address, so that nobody takes the port.
    let holder = TcpListener::bind((Ipv4Addr::new(127, 0, 0, 95), 0)).unwrap();
    let address: SocketAddr = (Ipv4Addr::new(127, 0, 0, 94), holder.local_addr().unwrap().port()).into();
    let bench = Bench::new(config, address, 2);
    for _ in 0..6 {
        assert_eq!(bench.failure(), ConnectFailure::Refused(Errno::CONNREFUSED));
    }
    assert_eq!(bench.upstream.pick().unwrap_err(), NotConnected);
    let target = TcpListener::bind(address).unwrap();
    let _peers = [accept(&target), accept(&target)];
    until(|| bench.upstream.open() == 2);
}

fn a_target_that_hangs_up_is_called_again(config: EngineConfig) {
    let (target, address) = listener();
    let bench = Bench::new(config, address, 1);
    for _ in 0..8 {
        drop(accept(&target));
    }
    let mut peer = accept(&target);
    until(|| bench.upstream.pick().is_ok_and(|handle| handle.post(b"y".to_vec()).is_ok()));
    let mut got = [0; 1];
    peer.read_exact(&mut got).unwrap();
}

fn a_retiring_loop_closes_what_it_keeps_for_others(config: EngineConfig) {
    let (target, address) = listener();
    let mut bench = Bench::new(config, address, 2);
    let mut peers = [accept(&target), accept(&target)];
    until(|| bench.upstream.open() == 2);
    let running = bench.running.take().unwrap();
    running.quit(Duration::MAX);
    for peer in &mut peers {
        assert_eq!(peer.read(&mut [0; 1]).unwrap(), 0, "it was closed in order");
        let _ = peer.write_all(b"ignored");
    }
    drop(peers);
    running.join().unwrap();
    assert_eq!(bench.metrics.closed(Reason::SHUTDOWN), 2);
    assert_eq!(bench.metrics.get(ListenerWord::Connects), 2, "it was not made again");
}

fn one_that_ends_or_is_tied_is_not_picked(config: EngineConfig) {
    let (target, address) = listener();
    let bench = Bench::new(config, address, 3);
    let mut peers: Vec<TcpStream> = (0..3).map(|_| accept(&target)).collect();
    until(|| bench.upstream.open() == 3);
    // It lingers, as its peer does not hang up.
    bench.upstream.pick().unwrap().post(Vec::new()).unwrap();
    until(|| bench.upstream.open() == 2);
    assert_eq!(bench.handle.connections(), 3);
    bench.upstream.pick().unwrap().post(b"tie".to_vec()).unwrap();
    until(|| bench.upstream.open() == 0);
    assert_eq!(bench.handle.connections(), 3, "it was the end of them");
    assert_eq!(bench.upstream.pick().unwrap_err(), NotConnected);
    // Each is made again when it has ended.
    peers.clear();
    peers.extend((0..3).map(|_| accept(&target)));
    until(|| bench.upstream.open() == 3);
}

#[test]
fn a_back_off_without_a_pause_is_an_error() {
    let backoff = Backoff { first: Duration::ZERO, max: Duration::from_secs(1) };
    let config = UpstreamConfig { backoff, ..UpstreamConfig::to(SocketAddr::from(([127, 0, 0, 1], 1))) };
    let (failures, _) = channel();
    let built =
        LoopBuilder::new(EngineConfig::default()).upstream("up", config, || Ok(Speaker { failures })).build();
    let error = built.err().unwrap().to_string();
    assert!(
        error.starts_with("upstream \"up\": a back-off of 0ns to 1s; both are 1ms at the least"),
        "{error}"
    );
}

fn what_is_being_made_ends_with_a_retiring_loop(config: EngineConfig) {
    let (target, address) = listener();
    rustix::net::listen(&target, 0).unwrap();
    let mut fillers = Vec::new();
    while let Ok(filler) = TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
        fillers.push(filler);
        assert!(fillers.len() < 16, "the queue takes no end of them");
    }
    let mut bench = Bench::new(config, address, 1);
    until(|| bench.handle.connections() == 1);
    let running = bench.running.take().unwrap();
    running.quit(Duration::MAX);
    running.join().unwrap();
    assert_eq!(bench.failure(), ConnectFailure::Stopped);
}

#[test]
fn an_upstream_without_connections_is_an_error() {
    for connections in [0, 1025] {
        let config =
            UpstreamConfig { connections, ..UpstreamConfig::to(SocketAddr::from(([127, 0, 0, 1], 1))) };
        let (failures, _) = channel();
        let built = LoopBuilder::new(EngineConfig::default())
            .upstream("up", config, || Ok(Speaker { failures }))
            .build();
        let error = built.err().unwrap().to_string();
        assert_eq!(error, format!("upstream \"up\": {connections} connections; 1 to 1024 can be kept"));
    }
}
