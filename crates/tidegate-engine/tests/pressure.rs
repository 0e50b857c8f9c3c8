//! What the process takes of memory while peers ask for much and read nothing, while they idle, and when they have gone.
//!
//! A test binary of its own, as it reads the memory of the whole process from /proc/self/status (proc(5)): nothing but a
//! loop and its clients runs meanwhile, and what the kernel keeps for their sockets does not count there.
//!
//! An allocator may keep what it was given back for the next time, and glibc's does when something small lies above it. So
//! the tests run in a child that tells it to map and unmap each buffer by itself (mallopt(3), `M_MMAP_THRESHOLD`): then what
//! the loop gives back is seen to go. Each mapping is whole pages, so that a block of 16 KiB with its header takes five.

use std::alloc::System;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rustix::net::sockopt;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tidegate_engine::{
    ConnHandle, Decoded, Dispatch, EngineConfig, Flow, HandleError, Io, Limits, ListenerWord, LoopBuilder,
    Metrics, Peer, Phase, ProcessMetrics, ProcessWord, Reason, Refusal, Running, Service, Trigger,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// One byte asks for an answer, another for a stream, a third begins a long message, which is acknowledged.
struct Source {
    handles: Arc<Mutex<Vec<ConnHandle<()>>>>,
}

const REQUEST: u8 = b'r';
const STREAM: u8 = b's';
const MESSAGE: u8 = b'm';
const ACK: u8 = b'k';
const ANSWER_BYTES: usize = 16 << 10;
const CHUNK_BYTES: usize = 64 << 10;
const MESSAGE_BYTES: usize = 16 << 10;
/// What each peer asks for.
const ASKED_BYTES: usize = 50 << 20;

static CHUNK: [u8; CHUNK_BYTES] = [7; CHUNK_BYTES];

impl Source {
    fn stream(&self, io: &mut Io<'_>, left: &mut usize) {
        while *left > 0 && io.queued_bytes() <= self.limits().high_water_bytes {
            io.send(&CHUNK);
            *left -= CHUNK_BYTES;
        }
    }
}

impl Service for Source {
    /// Bytes of the stream that are still to be sent.
    type Session = usize;
    type Head = u8;
    type Note = ();

    fn on_open(&self, io: &mut Io<'_>, _: &Peer<'_>) -> Result<usize, Refusal> {
        self.handles.lock().expect("no callback panics").push(io.handle());
        Ok(0)
    }

    fn decode(&self, _: &mut usize, input: &[u8]) -> Decoded<u8> {
        match input[0] {
            MESSAGE if input.len() < MESSAGE_BYTES => {
                Decoded::Need { phase: Phase::Body, at_least: MESSAGE_BYTES }
            }
            MESSAGE => Decoded::Message { len: MESSAGE_BYTES, head: MESSAGE },
            other => Decoded::Message { len: 1, head: other },
        }
    }

    fn on_message(&self, io: &mut Io<'_>, left: &mut usize, head: u8, _: &[u8]) -> Flow {
        match head {
            REQUEST => io.send(&CHUNK[..ANSWER_BYTES]),
            STREAM => {
                *left = ASKED_BYTES;
                self.stream(io, left);
            }
            _ => io.send(&[ACK]),
        }
        Flow::Continue
    }

    fn on_drained(&self, io: &mut Io<'_>, left: &mut usize) -> Flow {
        self.stream(io, left);
        Flow::Continue
    }
}

struct Server {
    running: Running,
    metrics: ProcessMetrics,
    address: SocketAddr,
    handles: Arc<Mutex<Vec<ConnHandle<()>>>>,
}

impl Server {
    fn start(dispatch: Dispatch, max_buffer_bytes: usize) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        // Those who are not accepted yet have to wait somewhere.
        rustix::net::listen(&socket, 4096).expect("it listens already");
        let address = socket.local_addr().expect("it is bound");
        let metrics = Metrics::on_heap(1).process(0);
        let handles = Arc::default();
        let source = Source { handles: Arc::clone(&handles) };
        let trigger = if dispatch == Dispatch::Inline { Trigger::Edge } else { Trigger::Oneshot };
        let config = EngineConfig {
            max_connections: 12_000,
            max_buffer_bytes,
            trigger,
            dispatch,
            pool_threads: 2,
            ..EngineConfig::default()
        };
        let builder = LoopBuilder::new(config).metrics(metrics.clone());
        let running = builder.listen("source", socket, || Ok(source)).spawn().expect("a loop");
        Self { running, metrics, address, handles }
    }

    fn connect(&self) -> TcpStream {
        let client = TcpStream::connect(self.address).expect("the server listens");
        client.set_nodelay(true).expect("it is TCP");
        client
    }

    fn stop(self) {
        self.running.stop();
        self.running.join().expect("the loop ends in order");
    }

    fn held(&self) -> usize {
        usize::try_from(self.metrics.get(ProcessWord::BufferBytes)).expect("it fits into memory")
    }

    fn open(&self) -> u64 {
        self.metrics.listener(0).get(ListenerWord::Open)
    }
}

