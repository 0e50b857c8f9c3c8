//! Everything in the calling process: `workers = 0`, and servers inside other programs.

use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use rustix::time::Timespec;
use tidegate_engine::{EngineConfig, HandlerPool, LoopBuilder, Metrics, ProcessWord, Socket};
use tidegate_log::{LogClient, LogServer, SharedStore};
use tidegate_process::Signals;
use tidegate_sys::signal::{self, Signal};

use super::loops::{Built, Listening, WorkerLoops, build_loop, start_pool};
use super::operated::Locked;
use super::threads::Threads;
use super::watch::Watch;
use super::worker::announce;
use super::{logging, operated};
use crate::server::{Ready, SpawnedServer};
use crate::sockets::Bound;
use crate::status::{ProcessState, place};
use crate::{Error, ServerBuilder};

/// Starts the server on a thread of this process.
pub(crate) fn spawn(server: &ServerBuilder) -> Result<SpawnedServer, Error> {
    let metrics = counters(server);
    let parts = prepare(server, &metrics, Duration::ZERO)?;
    let loops = start_loops(server, &metrics, (parts.built, parts.pool, parts.threads), || {})?;
    Ok(SpawnedServer { ready: parts.ready, loops: Some(loops), bound: parts.bound })
}

struct Parts {
    built: Vec<Built>,
    pool: Option<HandlerPool>,
    threads: Threads,
    ready: Ready,
    bound: Vec<Bound>,
}

/// The counters of a master's place that stays vacant, the log server's loop, and those of the one worker.
fn counters(server: &ServerBuilder) -> Metrics {
    Metrics::on_heap_for(place::of_loop(1, server.loop_count(), 0), server.counted_listeners())
}

/// Binds the listeners and builds the loop.
fn prepare(server: &ServerBuilder, metrics: &Metrics, patience: Duration) -> Result<Parts, Error> {
    let mut bound = server.bind(1, patience)?;
    let ready = Ready { listeners: bound.iter().map(|b| (b.name.clone(), b.address.clone())).collect() };
    let threads = Threads::of_worker(&server.config, 0, server.loop_count());
    let pool = start_pool(server, &threads)?;
    let mut built = Vec::with_capacity(server.loop_count());
    for number in 0..server.loop_count() {
        let own = metrics.process(place::of_loop(0, server.loop_count(), number));
        announce(&own, 2, 0);
        let mut sockets = Vec::with_capacity(bound.len());
        for listener in &bound {
            let fd = listener.for_slot(number).try_clone().map_err(Error::system("sharing a socket"))?;
            let (shared, address) = (listener.shared, listener.address.clone());
            sockets.push(Listening { fd, shared, address });
        }
        built.push(build_loop(server, metrics, &own, sockets, pool.as_ref())?);
    }
    metrics.process(place::FIRST_WORKER).set(ProcessWord::State, ProcessState::Ready as u64);
    // The loops' descriptors are the only ones, so that peers are refused once they have let go of them.
    bound.iter_mut().for_each(|listener| listener.sockets.clear());
    Ok(Parts { built, pool, threads, ready, bound })
}

/// Starts the loops of the one worker.
fn start_loops(
    server: &ServerBuilder,
    metrics: &Metrics,
    parts: (Vec<Built>, Option<HandlerPool>, Threads),
    at_end: impl Fn() + Clone + Send + 'static,
) -> Result<WorkerLoops, Error> {
    let (built, pool, threads) = parts;
    let loops = WorkerLoops::start(built, pool, &threads, at_end)?;
    let places = (0..server.loop_count()).map(|number| place::of_loop(0, server.loop_count(), number));
    loops.publish(&places.map(|place| metrics.process(place)).collect::<Vec<_>>());
    Ok(loops)
}

/// Runs the server in this process until a signal ends it.
pub(crate) fn run(mut server: ServerBuilder, signals: &Signals) -> Result<(), Error> {
    operated::raise_open_files(&server.config)?;
    let on_ready = server.on_ready.take();
    let metrics = counters(&server);
    let watches = |log: Option<LogClient>| -> Vec<Watch> {
        let places = (0..server.loop_count()).map(|number| place::of_loop(0, server.loop_count(), number));
        places.map(|place| Watch::new(&server, metrics.process(place), log.clone())).collect()
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
    let log_place = metrics.process(place::LOG_SERVER);
    announce(&log_place, 1, 0);
    let log_loop = LoopBuilder::new(EngineConfig::default())
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
    let own = metrics.process(place::FIRST_WORKER);
    let ended = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK);
    let ended = Arc::new(ended.map_err(|errno| Error::system("making a waker")(errno.into()))?);
    let waker = Arc::clone(&ended);
    let loops = start_loops(server, metrics, (parts.built, parts.pool, parts.threads), move || {
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
            // A loop that ends by itself has failed; without it a part of the connections would not be served.
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
