//! Everything in the calling process: `workers = 0`, and servers inside other programs.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use tidegate_engine::{Backend, EngineConfig, LoopBuilder, Metrics, ProcessMetrics, ProcessWord, Socket};
use tidegate_log::{LogClient, LogServer, SharedStore};
use tidegate_process::Signals;
use tidegate_sys::signal::{self, Signal};

use super::build::{Built, Listening};
use super::loops::WorkerLoops;
use super::operated::Locked;
use super::watch::Watch;
use super::worker::announce;
use super::{logging, operated};
use crate::layout::Layout;
use crate::server::{Ready, SpawnedServer};
use crate::sockets::Bound;
use crate::status::ProcessState;
use crate::{Error, ServerBuilder};

/// Starts the server on a thread of this process.
pub(crate) fn spawn(server: &ServerBuilder) -> Result<SpawnedServer, Error> {
    let metrics = counters(server);
    let parts = prepare(server, &metrics, Duration::ZERO)?;
    let loops = start_loops(server, &metrics, parts.built, || {})?;
    Ok(SpawnedServer { ready: parts.ready, loops: Some(loops), bound: parts.bound })
}

struct Parts {
    built: Built,
    ready: Ready,
    bound: Vec<Bound>,
}

/// The counters of a master's place that stays vacant, the log server's loop, and those of the one worker.
fn counters(server: &ServerBuilder) -> Metrics {
    Metrics::on_heap_for(server.layout().places(1), server.counted_listeners())
}

/// The places of the one worker.
fn places(server: &ServerBuilder, metrics: &Metrics) -> Vec<ProcessMetrics> {
    server.layout().of_worker(0).map(|place| metrics.process(place)).collect()
}

/// Binds the listeners and builds the loops.
fn prepare(server: &ServerBuilder, metrics: &Metrics, patience: Duration) -> Result<Parts, Error> {
    let mut bound = server.bind(1, patience)?;
    let ready = Ready { listeners: bound.iter().map(|b| (b.name.clone(), b.address.clone())).collect() };
    places(server, metrics).iter().for_each(|place| announce(place, 2, 0));
    let sockets_of = |slot: usize| {
        let of = |listener: &Bound| {
            let fd = listener.for_slot(slot).try_clone().map_err(Error::system("sharing a socket"))?;
            Ok(Listening { fd, shared: listener.shared, address: listener.address.clone() })
        };
        bound.iter().map(of).collect()
    };
    let built = Built::new(server, metrics, 0, sockets_of)?;
    metrics.process(Layout::FIRST_WORKER).set(ProcessWord::State, ProcessState::Ready as u64);
    // The descriptors of who accepts are the only ones, so that peers are refused once they have let go of them.
    bound.iter_mut().for_each(|listener| listener.sockets.clear());
    Ok(Parts { built, ready, bound })
}

/// Starts the loops of the one worker.
fn start_loops(
    server: &ServerBuilder,
    metrics: &Metrics,
    built: Built,
    at_end: impl Fn() + Clone + Send + 'static,
) -> Result<WorkerLoops, Error> {
    let loops = WorkerLoops::start(built, at_end)?;
    loops.publish(&places(server, metrics));
    Ok(loops)
}

/// Runs the server in this process until a signal ends it.
pub(crate) fn run(mut server: ServerBuilder, signals: &Signals) -> Result<(), Error> {
    operated::raise_open_files(&server.config)?;
    let on_ready = server.on_ready.take();
    let metrics = counters(&server);
    let watches = |log: Option<LogClient>| -> Vec<Watch> {
        let seats = server.layout().seats().zip(places(&server, &metrics));
        seats.map(|(seat, own)| Watch::new(&server, seat, own, log.clone())).collect()
    };
    if !server.operated {
        return serve(
            &server,
            &metrics,
            on_ready,
            signals,
            Around { operated: None, watches: watches(None) },
        );
    }
    let locked = operated::lock_data_dir(&server.config)?;
    let (client, store) = logging::to_store(&server.config, "worker 0")?;
    let socket = operated::bind_log_socket(&server.config)?;
    let for_loop = store.clone();
    let log_place = metrics.process(Layout::LOG_SERVER);
    announce(&log_place, 1, 0);
    let log_loop = LoopBuilder::new(EngineConfig { backend: Backend::Epoll, ..EngineConfig::default() })
        .listen("log", Socket::own(socket), move || Ok(LogServer::new(for_loop)))
        .metrics(log_place.without_first_listeners(server.listeners.len()))
        .spawn()
        .map_err(Error::Service)?;
    log_place.set(ProcessWord::State, ProcessState::Ready as u64);
    let around = Around { operated: Some((&locked, &store)), watches: watches(Some(client.clone())) };
    let outcome = serve(&server, &metrics, on_ready, signals, around);
    log_loop.quit(logging::FLUSH_TIMEOUT);
    let log_outcome = log_loop.join().map_err(Error::system("log server"));
    operated::remove_log_socket(&server.config);
    let _ = client.close(logging::FLUSH_TIMEOUT);
    store.lock().flush_now();
    drop(locked.pid_file);
    outcome.and(log_outcome)
}

/// What stands around the loop of a server of one process.
struct Around<'a> {
    operated: Option<(&'a Locked, &'a SharedStore)>,
    watches: Vec<Watch>,
}

