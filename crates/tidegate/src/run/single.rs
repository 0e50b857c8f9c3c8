//! Everything in the calling process: `workers = 0`, and servers inside other programs.

use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use tidegate_engine::{Backend, EngineConfig, LoopBuilder, Metrics, ProcessMetrics, ProcessWord, Socket};
use tidegate_log::{LogClient, LogServer, SharedStore};
use tidegate_process::Signals;
use tidegate_process::systemd::{ActivatedSockets, Notify};
use tidegate_sys::signal::{self, Signal};

use super::build::Built;
use super::loops::WorkerLoops;
use super::sampling::Sampling;
use super::watch::Watch;
use super::worker::{Inherited, announce};
use super::{limits, logging, operated};
use crate::board::Board;
use crate::layout::Layout;
use crate::server::{Ready, SpawnedServer};
use crate::sockets::Bound;
use crate::status::{ListenerMeta, ProcessState, ROLE_LOG_SERVER, ROLE_WORKER, StatusSource, View};
use crate::tables::Tables;
use crate::{Error, ServerBuilder};

/// Starts the server on a thread of this process.
pub(crate) fn spawn(server: &ServerBuilder) -> Result<SpawnedServer, Error> {
    let parts = prepare(server, bind(server, &mut ActivatedSockets::default(), Duration::ZERO)?, None)?;
    let loops = start_loops(server, &parts.status, parts.built, || {})?;
    Ok(SpawnedServer { ready: parts.ready, loops: Some(loops), bound: parts.bound })
}

struct Parts {
    status: StatusSource,
    built: Built,
    ready: Ready,
    bound: Vec<Bound>,
}

/// The counters of the log server's loop, and those of the one worker; the master's place stays vacant.
pub(crate) fn counters(server: &ServerBuilder) -> StatusSource {
    let addresses: Vec<String> = server.listeners.iter().map(|it| it.address.to_string()).collect();
    counters_at(server, &addresses)
}

/// As [`counters`], of listeners with these real addresses.
fn counters_at(server: &ServerBuilder, addresses: &[String]) -> StatusSource {
    let log: Arc<[ListenerMeta]> = server.log_meta().into_iter().collect();
    let permanent = View {
        generation: 0,
        metrics: Metrics::on_heap_for(Layout::FIRST_PROCESS, log.len()),
        listeners: log,
        layout: Layout::PERMANENT,
        tables: Tables::default(),
    };
    let own = View {
        generation: GENERATION.into(),
        metrics: Metrics::on_heap_for(server.layout().places(1), server.site_count()),
        listeners: server.listener_metas(addresses.iter().map(String::as_str)),
        layout: server.layout(),
        tables: Tables::on_heap(server.tables),
    };
    StatusSource { permanent, generations: vec![own], board: None }
}

/// The places of the one worker.
pub(crate) fn places(server: &ServerBuilder, status: &StatusSource) -> Vec<ProcessMetrics> {
    let own = &status.generations[0].metrics;
    server.layout().of_worker(0, 0).map(|place| own.process(place)).collect()
}

fn bind(
    server: &ServerBuilder,
    given: &mut ActivatedSockets,
    patience: Duration,
) -> Result<Vec<Bound>, Error> {
    server.bind_beside(0, &[], given, patience)
}

/// Builds the loops of the listeners.
fn prepare(server: &ServerBuilder, mut bound: Vec<Bound>, board: Option<Board>) -> Result<Parts, Error> {
    let ready = Ready { listeners: bound.iter().map(|b| (b.name.clone(), b.address.clone())).collect() };
    let addresses: Vec<String> = bound.iter().map(|bound| bound.address.clone()).collect();
    let status = StatusSource { board, ..counters_at(server, &addresses) };
    let places = places(server, &status);
    places.iter().for_each(|place| announce(place, ROLE_WORKER, 0, GENERATION, 0));
    let own = places[0].clone();
    let inherited =
        Inherited::of(&bound, server.slots_per_worker()).map_err(Error::system("sharing a socket"))?;
    let built = Built::new(server, &status, places, 0, inherited)?;
    own.set(ProcessWord::State, ProcessState::Ready as u64);
    // The descriptors of who accepts are the only ones, so that peers are refused once they have let go of them.
    bound.iter_mut().for_each(|listener| listener.sockets.clear());
    Ok(Parts { status, built, ready, bound })
}

/// There is only one.
const GENERATION: u32 = 1;

/// Starts the loops of the one worker.
fn start_loops(
    server: &ServerBuilder,
    status: &StatusSource,
    built: Built,
    at_end: impl Fn() + Clone + Send + 'static,
) -> Result<WorkerLoops, Error> {
    let loops = WorkerLoops::start(built, at_end)?;
    loops.publish(&places(server, status));
    Ok(loops)
}

