//! What the engine asks of the allocator: nothing for a message, little for a connection.
//!
//! A test binary of its own, as the counters are those of the whole process. Nothing but the loop and the one client runs
//! while they are compared, and the client does not allocate.

use std::alloc::System;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stats_alloc::{INSTRUMENTED_SYSTEM, Region, Stats, StatsAlloc};
use tidegate_engine::{
    Decoded, EngineConfig, Flow, Io, ListenerWord, LoopBuilder, Metrics, Peer, Phase, ProcessMetrics,
    Refusal, Running, Service, Trigger,
};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Sends back messages of a fixed length.
struct Echo;

const LEN: usize = 100;

impl Service for Echo {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        if input.len() < LEN {
            return Decoded::Need { phase: Phase::Head, at_least: LEN };
        }
        Decoded::Message { len: LEN, head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        io.send(bytes);
        Flow::Continue
    }
}

struct Server {
    running: Running,
    metrics: ProcessMetrics,
    address: SocketAddr,
}

impl Server {
    fn start(trigger: Trigger) -> Self {
        let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a free port");
        let address = socket.local_addr().expect("it is bound");
        let metrics = Metrics::on_heap(1).process(0);
        let config = EngineConfig { trigger, ..EngineConfig::default() };
        let builder = LoopBuilder::new(config).metrics(metrics.clone());
        let running = builder.listen("echo", socket, || Ok(Echo)).spawn().expect("a loop");
        Self { running, metrics, address }
    }

    fn stop(self) {
        self.running.stop();
        self.running.join().expect("the loop ends in order");
    }

    fn wait_for(&self, word: ListenerWord, count: u64) {
        let start = std::time::Instant::now();
        while self.metrics.listener(0).get(word) < count {
            assert!(start.elapsed().as_secs() < 10, "{word:?} did not become {count}");
            std::thread::yield_now();
        }
    }
}

/// One message, there and back, in pieces.
fn round_trip(server: &Server, client: &mut TcpStream, message: &[u8], pieces: &[usize]) {
    let mut at = 0;
    for &piece in pieces {
        let before = server.metrics.listener(0).get(ListenerWord::BytesIn);
        client.write_all(&message[at..at + piece]).expect("the server reads");
        server.wait_for(ListenerWord::BytesIn, before + piece as u64);
        at += piece;
    }
    let mut back = [0; 10 * LEN];
    client.read_exact(&mut back[..at]).expect("the server answers");
    assert_eq!(&back[..at], &message[..at]);
}

fn main() {
    // Both ends of every connection are in this process.
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    for trigger in [Trigger::Level, Trigger::Edge, Trigger::Oneshot] {
        no_message_allocates(trigger);
        an_idle_connection_costs_little(trigger);
    }
}

fn no_message_allocates(trigger: Trigger) {
    let server = Server::start(trigger);
    let mut client = TcpStream::connect(server.address).expect("the server listens");
    client.set_nodelay(true).expect("it is TCP");
    let message: Vec<u8> = (0..=250).cycle().take(10 * LEN).collect();
    // Whole, ten in one, and in pieces, of which what is not yet whole has to be kept.
    let ways: [&[usize]; 3] = [&[LEN], &[10 * LEN], &[30, LEN, 170]];
    let mut run = |times| {
        for _ in 0..times {
            for pieces in ways {
                round_trip(&server, &mut client, &message, pieces);
            }
        }
    };
    run(100);
    let region = Region::new(ALLOCATOR);
    run(1000);
    let Stats { allocations, reallocations, deallocations, .. } = region.change();
    assert_eq!((allocations, reallocations, deallocations), (0, 0, 0), "{trigger:?}: in 14,000 messages");
    drop(client);
    server.stop();
}

fn an_idle_connection_costs_little(trigger: Trigger) {
    const COUNT: usize = 1024;
    /// Conn, source, wheel entry and session, with what their tables have in reserve.
    const MOST: usize = 400;
    let server = Server::start(trigger);
    let message = [7; LEN];
    let mut clients = Vec::with_capacity(COUNT + 1);
    let connect = |clients: &mut Vec<TcpStream>| {
        let mut client = TcpStream::connect(server.address).expect("the server listens");
        round_trip(&server, &mut client, &message, &[LEN]);
        clients.push(client);
    };
    connect(&mut clients);
    let region = Region::new(ALLOCATOR);
    for _ in 0..COUNT {
        connect(&mut clients);
    }
    let Stats { bytes_allocated, bytes_deallocated, .. } = region.change();
    let each = (bytes_allocated - bytes_deallocated) / COUNT;
    assert!(each <= MOST, "{trigger:?}: {each} bytes for a connection");
    let mut out = std::io::stdout();
    writeln!(out, "{trigger:?}: an idle connection takes {each} bytes of memory")
        .expect("there is an output");
    drop(clients);
    server.stop();
}