/// Waits until something is true that nobody reports.
fn until(what: &str, mut is_true: impl FnMut() -> bool) {
    let start = Instant::now();
    while !is_true() {
        assert!(start.elapsed() < Duration::from_secs(60), "{what}: that did not come");
        std::thread::yield_now();
    }
}

/// What the process has in memory, in bytes.
fn resident() -> usize {
    let status = std::fs::read_to_string("/proc/self/status").expect("proc is mounted");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("see proc(5)");
    let kib: usize = line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("see proc(5)");
    kib << 10
}

/// What the process has allocated, in bytes.
fn allocated() -> usize {
    let stats = ALLOCATOR.stats();
    stats.bytes_allocated - stats.bytes_deallocated
}

fn say(line: std::fmt::Arguments<'_>) {
    writeln!(std::io::stdout(), "{line}").expect("there is an output");
}

const DISPATCHES: [Dispatch; 4] =
    [Dispatch::Inline, Dispatch::Pool, Dispatch::Reactor, Dispatch::LeaderFollower];

fn main() {
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let mut arguments = std::env::args().skip(1);
    if std::env::var_os(TUNABLES.0).is_none() {
        let program = std::env::current_exe().expect("proc is mounted");
        let status = Command::new(program).env(TUNABLES.0, TUNABLES.1).status().expect("a process");
        assert!(status.success(), "{status}");
        return;
    }
    if arguments.next().as_deref() == Some(PEERS_ROLE) {
        let address = arguments.next().and_then(|address| address.parse().ok()).expect("an address");
        return be_ten_thousand_peers(address);
    }
    for dispatch in DISPATCHES {
        ten_thousand_idle_connections_hold_no_buffer(dispatch);
        peers_that_read_nothing_cost_what_the_limits_of_a_connection_say(dispatch);
        peers_that_read_nothing_cost_what_the_limit_of_the_loop_says(dispatch);
        connections_that_have_gone_leave_little_and_their_handles_say_so(dispatch);
    }
}

/// See ld.so(8).
const TUNABLES: (&str, &str) =
    ("GLIBC_TUNABLES", "glibc.malloc.mmap_threshold=8192:glibc.malloc.mmap_max=60000");

const PEERS: usize = 200;

/// What a loop has whether anybody is connected or not: scratch buffers, stacks, what is kept for the next use.
const FIXED_BYTES: usize = 12 << 20;

/// Has two hundred peers ask for 50 MB each, in both ways, and read nothing. Answers the peak of
/// resident memory.
fn flood(server: &Server, enough: impl Fn(&Server) -> bool) -> usize {
    let mut probe = server.connect();
    probe.write_all(&[REQUEST]).expect("the server reads");
    let mut answer = vec![0; ANSWER_BYTES];
    probe.read_exact(&mut answer).expect("the server answers");
    let requests = vec![REQUEST; ASKED_BYTES / ANSWER_BYTES];
    let mut clients = Vec::new();
    for number in 0..PEERS {
        let mut client = server.connect();
        sockopt::set_socket_recv_buffer_size(&client, 16 << 10).expect("a small one");
        // Near the limit it may be closed at any moment, or not even be accepted.
        drop(client.write_all(if number % 2 == 0 { &requests } else { &[STREAM] }));
        clients.push(client);
    }
    until("the flood", || enough(server));
    // In many turns, nothing more is taken.
    let mut peak = 0;
    for _ in 0..200 {
        probe.write_all(&[REQUEST]).expect("the server reads");
        probe.read_exact(&mut answer).expect("the server answers");
        peak = peak.max(resident());
    }
    let open = server.open();
    drop((clients, probe));
    until("their end", || server.open() == 0);
    assert!(open > 1, "not all of them were closed");
    peak
}