fn serve(
    server: &ServerBuilder,
    metrics: &Metrics,
    on_ready: Option<crate::server::OnReady>,
    signals: &Signals,
    around: Around<'_>,
) -> Result<(), Error> {
    let Around { operated, mut watches } = around;
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    let parts = prepare(server, metrics, operated.map_or(Duration::ZERO, |(locked, _)| locked.patience))?;
    for (listener, address) in &parts.ready.listeners {
        tracing::info!(listener, address, "listening");
    }
    let own = metrics.process(Layout::FIRST_WORKER);
    let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let ended = Arc::new(ended.map_err(|errno| Error::system("making a waker")(errno.into()))?);
    let waker = Arc::clone(&ended);
    let loops = start_loops(server, metrics, parts.built, move || {
        // A counter of 1 always fits.
        let _ = rustix::io::write(&waker, &1u64.to_ne_bytes());
    })?;
    tracing::info!(pid = std::process::id(), "ready");
    if let Some(on_ready) = on_ready {
        on_ready(&parts.ready);
    }
    let mut told = false;
    while !loops.is_finished() {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&*ended, PollFlags::IN)];
        let interval = Timespec::try_from(watches[0].interval()).ok();
        let polled = poll(&mut fds, interval.as_ref());
        watches.iter_mut().for_each(Watch::look);
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("waiting for signals")(errno.into())),
        }
        if loops.has_ended() && !told {
            // A loop that ends by itself has failed; without it a part of the connections would not be served, and
            // without the acceptor none.
            loops.stop();
        }
        let Some(received) = signals.read().map_err(Error::system("reading signals"))? else { continue };
        tracing::info!(
            signal = signal::name(received.signal),
            sender_pid = received.sender_pid,
            "signal received"
        );
        told |= matches!(received.signal, Signal::TERM | Signal::INT | Signal::QUIT);
        match received.signal {
            Signal::TERM | Signal::INT => loops.stop(),
            Signal::QUIT => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                loops.quit(server.config.process.shutdown_timeout);
            }
            Signal::USR1 => {
                if let Some((_, store)) = operated {
                    store.lock().reopen();
                }
            }
            other => tracing::warn!(
                signal = signal::name(other),
                "signal has no effect on a server of one process"
            ),
        }
    }
    let outcome = loops.join();
    tracing::info!("stopped");
    parts.bound.iter().for_each(Bound::remove_file);
    outcome
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::TcpStream;
    use std::os::unix::net::UnixStream;

    use tidegate_engine::{Flow, Io};

    use super::*;
    use crate::config::{Accept, Acceptor, Balance};
    use crate::{Server, Stream};

    /// Answers with the thread that serves the connection.
    fn own_thread() -> Stream<impl Fn(&mut Io<'_>, &[u8]) -> Flow + Send + Sync + 'static> {
        Stream::new(|io, _| {
            io.send(std::thread::current().name().unwrap_or("unnamed").as_bytes());
            Flow::Continue
        })
    }

    /// Three loops and an acceptor, with a listener on TCP and one at `path`.
    fn spawn_main(balance: Balance, accept: Accept, path: &std::path::Path) -> SpawnedServer {
        let mut server = Server::builder().listen("127.0.0.1:0", own_thread).loops(3);
        server = server.listen(format!("unix:{}", path.display()), own_thread);
        server.config.engine.acceptor = Acceptor::Main;
        server.config.engine.balance = balance;
        server.config.process.accept = accept;
        server.spawn().unwrap()
    }

    fn thread_of(mut stream: impl Read + Write) -> String {
        stream.write_all(b"?").unwrap();
        let mut answer = [0; 16];
        let len = stream.read(&mut answer).unwrap();
        String::from_utf8(answer[..len].to_vec()).unwrap()
    }

    #[track_caller]
    fn check(balance: Balance, expect: impl Fn(&[String]) -> bool) {
        for accept in [Accept::Reuseport, Accept::Shared] {
            let folder = tempfile::tempdir().unwrap();
            let path = folder.path().join("s");
            let server = spawn_main(balance, accept, &path);
            let clients: Vec<_> =
                (0..6).map(|_| TcpStream::connect(server.address("main").unwrap()).unwrap()).collect();
            let threads: Vec<String> = clients.iter().map(thread_of).collect();
            assert!(expect(&threads), "{accept}: {threads:?}");
            let local = UnixStream::connect(&path).unwrap();
            assert!(thread_of(&local).starts_with("loop-"));
            server.quit(Duration::from_secs(30));
            for mut client in clients {
                assert_eq!(client.read(&mut [0]).unwrap(), 0, "an idle stream is ended in order");
            }
            drop(local);
            server.join().unwrap();
        }
    }

    #[test]
    fn an_acceptor_spreads_connections_over_the_loops_of_the_process() {
        let even = ["loop-0", "loop-1", "loop-2", "loop-0", "loop-1", "loop-2"];
        check(Balance::RoundRobin, |threads| threads == even);
        check(Balance::LeastConnections, |threads| threads == even);
        check(Balance::Hash, |threads| threads.iter().all(|thread| *thread == threads[0]));
    }

    #[test]
    fn a_dropped_server_stops_its_acceptor_and_its_loops() {
        let folder = tempfile::tempdir().unwrap();
        let server = spawn_main(Balance::RoundRobin, Accept::Reuseport, &folder.path().join("s"));
        let address = server.address("main").unwrap();
        let mut client = TcpStream::connect(address).unwrap();
        assert_eq!(thread_of(&client), "loop-0");
        drop(server);
        assert_eq!(client.read(&mut [0]).unwrap(), 0);
        assert!(TcpStream::connect(address).is_err(), "nobody listens any more");
    }
}