/// Runs the server in this process until a signal ends it.
pub(crate) fn run(mut server: ServerBuilder, signals: &Signals) -> Result<(), Error> {
    operated::raise_open_files(&server.config)?;
    let on_ready = server.on_ready.take();
    let mut given = ActivatedSockets::take().map_err(|error| Error::Service(error.into()))?;
    let notify = Notify::from_env();
    if !server.operated {
        let parts = prepare(&server, bind(&server, &mut given, Duration::ZERO)?, None)?;
        return serve(&server, parts, signals, Around { operated: None, log: None, on_ready, notify });
    }
    let locked = operated::lock_data_dir(&server)?;
    let board = Board::on_heap();
    let (client, store) = logging::to_store(&server.config, "worker 0", board.as_ref())?;
    let socket = operated::bind_log_socket(&server)?;
    let parts = prepare(&server, bind(&server, &mut given, locked.patience)?, board)?;
    let for_loop = store.clone();
    let log_place = parts.status.permanent.metrics.process(Layout::LOG_SERVER);
    announce(&log_place, ROLE_LOG_SERVER, 0, 0, 0);
    let log_loop = LoopBuilder::new(EngineConfig { backend: Backend::Epoll, ..EngineConfig::default() })
        .listen("log", Socket::own(socket), move || Ok(LogServer::new(for_loop)))
        .metrics(log_place.clone())
        .spawn()
        .map_err(Error::Service)?;
    log_place.set(ProcessWord::State, ProcessState::Ready as u64);
    let around = Around { operated: Some(&store), log: Some(client.clone()), on_ready, notify };
    let outcome = serve(&server, parts, signals, around);
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
    operated: Option<&'a SharedStore>,
    log: Option<LogClient>,
    on_ready: Option<crate::server::OnReady>,
    notify: Notify,
}

fn serve(server: &ServerBuilder, parts: Parts, signals: &Signals, around: Around<'_>) -> Result<(), Error> {
    let Around { operated, log, on_ready, notify } = around;
    say_what_is_served(server, &parts.ready);
    let seats = server.layout().seats().zip(places(server, &parts.status));
    let watches = seats.map(|(seat, own)| Watch::new(server, seat, own, log.clone()));
    let mut watches: Vec<Watch> = watches.collect();
    let own = places(server, &parts.status).swap_remove(0);
    let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let ended = Arc::new(ended.map_err(|errno| Error::system("making a waker")(errno.into()))?);
    let waker = Arc::clone(&ended);
    let loops = start_loops(server, &parts.status, parts.built, move || {
        // A counter of 1 always fits.
        let _ = rustix::io::write(&waker, &1u64.to_ne_bytes());
    })?;
    tracing::info!(pid = std::process::id(), "ready");
    notify.ready(&parts.ready.to_string());
    if let Some(on_ready) = on_ready {
        on_ready(&parts.ready);
    }
    let mut told = false;
    let mut quit_at: Option<Instant> = None;
    let mut sampling = parts.status.board.as_ref().map(Sampling::new);
    while !loops.is_finished() {
        let mut fds = [PollFd::new(signals, PollFlags::IN), PollFd::new(&*ended, PollFlags::IN)];
        let until_quit = quit_at.map(|at| at.saturating_duration_since(Instant::now()));
        let until_sample = sampling.as_ref().map(Sampling::due_in);
        let interval = until_quit.into_iter().chain(until_sample).fold(watches[0].interval(), Duration::min);
        let interval = Timespec::try_from(interval).ok();
        let polled = poll(&mut fds, interval.as_ref());
        watches.iter_mut().for_each(Watch::look);
        if let Some(sampling) = &mut sampling {
            sampling.look(&parts.status);
        }
        match polled {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::system("waiting for signals")(errno.into())),
        }
        if loops.has_ended() && !told {
            // A loop that ends by itself has failed; without it a part of the connections would not be served, and
            // without the acceptor none.
            loops.stop();
        }
        notify.watchdog();
        if quit_at.is_some_and(|at| at <= Instant::now()) {
            quit_at = None;
            loops.quit(server.config.process.shutdown_timeout);
        }
        let Some(received) = signals.read().map_err(Error::system("reading signals"))? else { continue };
        tracing::info!(
            signal = signal::name(received.signal),
            sender_pid = received.sender_pid,
            "signal received"
        );
        told |= matches!(received.signal, Signal::TERM | Signal::INT | Signal::QUIT);
        if told {
            notify.stopping();
        }
        match received.signal {
            Signal::TERM | Signal::INT => loops.stop(),
            Signal::QUIT => {
                own.set(ProcessWord::State, ProcessState::Retiring as u64);
                // Told twice, it does not wait for balancers to notice any more.
                let delay = server.config.process.shutdown_delay;
                quit_at = Some(if quit_at.is_some() { Instant::now() } else { Instant::now() + delay });
            }
            other => obey(other, operated),
        }
    }
    let outcome = loops.join();
    tracing::info!("stopped");
    parts.bound.iter().for_each(Bound::remove_file);
    outcome
}

fn say_what_is_served(server: &ServerBuilder, ready: &Ready) {
    tracing::info!(version = env!("CARGO_PKG_VERSION"), "starting");
    limits::report(&server.config, 0);
    #[cfg(feature = "full")]
    server.tls.warn();
    for (listener, address) in &ready.listeners {
        tracing::info!(listener, address, "listening");
    }
}

/// A signal that does not end the server.
fn obey(signal: Signal, store: Option<&SharedStore>) {
    match (signal, store) {
        (Signal::USR1, Some(store)) => store.lock().reopen(),
        (Signal::USR1, None) => {}
        (other, _) => {
            tracing::warn!(signal = signal::name(other), "signal has no effect on a server of one process");
        }
    }
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