/// Floods twice. The growth is bounded, what was taken is given back, and a second time nothing more is taken.
fn flood_twice(what: &str, server: &Server, bound: usize, enough: impl Fn(&Server, u64) -> bool) {
    let (start, start_allocated) = (resident(), allocated());
    let bound = bound / 4 * 5 + FIXED_BYTES;
    for round in 0..2 {
        let peak = flood(server, |server| enough(server, round)).saturating_sub(start);
        let (left, after) = (allocated().saturating_sub(start_allocated), resident().saturating_sub(start));
        say(format_args!(
            "{what}: {} KiB more at the peak of round {round}, of {} KiB; {} KiB resident and {} KiB allocated after it",
            peak >> 10,
            bound >> 10,
            after >> 10,
            left >> 10
        ));
        assert!(peak <= bound, "{what}: {peak} bytes, where {bound} are the limit");
        assert!(left <= FIXED_BYTES, "{what}: {left} bytes were not given back");
        assert!(after <= FIXED_BYTES, "{what}: {after} bytes are still resident");
    }
}

/// Answers that handlers have made and the loop has not taken yet: at most one of each peer, and only with handlers that
/// the loop does not wait for. They are no connection's before they have come back.
fn on_the_way(dispatch: Dispatch) -> usize {
    let answers = Limits::default().high_water_bytes + CHUNK_BYTES + ANSWER_BYTES;
    if dispatch == Dispatch::Pool { PEERS / 2 * answers } else { 0 }
}

fn peers_that_read_nothing_cost_what_the_limits_of_a_connection_say(dispatch: Dispatch) {
    let server = Server::start(dispatch, 1 << 30);
    let limits = Limits::default();
    // The high-water mark and what passes it, in whole blocks, and the requests that wait meanwhile.
    let each = limits.high_water_bytes + CHUNK_BYTES + (16 << 10) + ASKED_BYTES / ANSWER_BYTES;
    let bound = PEERS * each + on_the_way(dispatch);
    let least = PEERS * (limits.high_water_bytes - (100 << 10));
    flood_twice(&format!("{dispatch:?}, by connection"), &server, bound, |server, _| server.held() >= least);
    assert_eq!(server.metrics.listener(0).closed(Reason::MEMORY_PRESSURE), 0);
    server.stop();
}

fn peers_that_read_nothing_cost_what_the_limit_of_the_loop_says(dispatch: Dispatch) {
    const LIMIT: usize = 16 << 20;
    let server = Server::start(dispatch, LIMIT);
    let what = format!("{dispatch:?}, by loop");
    flood_twice(&what, &server, LIMIT + on_the_way(dispatch), |server, round| {
        assert!(server.held() <= LIMIT);
        server.metrics.listener(0).get(ListenerWord::Accepted) > round * PEERS as u64 + PEERS as u64 / 4
            && server.held() >= LIMIT / 16 * 11
    });
    server.stop();
}

