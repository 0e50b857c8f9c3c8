//! What it costs to hand connections over: an acceptor, eight workers with a channel each, and clients that come, hear an
//! echo and go. Prints the processor time of the acceptor's thread for each connection.
//!
//! `cargo run --release -p tidegate-engine --example handover [CONNECTIONS]`
#![expect(clippy::print_stdout, reason = "it is here to print")]

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

use rustix::net::sockopt;
use rustix::time::{ClockId, clock_gettime};
use tidegate_engine::{
    AcceptorBuilder, Balance, BoxError, Decoded, EngineConfig, FdChannel, Flow, Io, ListenerWord,
    LoopBuilder, Metrics, Peer, ReceiverBuilder, Refusal, Service, Socket,
};

const WORKERS: usize = 8;
const CLIENTS: usize = 16;

struct Echo;

impl Service for Echo {
    type Session = ();
    type Head = ();
    type Note = ();

    fn on_open(&self, _: &mut Io<'_>, _: &Peer<'_>) -> Result<(), Refusal> {
        Ok(())
    }

    fn decode(&self, (): &mut (), input: &[u8]) -> Decoded<()> {
        Decoded::Message { len: input.len(), head: () }
    }

    fn on_message(&self, io: &mut Io<'_>, (): &mut (), (): (), bytes: &[u8]) -> Flow {
        io.send(bytes);
        Flow::Continue
    }
}

fn main() -> Result<(), BoxError> {
    let connections: usize = std::env::args().nth(1).map_or(Ok(50_000), |count| count.parse())?;
    let (mut channels, mut workers) = (Vec::new(), Vec::new());
    let served = Metrics::on_heap_for(WORKERS, 1);
    for number in 0..WORKERS {
        let (sending, receiving) = FdChannel::pair()?;
        channels.push(sending);
        let running = LoopBuilder::new(EngineConfig::default())
            .listen("echo", Socket::handed_over(), || Ok(Echo))
            .metrics(served.process(number))
            .spawn()?;
        let (mut receiver, handle) =
            ReceiverBuilder::new(Balance::RoundRobin, vec![running.handle()]).channel(receiving).build()?;
        workers.push((running, handle, thread::spawn(move || receiver.run())));
    }
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
    rustix::net::listen(&socket, 4096)?;
    let address = socket.local_addr()?;
    let loads = served.clone();
    let load = move |worker: usize| {
        usize::try_from(loads.process(worker).listener(0).get(ListenerWord::Open)).unwrap_or(usize::MAX)
    };
    let counts = Metrics::on_heap(1).process(0);
    let (mut acceptor, handle) = AcceptorBuilder::to_channels(Balance::LeastConnections, channels, load)
        .listen("echo", socket)
        .metrics(counts.clone())
        .build()?;
    let accepting = thread::spawn(move || {
        let outcome = acceptor.run();
        (outcome, clock_gettime(ClockId::ThreadCPUTime))
    });
    let echoes = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while echoes.fetch_add(1, Ordering::Relaxed) < connections {
                    echo(address).expect("each connection is served");
                }
            });
        }
    });
    handle.quit(Duration::from_secs(1));
    let (outcome, cpu) = accepting.join().expect("an acceptor does not panic");
    outcome?;
    let micros = u64::try_from(Duration::try_from(cpu)?.as_micros())?;
    let accepted: Vec<u64> =
        (0..WORKERS).map(|worker| served.process(worker).listener(0).get(ListenerWord::Accepted)).collect();
    let total: u64 = accepted.iter().sum();
    println!("{total} of {connections} connections were served, by the workers {accepted:?}");
    let turns = counts.get(tidegate_engine::ProcessWord::LoopTurns);
    println!("acceptor: {micros} us, {:.2} us a connection, in {turns} turns", micros as f64 / total as f64);
    for (running, handle, receiving) in workers {
        handle.stop();
        receiving.join().expect("a receiver does not panic")?;
        running.join()?;
    }
    Ok(())
}

/// One connection, which leaves nothing behind: a port in TIME_WAIT would be missed soon.
fn echo(address: SocketAddr) -> std::io::Result<()> {
    let mut stream = TcpStream::connect(address)?;
    sockopt::set_socket_linger(&stream, Some(Duration::ZERO))?;
    stream.write_all(b"hello")?;
    stream.read_exact(&mut [0; 5])
}