fn connections_that_have_gone_leave_little_and_their_handles_say_so(dispatch: Dispatch) {
    const COUNT: usize = 5_000;
    /// Of each: its place in the reactor and in the queue of timers, and its generation. Not the connection itself.
    const MOST_LEFT: usize = 120;
    let server = Server::start(dispatch, 1 << 30);
    let open = |count: usize| {
        let clients: Vec<TcpStream> = (0..count).map(|_| server.connect()).collect();
        until("opening", || server.open() == count as u64);
        clients
    };
    drop(open(100));
    until("their end", || server.open() == 0);
    drop(std::mem::take(&mut *server.handles.lock().expect("no callback panics")));
    let start = allocated();
    let clients = open(COUNT);
    let handles = std::mem::take(&mut *server.handles.lock().expect("no callback panics"));
    assert!(handles.iter().all(ConnHandle::is_open));
    let each = (allocated() - start) / COUNT;
    drop(clients);
    until("their end", || server.open() == 0);
    // Connections of the same slots, which is not who the handles are for.
    let others = open(COUNT);
    assert_eq!(handles.len(), COUNT);
    assert!(handles.iter().all(|handle| handle.post(()) == Err(HandleError::Gone) && !handle.is_open()));
    drop((others, handles));
    until("their end", || server.open() == 0);
    drop(std::mem::take(&mut *server.handles.lock().expect("no callback panics")));
    let left = allocated().saturating_sub(start) / COUNT;
    say(format_args!("{dispatch:?}: a connection takes {each} bytes, and leaves {left}"));
    assert!(left <= MOST_LEFT && left < each / 2, "{left} bytes are left of the {each} of a connection");
    server.stop();
}

const PEERS_ROLE: &str = "peers";
const IDLE: usize = 10_000;
/// How many send at the same time.
const AT_ONCE: usize = 250;

fn ten_thousand_idle_connections_hold_no_buffer(dispatch: Dispatch) {
    let server = Server::start(dispatch, 1 << 30);
    let (start, start_allocated) = (resident(), allocated());
    let program = std::env::current_exe().expect("proc is mounted");
    // Both ends are more descriptors than a process may have.
    let mut peers = Command::new(program)
        .args([PEERS_ROLE, &server.address.to_string()])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut line = String::new();
    let said = BufReader::new(peers.stdout.as_mut().expect("it is piped")).read_line(&mut line);
    said.expect("it says when all are idle");
    assert_eq!(line, "idle\n");
    assert_eq!(server.open(), IDLE as u64);
    // Another thread may have answered before the loop has counted.
    let messages = || server.metrics.listener(0).get(ListenerWord::Messages);
    until("the last of them", || messages() == IDLE as u64);
    let (grown, more) = (resident().saturating_sub(start), allocated().saturating_sub(start_allocated));
    let held = server.held();
    say(format_args!(
        "{dispatch:?}: {IDLE} idle connections: {} bytes resident and {} allocated for each; {held} bytes of buffers in all",
        grown / IDLE,
        more / IDLE
    ));
    // What is kept for the next use, whoever it is for: so much of each kind, which are visits and output.
    assert!(held <= 2 * (4 << 20) + (256 << 10), "{held} bytes of buffers");
    // A buffer for each would be 160 MB; one connection in ten with a buffer would show.
    assert!(grown <= IDLE * 500 + FIXED_BYTES, "{grown} bytes for {IDLE} connections");
    drop(peers.stdin.take());
    assert!(peers.wait().expect("it is a child").success());
    until("their end", || server.open() == 0);
    server.stop();
}

/// The other ends: each sends one message in three pieces, and the pieces of several are mixed.
fn be_ten_thousand_peers(address: SocketAddr) {
    let message = [MESSAGE; MESSAGE_BYTES];
    let mut clients = Vec::with_capacity(IDLE);
    while clients.len() < IDLE {
        let connect = |_| TcpStream::connect(address).expect("the server listens");
        let mut batch: Vec<TcpStream> = (0..AT_ONCE).map(connect).collect();
        for piece in [&message[..6_000], &message[6_000..12_000], &message[12_000..]] {
            batch.iter_mut().for_each(|client| client.write_all(piece).expect("the server reads"));
        }
        for client in &mut batch {
            let mut ack = [0];
            client.read_exact(&mut ack).expect("the server answers");
            assert_eq!(ack, [ACK]);
        }
        clients.append(&mut batch);
    }
    say(format_args!("idle"));
    // Until the other side has measured.
    let mut end = Vec::new();
    std::io::stdin().read_to_end(&mut end).expect("it is piped");
}
